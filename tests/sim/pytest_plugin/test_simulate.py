"""The fixture `simulate`: a component by itself, and the waveform that it leaves."""

import pytest

from tests.sim.pytest_plugin.sources import COUNTER, SIMULATION


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
