"""The pytest plugin: simulated cards for tests, and a budget for their cycles.

The entry point that pytest finds. Importing it loads no simulator and no numpy: every run of
pytest where the package is installed does.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from host.runtime.card import Card
    from host.runtime.runtime import Runtime

pytest_plugins = ("sim.pytest_plugin",)
"""Options, `simulate` and `golden_cycles`."""

DEFAULT_CARDS = 2


def pytest_configure(config: pytest.Config) -> None:
    """Declares the markers."""
    for line in (
        f"cards(n): how many cards the `platform` fixture has (default: {DEFAULT_CARDS})",
        "cycle_budget(n): the test fails if its platform advances by more than n cycles",
    ):
        config.addinivalue_line("markers", line)


@pytest.fixture
def platform(request: pytest.FixtureRequest) -> "Iterator[Runtime]":
    """An open platform, a `host.Runtime`: `--config`, `--engine` and the marker `cards` choose."""
    import host

    cards = _number(request.node, "cards")
    options = request.config
    with host.open(
        cards=DEFAULT_CARDS if cards is None else cards,
        config=options.getoption("halfdome_config"),
        engine=options.getoption("halfdome_engine"),
    ) as runtime:
        yield runtime


@pytest.fixture
def card(platform: "Runtime") -> "Card":
    """The first card of `platform`."""
    return platform.cards[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Fails a test that passed but took more cycles than its budget."""
    budget = _number(item, "cycle_budget")
    if budget is None:
        return (yield)
    platform = getattr(item, "funcargs", {}).get("platform")
    if platform is None:
        pytest.fail(
            "cycle_budget: the test uses neither `platform` nor `card`; `simulate` returns its "
            "cycles, compare those",
            pytrace=False,
        )
    start = platform.cycles
    result = yield
    used = platform.cycles - start
    if used > budget:
        pytest.fail(
            f"used {used} cycles, {used - budget} more than cycle_budget({budget}); "
            f"cycles of each engine since the platform was opened:\n{_activity(platform)}",
            pytrace=False,
        )
    return result


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


def _activity(platform: "Runtime") -> str:
    """The counters of every card: a line for each engine."""
    from hdl.registers import ACTIVITIES

    lines = []
    for card in platform.cards:
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
