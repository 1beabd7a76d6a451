"""What a test on a platform leaves: waveforms of its cards, and timelines."""

import json
import re

import pytest

from tests.sim.pytest_plugin.sources import WRONG


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
