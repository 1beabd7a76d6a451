"""The native engine: a component's RTL compiled to machine code with Verilator."""

import ctypes
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

from amaranth.lib import wiring

from halfdome.hdl.command.statistics import COUNT_BITS
from halfdome.hdl.rtlil import to_rtlil
from halfdome.sim.build.cache import BuildError, check_writable, content_key, recall, remember
from halfdome.sim.build.compiler import SIM
from halfdome.sim.build.progress import told
from halfdome.sim.build.verilator import TOP, Verilator
from halfdome.sim.rtl.ports import (
    NO_CLOCK,
    UNDRIVEN,
    Idle,
    Pin,
    Port,
    component_ports,
    undriven_domain,
)
from halfdome.sim.waves import Waves

_IDLE_FUNCTIONS = ("model_remember", "model_repeated", "model_advance")
_CYCLE_COUNT = re.compile(rf"QData/\*{COUNT_BITS - 1}:0\*/ (\w*_cycles);")
"""A count of cycles among the members of a Verilated module."""


def _cycle_counts(folder: Path, prefix: str) -> list[str]:
    """The members of the model that count cycles; there is one module, see `--flatten`."""
    return _CYCLE_COUNT.findall((folder / f"{prefix}___024root.h").read_text())


def _glue(
    ports: Sequence[Port], prefix: str, traced: bool, idle_period: int, counts: Sequence[str]
) -> str:
    """C functions around the Verilated class: create, destroy, settle, edge, run, and each pin.

    Also those that let it idle, see `CardModel` of `card_model.hpp`. A traced model has
    `model_waves` as well, and counts cycles.
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
#include "kernel/idle.hpp"
#define TRACED {int(traced)}
#if TRACED
#include "verilated_vcd_c.h"
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

struct Model {{
  VerilatedContext context;
  {prefix} top{{&context}};
  halfdome::Idle idle{{top.rootp, sizeof *top.rootp, {{{words}}}}};
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
EXPORT long long model_idle_period() {{ return {idle_period}; }}
EXPORT void model_remember(Model* model) {{ model->idle.remember(); }}
EXPORT int model_repeated(Model* model) {{ return model->idle.repeated(); }}
EXPORT void model_advance(Model* model, long long repetitions) {{
  model->idle.advance(repetitions);
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
    tools = Verilator.find(traced=traced)
    idle = (SIM / "kernel" / "idle.hpp").read_text()
    flags = tools.identity(_glue((), "", traced, 0, ()) + idle)
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
        idle_period = 0 if traced else getattr(component, "idle_period", 0)

        def wrap(folder: Path, prefix: str) -> None:
            if not re.search(r"\bclk\b", (folder / f"{prefix}.h").read_text()):
                raise BuildError(NO_CLOCK)
            glue = _glue(ports, prefix, traced, idle_period, _cycle_counts(folder, prefix))
            (folder / "glue.cpp").write_text(glue)
            (folder / "ports.json").write_text(json.dumps([astuple(port) for port in ports]))

        key = content_key(text, flags, str(idle_period))
        path = tools.compile(key, text, wrap, progress)
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
        self._library.model_idle_period.restype = ctypes.c_longlong
        period = self._library.model_idle_period()
        self.idle = Idle(*map(self._address, _IDLE_FUNCTIONS), period) if period else None
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
