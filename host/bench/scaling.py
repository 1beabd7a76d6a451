"""One request alone, several in flight, and all cards: how busy arrays and links are."""

from collections.abc import Callable, Sequence
from itertools import cycle, islice

from halfdome.hdl.config import CardConfig
from halfdome.host.bench import ladder
from halfdome.host.models.ladder.rung import Rung
from halfdome.host.platform import check
from halfdome.host.report.stamp import stamp

IN_FLIGHT = 4
"""Requests one after the other on one card."""


def measure(
    config: CardConfig, rungs: Sequence[str], *, cards: int = 6, engine: str = "native",
    progress: Callable[[str, int, int], None] = lambda rung, done, of: None,
) -> dict:  # fmt: skip
    """For each rung a row of one request on one card, of `IN_FLIGHT` there, and of a request for
    each of all cards; JSON-able. `cards_ratio` of the last is how many times as many requests all
    cards answer in a time.

    Rows are those of `ladder.measure`, whose parameters these are; `progress` begins anew for each.
    Raises what it raises.
    """
    ladder.check_rungs(rungs)
    check(config, cards, engine)
    rows: list[dict] = []
    for name in rungs:
        progress(name, 0, 0)
        rung = ladder.built(name)
        if isinstance(rung, str):
            rows.append({"rung": name, "missing": rung})
            continue
        alone, *others = (
            _row(name, rung, config, count, engine, requests, progress)
            for count, requests in ((1, 1), (1, IN_FLIGHT), (cards, cards))
        )
        others[-1]["cards_ratio"] = cards * alone["cycles"] / others[-1]["cycles"]
        rows += [alone, *others]
    return {**stamp(config, 0), "engine": engine, "cards": cards, "rows": rows}


def _row(
    name: str, rung: Rung, config: CardConfig, cards: int, engine: str, requests: int,
    progress: Callable[[str, int, int], None],
) -> dict:  # fmt: skip
    progress(name, 0, 0)
    asked = list(islice(cycle(rung.inputs), requests))
    found = ladder.measured(
        rung, ladder.RUNGS[name], config, cards, engine, asked,
        lambda done, of: progress(name, done, of),
    )  # fmt: skip
    return {"rung": name, "cards": cards} | found
