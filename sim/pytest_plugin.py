"""The pytest plugin below the host: options, `simulate` and `golden_cycles`.

Loaded in every run of pytest where the package is installed: simulators are imported only by what
a test asks for.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from halfdome.hdl.config import PRESETS, CardConfig, preset
from halfdome.sim.cycle_file import RENEW, CycleFile, CycleMismatch

if TYPE_CHECKING:
    from amaranth.hdl import Elaboratable

    from halfdome.sim.compiled.recording import Recording

DEFAULT_ENGINE, DEFAULT_CONFIG = "native", "tiny"
MOST_WAVEFORMS = 16
"""Waveforms on disk of one running test, the latest; a generated test may simulate thousands."""
WAVEFORM = "waveform"
"""Title of the section of a report that says where waveforms are."""
_waveforms = pytest.StashKey[dict[Path, Callable[[], None]]]()
"""The waveforms of a running test, and what writes each."""
_keep = pytest.StashKey[bool]()
CARD = pytest.StashKey[CardConfig]()
"""The configuration of cards that the options tell."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `pytest --help`, group halfdome."""
    group = parser.getgroup("halfdome", "simulated accelerator cards (halfdome)")
    group.addoption(
        "--engine", dest="halfdome_engine", default=DEFAULT_ENGINE, metavar="NAME",
        help="engine of the `runtime` fixture: native (default), pysim, or timing",
    )  # fmt: skip
    group.addoption(
        "--config", dest="halfdome_config", default=DEFAULT_CONFIG, metavar="PRESET",
        help=f"configuration of its cards: {', '.join(PRESETS)} (default: {DEFAULT_CONFIG})",
    )  # fmt: skip
    group.addoption(
        "--waves", dest="halfdome_waves", action="store_true",
        help="leave the waveforms of all tests that use `simulate`, `runtime` or `card`, not only "
        "of failing ones",
    )  # fmt: skip
    group.addoption(
        RENEW, dest="halfdome_renew", action="store_true",
        help="write the golden cycle counts instead of comparing with them",
    )  # fmt: skip
    parser.addini(
        "halfdome_cycles_dir", "folder of the golden cycle files, from the rootdir",
        default="tests/cycles",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Refuses unknown names before any test runs."""
    engine, name = config.getoption("halfdome_engine"), config.getoption("halfdome_config")
    if name not in PRESETS:
        raise pytest.UsageError(f"--config {name}: unknown; known are {', '.join(PRESETS)}")
    config.stash[CARD] = preset(name)
    if engine != DEFAULT_ENGINE:
        from halfdome.sim.platform import ENGINES

        if engine not in ENGINES:
            raise pytest.UsageError(f"--engine {engine}: unknown; known are {', '.join(ENGINES)}")


@pytest.fixture
def simulate(request: pytest.FixtureRequest, tmp_path: Path):
    """Simulates a component and returns the cycles that it took.

    `simulate(component, *testbenches, background=(), processes=(), clocks={}, cycles=20_000,
    engine="pysim")`, see `halfdome.sim.testbench.simulate`. A failing test leaves a VCD of each of
    its latest 16 simulations in its `tmp_path`.
    """
    from halfdome.sim.testbench import simulate as run

    waveforms = request.node.stash.setdefault(_waveforms, {})
    numbers = count()

    def simulate(component: "Elaboratable", *testbenches: Callable, **options) -> int:
        __tracebackhide__ = True
        path = tmp_path / f"{type(component).__name__}-{next(numbers)}.vcd"
        waveforms[path] = lambda: None  # pysim writes while it runs
        if len(waveforms) > MOST_WAVEFORMS:
            oldest = next(iter(waveforms))
            del waveforms[oldest]
            oldest.unlink(missing_ok=True)
        if options.get("engine") == "native":
            return run(
                component, *testbenches, on_compiled=partial(_write_later, waveforms, path),
                **options,
            )  # fmt: skip
        return run(component, *testbenches, waves=path, **options)

    yield simulate
    if not request.node.stash.get(_keep, False):
        for path in waveforms:
            path.unlink(missing_ok=True)


@pytest.fixture
def golden_cycles(request: pytest.FixtureRequest):
    """Compares a cycle count with the one recorded for the test module.

    `golden_cycles(name, cycles, config=None)` fails the test if the count is not the recorded one;
    with `--renew-cycles` it records it. `config` is the `CardConfig` measured on: by default that
    of the test's `runtime`, without one that of the options.
    """
    options = request.config
    folder = options.rootpath / options.getini("halfdome_cycles_dir")
    file = CycleFile(folder / f"{request.path.stem}.json")

    def golden_cycles(name: str, cycles: int, config: CardConfig | None = None) -> None:
        __tracebackhide__ = True
        if config is None:
            given = request.node.funcargs
            names = ("_halfdome", "runtime", "platform")
            fixture = next((n for n in names if n in given), None)
            config = getattr(given[fixture], "config", None) if fixture else None
        if not isinstance(config, CardConfig):
            config = options.stash[CARD]
        if options.getoption("halfdome_renew"):
            file.renew(name, cycles, config.hash)
            return
        try:
            file.check(name, cycles, config.hash)
        except CycleMismatch as error:
            message = str(error)
        else:
            return
        pytest.fail(message)  # outside `except`: one traceback, the test's

    return golden_cycles


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Names the waveforms of a test in the report of its failure, and spares them."""
    report = yield
    if report.when != "call" or not (report.failed or item.config.getoption("halfdome_waves")):
        return report
    lines = []
    for path, write in item.stash.get(_waveforms, {}).items():
        try:
            write()
        except Exception as error:  # the failure of the test is what must be told
            lines.append(f"{path.name}: no waveform: {error}")
        else:
            lines += [str(path)] if path.exists() else []
    if lines:
        item.stash[_keep] = True
        report.sections.append((WAVEFORM, "\n".join(lines)))
    return report


def _write_later(
    waveforms: dict[Path, Callable[[], None]], path: Path, recording: "Recording"
) -> None:
    waveforms[path] = partial(recording.write_waves, path)


def pytest_terminal_summary(
    terminalreporter: "pytest.TerminalReporter", config: pytest.Config
) -> None:
    """With `--waves`, lists where the waveforms of passed tests are; failures show their own."""
    if not config.getoption("halfdome_waves"):
        return
    kept = [
        (report.nodeid, text)
        for report in terminalreporter.getreports("passed")
        for title, text in report.sections
        if title == WAVEFORM
    ]
    if kept:
        terminalreporter.section("waveforms")
        for nodeid, text in kept:
            terminalreporter.line(f"{nodeid}\n{text}")
