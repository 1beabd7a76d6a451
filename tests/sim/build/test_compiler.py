"""C++ of the simulation: what it depends on, what compilers say of it, what it must not do."""

import os
import subprocess
import sys

import pytest

from halfdome.sim.build.compiler import SIM, find_compiler, included
from halfdome.sim.timing.header import header

SOURCES = ("dram/replay.cpp", "kernel/world.cpp", "rtl/linked.cpp", "timing/timing.cpp")
USE = """
import numpy as np
import halfdome
from halfdome.host.bench.timing import CALLS

with halfdome.open(cards=2, config="tiny", engine="timing", threads=2) as runtime:
    for number, call in enumerate(CALLS.values()):
        call(runtime.cards[number % 2], np.random.default_rng(number))
"""


def test_a_library_depends_on_what_it_includes_and_on_nothing_else():
    names = {str(path.relative_to(SIM)) for path in included(SIM / "kernel" / "world.cpp")}
    assert {"kernel/world.cpp", "kernel/world.hpp", "dram/channel.hpp", "fabric/tlp.hpp"} <= names
    assert not any(name.startswith("timing/") for name in names)
    timing = {str(path.relative_to(SIM)) for path in included(SIM / "timing" / "timing.cpp")}
    assert {"timing/matmul/engine.hpp", "timing/fifo.hpp", "kernel/card.hpp"} <= timing


@pytest.mark.parametrize("source", SOURCES)
def test_compilers_have_nothing_to_say(source, tmp_path):
    (tmp_path / "card.hpp").write_text(header())
    strict = ("-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only")
    command = (*find_compiler().command, "-std=c++17", *strict, f"-I{SIM}", f"-I{tmp_path}")
    done = subprocess.run([*command, SIM / source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long  # compiles everything once more
@pytest.mark.parametrize("sanitizer", ["undefined", "thread"])
def test_sanitizers_have_nothing_to_say(sanitizer, tmp_path):
    compiler = find_compiler().command
    wary = {
        "CXX": " ".join((*compiler, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")),
        "HALFDOME_CACHE": str(tmp_path),
        "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if sanitizer == "thread":  # Python is not built with it, so it must be there first
        named = [*compiler, "-print-file-name=libtsan.so"]
        wary["LD_PRELOAD"] = subprocess.check_output(named, text=True).strip()
    done = subprocess.run(
        [sys.executable, "-c", USE], env=os.environ | wary, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
