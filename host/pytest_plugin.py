"""The pytest plugin: simulated cards for tests, and a budget for their cycles.

The entry point that pytest finds. Importing it loads no simulator and no numpy: every run of
pytest where the package is installed does.
"""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from halfdome.host.explore.parameters import Design
    from halfdome.host.platform import Runtime
    from halfdome.host.runtime.card import Card

BELOW = "halfdome.sim.pytest_plugin"
pytest_plugins = (BELOW, "halfdome.sim.pytest_log")
"""Options, `simulate` and `golden_cycles`; what takes long is told at the terminal."""

DEFAULT_CARDS = 2
_point = pytest.StashKey["Design"]()
"""The point of a study that is opened."""
_open = pytest.StashKey[tuple["Runtime", Path]]()
"""The platform of a running test, and the folder for its waveforms."""
_ends = pytest.StashKey[list[int]]()
"""The cycles that each card had simulated when the test itself was over."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of platforms; those below are the plugin's that this one loads."""
    group = parser.getgroup("halfdome", "simulated accelerator cards (halfdome)")
    group.addoption(
        "--waves-cycles", dest="halfdome_waves_cycles", default="2000", metavar="N or A:B",
        help="cycles of a `runtime` in its waveforms: the last N (default: 2000), or from A to "
        "before B",
    )  # fmt: skip
    group.addoption(
        "--timeline", dest="halfdome_timeline", default=None, metavar="DIR",
        help="leave a timeline for ui.perfetto.dev of every test that uses `runtime` or `card`",
    )  # fmt: skip
    group.addoption(
        "--study", dest="halfdome_study", default=None, metavar="STUDY.toml",
        help="with --point: its platform instead of --config; `cards` still tells how many cards",
    )  # fmt: skip
    group.addoption(
        "--point", dest="halfdome_point", default=None, type=int, metavar="N", help="of the study",
    )  # fmt: skip
    group.addoption(
        "--storage", dest="halfdome_storage", default=None, metavar="URL",
        help="where points of the study are kept: by default build/explore/study.db",
    )  # fmt: skip


@pytest.hookimpl(trylast=True)  # after --config was looked at
def pytest_configure(config: pytest.Config) -> None:
    """Declares the markers, makes the folder of timelines, refuses a window without cycles and a
    point that was not measured."""
    _window(config)
    if design := _design(config):
        config.stash[_point] = design
        config.stash[_below(config).CARD] = design.card
    if folder := config.getoption("halfdome_timeline"):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"--timeline {folder}: {error.strerror}") from error
    for line in (
        f"cards(n): how many cards the `runtime` fixture has (default: {DEFAULT_CARDS})",
        "cycle_budget(n): the test fails if its `runtime` advances by more than n cycles",
    ):
        config.addinivalue_line("markers", line)


@pytest.fixture
def _halfdome(request: pytest.FixtureRequest) -> "Iterator[Runtime]":
    """What the fixtures below give, whichever of them a project has fixtures of its own for."""
    import halfdome
    from halfdome.host.platform import fabric, is_hardware

    cards = _number(request.node, "cards")
    options = request.config
    engine = options.getoption("halfdome_engine")
    point = options.stash.get(_point, None)
    with halfdome.open(
        cards=cards or (point.cards if point else DEFAULT_CARDS),
        config=options.stash[_below(options).CARD],
        engine=engine,
        fabric=fabric(**point.fabric) if point else None,
        keep_inputs=is_hardware(engine),
    ) as opened:
        # Only now: an interrupt while cards are compiled would not be told, but that pytest has no
        # report to keep the folder by.
        request.node.stash[_open] = opened, request.getfixturevalue("tmp_path")
        folder = options.getoption("halfdome_timeline")
        with opened.trace(_timeline(folder, request.node)) if folder else nullcontext():
            yield opened
        del request.node.stash[_open]


@pytest.fixture
def runtime(_halfdome: "Runtime") -> "Runtime":
    """An open platform, a `halfdome.Runtime`: `--config` or `--study`, `--engine` and the marker
    `cards` choose.

    A failing test leaves a VCD of the last cycles of each card in its `tmp_path`.
    """
    return _halfdome


@pytest.fixture
def platform(_halfdome: "Runtime") -> "Runtime":
    """`runtime`, by the name that it had first."""
    return _halfdome


