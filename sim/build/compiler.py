"""Finding and running the C++ compiler of this machine."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from halfdome.sim.build.cache import BuildError, cached, content_key
from halfdome.sim.build.progress import told

SIM = Path(__file__).resolve().parent.parent
JOBS = 2
"""Compilations at once."""
OPTIMISED = ("-O2",)
"""What is run in every cycle; `-O3` compiles longer and is not faster."""
QUICK = (
    "-Os", "-fno-tree-pre", "-fno-code-hoisting", "-fno-gcse", "-fno-thread-jumps",
    "-fno-tree-dse", "-fno-tree-vrp", "-fno-tree-dominator-opts", "-fno-expensive-optimizations",
    "-fno-ipa-icf", "-fno-ipa-modref", "-fno-ipa-cp", "-fno-ipa-sra", "-fno-schedule-insns2",
)  # fmt: skip
"""g++'s `-Os` without what takes long and gains little: as fast as `-O2` but for a fiftieth."""


@dataclass(frozen=True)
class Compiler:
    """A C++17 compiler: its command and the flags that every build uses."""

    command: tuple[str, ...]
    flags: tuple[str, ...]

    @cached_property
    def _version(self) -> str:
        return run((*self.command, "--version"), "the C++ compiler")

    @property
    def quick(self) -> tuple[str, ...]:
        """The flags for what is worth fewer seconds: other compilers than g++ know `-O2` only."""
        return QUICK if "Free Software Foundation" in self._version else OPTIMISED

    def identity(self) -> str:
        """What the output depends on besides the input: compiler, flags and processor."""
        flags = (*self.flags, *OPTIMISED, *self.quick)
        return "\n".join((*self.command, *flags, self._version, _processor()))


def _processor() -> str:
    """The processor, as far as `-march=native` sees it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


@cache
def find_compiler() -> Compiler:
    """`$CXX`, else g++, clang++ or c++, else the `ziglang` wheel.

    Raises `BuildError` that says what to install if there is none.
    """
    common = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-pthread", "-w")
    if chosen := os.environ.get("CXX"):
        return Compiler(tuple(shlex.split(chosen)), (*common, "-march=native"))
    for name in ("g++", "clang++", "c++"):
        if path := shutil.which(name):
            return Compiler((path,), (*common, "-march=native"))
    if find_spec("ziglang"):
        return Compiler((sys.executable, "-m", "ziglang", "c++"), (*common, "-mcpu=native"))
    raise BuildError(
        "no C++ compiler: install g++ or clang++ with the system's package manager, "
        "or `pip install ziglang`, or set CXX"
    )


def run(
    command: Sequence[str | Path],
    what: str,
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Runs a tool and returns its output. Raises `BuildError` with the end of its messages."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd, env=env, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{what}: cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise BuildError(f"{what} failed ({done.returncode}):\n{done.stdout[-4000:]}")
    return done.stdout


def compile_objects(
    sources: Mapping[Path, Sequence[str]], folder: Path, *, include: Sequence[Path] = ()
) -> list[Path]:
    """Compiles each source, with the flags it maps to, to an object in `folder`.

    `JOBS` at a time, in the order given.
    """
    compiler = find_compiler()
    includes = [f"-I{path}" for path in include]

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        flags = (*compiler.flags, *sources[source], *includes)
        run((*compiler.command, *flags, "-c", source, "-o", target), f"compiling {source.name}")
        return target

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(compile_one, sources))


def link(objects: Sequence[Path], target: Path) -> None:
    """Links objects into a shared library that binds to its own symbols first."""
    compiler = find_compiler()
    command = (*compiler.command, *compiler.flags, "-shared", "-Wl,-Bsymbolic", "-o", target)
    run((*command, *objects), f"linking {target.name}")


_INCLUDE = re.compile(r'^#include "(.+)"', re.MULTILINE)


def included(source: Path) -> list[Path]:
    """A C++ file and the headers of `sim/` that it includes, and that those include."""
    found: set[Path] = set()
    left = [source]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for name in _INCLUDE.findall(path.read_text()):
            places = ((path.parent / name).resolve(), SIM / name)
            left += [place for place in places if place.is_file()][:1]
    return sorted(found)


def library(
    source: Path,
    name: str,
    *,
    flags: Sequence[str] = ("-O1",),
    generated: Mapping[str, str] | None = None,
) -> Path:
    """The shared library made from one C++ file that includes headers of `sim/`.

    `generated` are further headers, their text by name. What is run beside a card is a few
    hundredths of a simulation, so that little is optimised by default.
    """
    compiler = find_compiler()
    generated = generated or {}
    texts = [f"{path.name}\n{path.read_text()}" for path in included(source)]
    texts += [*flags, *(f"{header}\n{text}" for header, text in generated.items())]

    def build(folder: Path) -> None:
        with told(f"compiling {source.name}"):
            for header, text in generated.items():
                (folder / header).write_text(text)
            objects = compile_objects({source: flags}, folder, include=[SIM, folder])
            link(objects, folder / f"{name}.so")

    return cached(name, content_key(compiler.identity(), *texts), build) / f"{name}.so"
