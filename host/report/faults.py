"""Who noticed what was injected: every fault is corrected, detected, reported or unnoticed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, Protocol

from halfdome.host.runtime.placement import Incident

_NOTICED = {
    "POISON": ("POISONED_COMPLETIONS", "LATE_COMPLETIONS"),
    "REFUSE": ("UNSUCCESSFUL_COMPLETIONS", "LATE_COMPLETIONS"),
    "ABORT": ("UNSUCCESSFUL_COMPLETIONS", "LATE_COMPLETIONS"),
    "DROP": ("COMPLETION_TIMEOUTS",),
    "DELAY": ("COMPLETION_TIMEOUTS",),
}
"""The card's counters that rise when a read of its is hit; of a read that has failed already, a
completion is late whatever it says."""
_LINK_KINDS = ("CORRUPT", "LOSE_ACK", "DUPLICATE_ACK")
_COLUMNS = ("injected", "corrected", "detected", "reported", "unnoticed")


class Injected(Protocol):
    """A runtime whose platform makes faults."""

    platform: Any
    cards: Sequence[Any]


def account(runtime: Injected, incidents: Sequence[Incident]) -> dict:
    """What became of every fault that the platform was told to make.

    A fault is `injected` as often as it hit a packet; a link that goes down and a card that falls
    silent count once. Of these so many were `corrected` by the link or came late but in time,
    `detected`, that is counted by a card or the root port, and `reported`, that is found by the
    host alone, which names the card in an incident. The rest is `unnoticed`. A fault of the uplink
    is noticed by whichever card its packet was for.
    """
    platform = runtime.platform
    seen: Counter[tuple[object, str]] = Counter()
    for card in runtime.cards:
        for name, count in card.device.known_errors().items():
            seen[card.index, name] += count
    uplink = platform.traffic()["uplink"]
    poisoned = uplink["poisoned_requests"] + sum(
        seen[card.index, "DROPPED_REQUESTS"] for card in runtime.cards
    )
    seen["anyone", "poisoned writes"] = poisoned
    seen["root port", "links lost"] = uplink["links_lost"]
    for name, counts in platform.fault_counts().items():
        seen[name, "corrected"] = counts.corrected
    cards = [card.index for card in runtime.cards]
    strikes = platform.fault_strikes()
    rows: list[dict] = [{} for _ in strikes]
    # What a card counts is of its own link first: nobody else can have noticed that.
    for number in sorted(range(len(strikes)), key=lambda number: strikes[number][0].card is None):
        fault, struck = strikes[number]
        name = fault.text or f"{fault.kind.name} {fault.line}"
        rows[number] = {"fault": name, **_row(fault, struck, seen, incidents, cards)}
    return {
        "faults": rows,
        "total": {column: sum(row[column] for row in rows) for column in _COLUMNS},
        "incidents": [asdict(incident) for incident in incidents],
    }


def _row(
    fault, struck: int, seen: Counter, incidents: Sequence[Incident], cards: Sequence[int]
) -> dict:
    """One fault: takes what it explains from what was `seen`."""
    kind, row = fault.kind.name, dict.fromkeys(_COLUMNS, 0)
    silent = kind == "DROP" and not fault.to_card
    left = row["injected"] = min(struck, 1) if silent else struck
    behind = cards if fault.card is None else [fault.card]

    def take(column: str, who: object, what: str) -> None:
        nonlocal left
        count = min(left, seen[who, what])
        seen[who, what] -= count
        row[column] += count
        left -= count

    if kind in _LINK_KINDS:
        take("corrected", fault.line, "corrected")
    elif kind == "LINK_DOWN":
        take("detected", "root port", "links lost")
    elif kind == "POISON" and not fault.to_card:
        take("detected", "anyone", "poisoned writes")
    elif not silent:
        for card, name in product(behind, _NOTICED[kind]):
            take("detected", card, name)
    if left and any(set(behind) & set(incident.cards) for incident in incidents):
        row["reported"], left = left, 0
    if kind == "DELAY":
        row["corrected"], left = left, 0
    row["unnoticed"] = left
    return row
