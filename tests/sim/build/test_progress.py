"""What takes long is told: in Python, in pytest, and to a program's own logging."""

import json
import subprocess
import sys
import time

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given
from hypothesis import strategies as st

from halfdome.sim.build import progress
from halfdome.sim.build.progress import MOST_TIMES, told
from halfdome.sim.log import LOGGER
from halfdome.sim.rtl import native


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(LOGGER, "handlers", [])  # this run's own terminal
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.1)


@pytest.fixture
def work(caplog):
    """Does some work, which lasts until it is told or, if that is never to be, 50 ms."""

    def work(what="work", *, never=False):
        with told(what) as step:
            step("half of it")
            end = time.monotonic() + (0.05 if never else 30)
            while time.monotonic() < end and not any(what in text for text in caplog.messages):
                time.sleep(0.01)

    return work


def test_work_tells_how_far_it_is_and_how_long_it_took(at_once, work, caplog, monkeypatch):
    work()
    assert caplog.messages[0] == "work: half of it; 0 s so far"
    assert caplog.messages[-1] == "work: done in 0 s"
    monkeypatch.setattr(progress, "_times", lambda: {"work": 12.3})
    caplog.clear()
    work()
    assert caplog.messages[0] == "work: half of it; 0 s so far, 12 s last time"


def test_time_is_remembered_by_name(at_once, work):
    work("one")
    work("other")
    assert list(progress._times()) == ["one", "other"]
    assert all(0 < seconds < 30 for seconds in progress._times().values())


def test_quick_work_is_silent(work, caplog, own_cache):
    work(never=True)
    assert caplog.messages == []
    assert not list(own_cache.iterdir())


def test_failed_work_is_not_remembered(at_once, caplog):
    def interrupted():
        with told("work"):
            while not caplog.messages:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "done" not in caplog.messages[-1]
    assert progress._times() == {}


def test_the_latest_times_are_kept(own_cache):
    for number in range(MOST_TIMES + 3):
        progress._remember(f"work {number}", number + 1)
    progress._remember("work 5", 1)
    kept = list(progress._times())
    assert len(kept) == MOST_TIMES
    assert (kept[0], kept[-1]) == ("work 3", "work 5")
    assert [path.name for path in own_cache.iterdir()] == ["times.json"]


_times = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["work", "x"]), inner),
).map(lambda value: json.dumps(value).encode())


@given(content=st.binary() | _times)
def test_damaged_times_are_as_good_as_none(content, own_cache, at_once, work, caplog):
    (own_cache / "times.json").write_bytes(content)
    work()
    assert "work: done in" in caplog.messages[-1]
    assert 0 < progress._times()["work"] < 30
    caplog.clear()


def test_cache_that_cannot_be_written_still_tells(at_once, work, caplog, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", "/proc/halfdome")
    work()
    assert caplog.messages[-1] == "work: done in 0 s"


PROGRAM = """
import logging, sys, time
{setting}
from halfdome.sim.build import progress
progress.FIRST_SECONDS = 0.01
with progress.told("work") as step:
    step("half of it")
    time.sleep(0.5)
"""


@pytest.mark.parametrize(
    ("setting", "first"),
    [
        ("", "halfdome: work: half of it; 0 s so far"),
        ("logging.basicConfig(format='own: %(message)s')", "own: work: half of it; 0 s so far"),
        ("logging.getLogger('halfdome').setLevel(logging.WARNING)", None),
        ("logging.getLogger('halfdome').disabled = True", None),
    ],
    ids=["default", "own logging", "level", "disabled"],
)
def test_program_sees_it_on_standard_error_and_can_silence_it(setting, first):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setting=setting)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[:1] == ([first] if first else [])
    assert len(lines) == len(set(lines)), "told twice"


TEST = """
import time
from halfdome.sim.build import progress

def test_slow(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.01)
    with progress.told("work") as step:
        print("captured")
        step("half of it")
        time.sleep(0.5)
"""


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_pytest_shows_it_though_the_test_is_captured(pytester, own_cache, options):
    pytester.makepyfile(TEST)
    pytester.makepyprojecttoml("[tool.pytest.ini_options]")
    result = pytester.runpytest_subprocess("-q", *options)
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(["halfdome: work: half of it; 0 s so far"])
    assert "captured" not in result.outlines + result.errlines


class Register(wiring.Component):
    """One register."""

    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m


@pytest.mark.slow
def test_building_a_model_tells_its_steps(at_once, caplog):
    native.build(Register, name="a register")
    told_of = [text.split(";")[0] for text in caplog.messages if "a register: " in text]
    assert "building a register: 3 of 3, compiling C++" in told_of
    assert told_of[-1].startswith("building a register: done in ")
    assert "building a register" in progress._times()
