"""A point of a study, opened by the fixtures of the pytest plugin."""

import pytest

from halfdome.host.explore import search
from halfdome.host.explore import study as studies
from halfdome.sim.build.cache import cache_dir
from tests.host.explore.studies import measure_at_once, row, run

CACHE = cache_dir()

STUDY = """
version = 1
config = "tiny"
[workload]
kind = "recommender"
tables = [40]
dim = 16
pooling = 2
bottom = [16]
top = [1]
[parameters]
lanes = [2, 4]
cards = 3
uplink_lanes = 4
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Options that name a study of which two points were measured. Made before `pytester` notes
    which modules are loaded, for those of databases load once."""
    folder = tmp_path_factory.mktemp("study")
    file = folder / "s.toml"
    file.write_text(STUDY)
    made = studies.checked(studies.read(file), str(file), folder)
    with pytest.MonkeyPatch.context() as patch:
        measure_at_once(patch, row)
        run(made, folder)
    return "--study", file, "--storage", search.storage_in(folder), "--point"


@pytest.fixture
def opened(told, pytester, monkeypatch):
    """Runs pytest on a test file with a point of the study."""
    monkeypatch.setenv("HALFDOME_CACHE", str(CACHE))

    def opened(source, *options, point=1):
        pytester.makepyfile(test_user=source)
        return pytester.runpytest(
            "-p", "no:cacheprovider", "--engine=timing", *told, str(point), *options
        )

    return opened


def test_the_platform_is_that_of_the_point(opened):
    result = opened(
        "import pytest\n"
        "def test_point(runtime, card):\n"
        "    assert runtime.config.lanes == card.config.lanes == 4\n"
        "    assert len(runtime.cards) == 3\n"
        "    assert runtime.platform.fabric.uplink_lanes == 4\n"
        "@pytest.mark.cards(1)\n"
        "def test_marker(runtime):\n"
        "    assert len(runtime.cards) == 1\n"
        "    assert runtime.config.lanes == 4\n"
    )
    result.assert_outcomes(passed=2)


def test_cycles_are_recorded_for_the_card_of_the_point(opened, pytester):
    source = "def test_it(golden_cycles): golden_cycles('five', 5)\n"
    opened(source, "--renew-cycles").assert_outcomes(passed=1)
    opened(source).assert_outcomes(passed=1)
    opened(source, point=0).assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--config", "default"), "*--study: tells the card; give --config without it"),
        (("--point", "7"), "*point 7: is not among those measured: 0, 1"),
        (("--study", "none.toml"), "*none.toml: there is no such file"),
    ],
)
def test_a_point_that_is_not_told_well_ends_the_run(opened, options, message):
    result = opened("def test_nothing(): pass\n", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize("option", [("--study", "s.toml"), ("--point", "1")])
def test_file_and_number_are_given_together(pytester, option):
    result = pytester.runpytest(*option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--study and --point: give both, the file and the number*"])
