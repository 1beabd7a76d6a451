"""Cycles that a test may take, and those that it took before."""

import json

import pytest

from halfdome.hdl.config import preset
from halfdome.sim.cycle_file import CycleFile, CycleMismatch
from tests.sim.pytest_plugin.sources import COUNTER

TINY = preset("tiny").hash


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
