"""Timelines: times in microseconds, durations across the wrap of the cycle count."""

from hdl.commands import Opcode, Status
from hdl.config import preset
from host.driver.completion import Completion
from host.report.perfetto import timeline
from host.runtime.timeline import Issued

DEFAULT = preset("default")


def spans(*commands):
    return [event for event in timeline(commands, DEFAULT)["traceEvents"] if event["ph"] == "X"]


def issued(start, end, opcode=Opcode.GATHER, label="", card=0):
    return Issued(card, opcode, label, Completion(7, Status.OK, 1, 0, start, end))


def test_cycles_become_microseconds_of_the_card_clock():
    (event,) = spans(issued(4000, 4800, label="batch 0 table 1", card=2))
    assert (event["ts"], event["dur"]) == (10.0, 2.0)
    assert (event["pid"], event["tid"]) == (2, 2)
    assert (event["name"], event["cat"]) == ("batch 0 table 1", "GATHER")
    assert event["args"] == {"id": 7, "status": "OK", "start_cycle": 4000, "cycles": 800}


def test_a_command_over_the_wrap_has_its_true_length():
    (event,) = spans(issued(2**32 - 100, 300))
    assert event["dur"] == 1.0


def test_a_command_without_a_label_has_the_name_of_its_opcode():
    assert spans(issued(0, 1, Opcode.COPY))[0]["name"] == "COPY"


def test_nothing_is_an_empty_timeline():
    assert timeline([], DEFAULT)["traceEvents"] == []
