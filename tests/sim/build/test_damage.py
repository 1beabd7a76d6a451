"""Whatever becomes of the files of the cache, what is loaded from it is what was built."""

import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.sim.build import cache
from halfdome.sim.build.cache import DIGESTS, cache_dir, cached, recall, remember

CONTENTS = {"model.so": bytes(range(256)) * 40, "ports.json": b"[]", "card.v": b"module\n" * 9}
INDEX = "index-name"


def build(folder):
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)


def new_process():
    """Forgets what this process has checked and uses."""
    while cache._in_use:
        os.close(cache._in_use.popitem()[1])


def cut(path, place):
    os.truncate(path, place % path.stat().st_size)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << place % 8
    path.write_bytes(content)


def empty(path, place):
    path.write_bytes(b"")


def fill(path, place):
    path.write_bytes(bytes(path.stat().st_size))


def scribble(path, place):
    path.write_bytes(place.to_bytes(4, "little") + b"\xff\x00" * (place % 100))


def lengthen(path, place):
    path.write_bytes(path.read_bytes() + b" ")


def remove(path, place):
    path.unlink()


def become_a_folder(path, place):
    path.unlink()
    path.mkdir()


def become_a_loop(path, place):
    path.unlink()
    path.symlink_to(path.name)


DAMAGES = (cut, flip, empty, fill, scribble, lengthen, remove, become_a_folder, become_a_loop)


@given(
    damages=st.lists(
        st.tuples(
            st.sampled_from((*CONTENTS, DIGESTS, "another", INDEX)),
            st.sampled_from(DAMAGES),
            st.integers(0, 1 << 20),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda damage: damage[0],
    )
)
def test_damage_is_found_told_and_mended(damages, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path / "cache"))
    new_process()
    folder = cached("kind", "key", build)
    remember("name", folder)
    caplog.clear()
    for name, damage, place in damages:
        if name == "another":
            (folder / name).write_text("a file that was not there")
        else:
            damage(cache_dir() / INDEX if name == INDEX else folder / name, place)
    damaged = {name for name, _, _ in damages}
    new_process()
    assert recall("name") is None
    rebuilt = []
    assert cached("kind", "key", lambda folder: rebuilt.append(build(folder))) == folder
    assert len(rebuilt) == bool(damaged - {INDEX})
    missing = damages[0][1] is remove and damaged == {INDEX}
    assert bool(caplog.messages) == (not missing)
    new_process()
    remember("name", folder)
    assert recall("name") == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != DIGESTS} == (
        CONTENTS
    )
    assert not list(cache_dir().glob("*.building"))
    shutil.rmtree(cache_dir())


def test_file_where_an_artefact_belongs_makes_room(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path))
    (tmp_path / "kind-key").write_text("in the way")
    assert (cached("kind", "key", build) / "model.so").read_bytes() == CONTENTS["model.so"]


def test_damage_is_looked_for_once_in_a_process(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path))
    folder = cached("kind", "key", build)
    new_process()
    assert cached("kind", "key", build) == folder
    monkeypatch.setattr(cache, "_is_whole", lambda folder: pytest.fail("read again"))
    assert cached("kind", "key", build) == folder


def test_digests_are_those_of_sha256sum(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path))
    folder = cached("kind", "key", build)
    subprocess.run(["sha256sum", "--check", "--strict", DIGESTS], cwd=folder, check=True)


SOURCE = """
int table[4096] = {42};
extern "C" __attribute__((visibility("default"))) int answer() { return *table; }
"""
PROGRAM = """
import ctypes, pathlib
from halfdome.sim.build.compiler import library
print(ctypes.CDLL(str(library(pathlib.Path("answer.cpp"), "answer"))).answer())
"""


@pytest.mark.parametrize("damage", [cut, flip, empty, fill, remove], ids=lambda it: it.__name__)
def test_library_that_is_damaged_does_not_crash_its_process(damage, tmp_path):
    (tmp_path / "answer.cpp").write_text(SOURCE)

    def run():
        return subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"HALFDOME_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip

    assert run().stdout == "42\n"
    [path] = tmp_path.glob("cache/answer-*/answer.so")
    damage(path, path.stat().st_size // 2)
    again = run()
    assert (again.returncode, again.stdout) == (0, "42\n")
    assert "is damaged: removed, and built again" in again.stderr
    assert run().stderr == ""


MODEL = """
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from halfdome.sim.rtl import native

class Register(wiring.Component):
    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m

[model] = native.models(Register, 1, fingerprint="a register")
model.run(3)
print([(port.name, port.width) for port in model.ports], model.folder)
"""


@pytest.mark.slow
def test_model_with_a_flipped_bit_in_any_of_its_files_is_built_again(tmp_path):
    def run():
        return subprocess.run(
            [sys.executable, "-c", MODEL], capture_output=True, text=True,
            env=os.environ | {"HALFDOME_CACHE": str(tmp_path)},
        )  # fmt: skip

    first = run()
    assert first.stdout.startswith("[('i', 8), ('o', 8)]")
    [folder] = tmp_path.glob("model-*/")
    [index] = tmp_path.glob("index-*")
    for path in (*sorted(folder.iterdir()), index):
        flip(path, path.stat().st_size // 2)
        again = run()
        assert (again.returncode, again.stdout) == (0, first.stdout)
        assert "is damaged: removed" in again.stderr
    assert run().stderr == ""