@pytest.fixture
def card(_halfdome: "Runtime") -> "Card":
    """The first card of `runtime`."""
    return _halfdome.cards[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Fails a test that passed but took more cycles than its budget."""
    budget = _number(item, "cycle_budget")
    if budget is None:
        return (yield)
    given = getattr(item, "funcargs", {})
    fixtures = (given.get(name) for name in ("_halfdome", "runtime", "platform"))
    runtime = next((each for each in fixtures if hasattr(each, "cycles")), None)
    if runtime is None:  # or fixtures of the project's own, so called
        pytest.fail(
            "cycle_budget: the test uses neither `runtime` nor `card`; `simulate` returns its "
            "cycles, compare those",
            pytrace=False,
        )
    start = runtime.cycles
    result = yield
    used = runtime.cycles - start
    item.stash[_ends] = [runtime.platform.simulated(card.index) for card in runtime.cards]
    if used > budget:
        pytest.fail(
            f"used {used} cycles, {used - budget} more than cycle_budget({budget}); "
            f"cycles of each engine since the platform was opened:\n{_activity(runtime)}",
            pytrace=False,
        )
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Writes the waveforms of a test that failed, while its platform is open, and says where."""
    report = yield
    if report.when == "teardown" or _open not in item.stash:
        return report
    if report.failed or (report.when == "call" and item.config.getoption("halfdome_waves")):
        report.sections.append(
            (_below(item.config).WAVEFORM, _write_waves(item, *item.stash[_open]))
        )
    if report.failed and (folder := item.config.getoption("halfdome_timeline")):
        report.sections.append(("timeline", str(_timeline(folder, item))))
    return report


def _write_waves(item: pytest.Item, runtime: "Runtime", folder: Path) -> str:
    """A VCD of each card in the test's folder; where they are, or why one is missing."""
    lines = []
    for card in runtime.cards:
        path = folder / f"card-{card.index}.vcd"
        try:
            start, stop = _window(item.config)
            if stop is None and _ends in item.stash:  # reading counters is none of the test's
                stop = item.stash[_ends][card.index]
                start = max(0, stop + start)
            start, stop = runtime.write_waves(path, card=card.index, start=start, stop=stop)
        except Exception as error:  # the failure of the test is what must be told
            lines.append(f"card {card.index}: no waveform: {error}")
        else:
            lines.append(f"{path} (cycles {start} to {stop})")
    return "\n".join(lines)


def _timeline(folder: str, item: pytest.Item) -> Path:
    """The file of a test, named after it."""
    name = item.nodeid.replace("/", ".").replace("::", ".")
    name = re.sub(r"[^-+=,.\w\[\]]", "_", name)[-200:]
    return Path(folder) / f"{name}.json"


def _window(config: pytest.Config) -> tuple[int, int | None]:
    """`start` and `stop` of `Runtime.write_waves`, as `--waves-cycles` says."""
    text = config.getoption("halfdome_waves_cycles")
    first, colon, last = text.partition(":")
    if not first.isdecimal() or (colon and not last.isdecimal()):
        raise pytest.UsageError(f"--waves-cycles {text}: must be N or A:B, like 2000 or 500:900")
    start, stop = (int(first), int(last)) if colon else (-int(first), None)
    if (start == 0 and stop is None) or (stop is not None and stop <= start):
        raise pytest.UsageError(f"--waves-cycles {text}: must hold at least one cycle")
    return start, stop


def _below(config: pytest.Config) -> Any:
    """The plugin that this one loads, which pytest imports, for it rewrites its assertions."""
    return config.pluginmanager.get_plugin(BELOW)


def _design(config: pytest.Config) -> "Design | None":
    """The point that `--study` and `--point` name, None without them."""
    study, point = config.getoption("halfdome_study"), config.getoption("halfdome_point")
    if (study is None) != (point is None):
        raise pytest.UsageError(
            "--study and --point: give both, the file and the number of a point in it"
        )
    if study is None:
        return None
    if config.getoption("halfdome_config") != _below(config).DEFAULT_CONFIG:
        raise pytest.UsageError("--study: tells the card; give --config without it")
    from halfdome.host.explore import needed

    try:
        with needed():
            from halfdome.host.explore.measured import design_of

        return design_of(Path(study), point, config.getoption("halfdome_storage"))
    except (ValueError, ImportError) as error:
        raise pytest.UsageError(str(error)) from error


def _number(item: pytest.Item, name: str) -> int | None:
    """The argument of the closest marker `name`, None without one."""
    marker = item.get_closest_marker(name)
    if marker is None:
        return None
    (number, *more) = marker.args or (None,)
    if more or marker.kwargs or type(number) is not int or number < 1:
        arguments = ", ".join(
            [*map(repr, marker.args), *(f"{k}={v!r}" for k, v in marker.kwargs.items())]
        )
        pytest.fail(f"{name}({arguments}): takes one positive integer", pytrace=False)
    return number


def _activity(runtime: "Runtime") -> str:
    """The counters of every card: a line for each engine."""
    from halfdome.hdl.registers import ACTIVITIES

    lines = []
    for card in runtime.cards:
        counters = card.counters()
        heads = "".join(f"{activity:>10}" for activity in ACTIVITIES)
        lines.append(f"card {card.index:<11}{heads}")
        last = f"_{ACTIVITIES[0]}_cycles"
        for name in counters:
            if name.endswith(last):
                engine = name.removesuffix(last)
                values = (counters[f"{engine}_{activity}_cycles"] for activity in ACTIVITIES)
                lines.append(f"  {engine:<14}" + "".join(f"{value:>10}" for value in values))
    return "\n".join(lines)
