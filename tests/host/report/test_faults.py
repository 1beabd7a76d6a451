"""The account of faults: who noticed what, from what was counted."""

from collections import Counter
from types import SimpleNamespace

import pytest

from halfdome.host.report.faults import account
from halfdome.host.runtime.placement import Incident
from halfdome.sim.fabric.faults import FaultCounts, parse_fault


def told(strikes, errors=(), corrected=None, poisoned_requests=0, incidents=()):
    """The rows for (text, packets hit) of each fault, where each card has counted `errors`."""
    nothing = FaultCounts(*[0] * 9)
    links = {
        f"{link} {way}": nothing
        for link in ("card 0", "card 1", "uplink")
        for way in ("up", "down")
    } | {line: FaultCounts(0, count, *[0] * 7) for line, count in (corrected or {}).items()}
    cards = [
        SimpleNamespace(index=index, device=SimpleNamespace(known_errors=lambda seen=seen: seen))
        for index, seen in enumerate(map(Counter, errors or ({}, {})))
    ]
    platform = SimpleNamespace(
        traffic=lambda: {"uplink": {"poisoned_requests": poisoned_requests, "links_lost": 0}},
        fault_counts=lambda: links,
        fault_strikes=lambda: [(parse_fault(text), struck) for text, struck in strikes],
    )
    found = account(SimpleNamespace(platform=platform, cards=cards), incidents)
    return [
        {key: value for key, value in row.items() if value and key != "fault"}
        for row in found["faults"]
    ]


def test_a_fault_of_the_uplink_is_noticed_by_any_card():
    errors = {}, {"POISONED_COMPLETIONS": 2}
    assert told([("poison:link=uplink", 3)], errors) == [
        {"injected": 3, "detected": 2, "unnoticed": 1}
    ]


def test_what_a_card_counts_is_of_its_own_link_first():
    errors = {"POISONED_COMPLETIONS": 1}, {"POISONED_COMPLETIONS": 1}
    rows = told([("poison:link=uplink", 1), ("poison:card=0", 1)], errors)
    assert rows == [{"injected": 1, "detected": 1}] * 2


@pytest.mark.parametrize("link", ["link=uplink", "card=1"])
def test_each_link_corrects_its_own(link):
    line = "uplink down" if link == "link=uplink" else "card 1 down"
    strikes = [(f"corrupt:{link}", 2), ("corrupt:card=0", 1)]
    assert told(strikes, corrected={line: 2, "card 0 down": 1}) == [
        {"injected": 2, "corrected": 2},
        {"injected": 1, "corrected": 1},
    ]


def test_a_poisoned_write_over_the_uplink_is_counted_by_the_root_port():
    strikes = [("poisoned-write:link=uplink", 1)]
    assert told(strikes, poisoned_requests=1) == [{"injected": 1, "detected": 1}]


def test_a_silent_uplink_is_one_fault_that_the_host_reports_whichever_card_it_names():
    incident = Incident(0, [1], [], "TimeoutError", "card 1 given up")
    assert told([("silent:link=uplink", 40)], incidents=[incident]) == [
        {"injected": 1, "reported": 1}
    ]
    assert told([("silent:card=0", 40)], incidents=[incident]) == [{"injected": 1, "unnoticed": 1}]
