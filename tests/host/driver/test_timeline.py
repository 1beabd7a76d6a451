"""Commands wait for events of their card, and cards tell each other of theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Engine, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import HEADER, NO_COUNTER, fields, unpack
from halfdome.host.driver.timeline import Event, Timeline, peer_counter

TINY = PRESETS["tiny"]


class Device:
    """What a timeline asks of a driver; `submitted` holds the commands, `counters` what was set."""

    def __init__(self, index):
        self.index, self.config = index, TINY
        self.submitted, self.labels, self.counters = [], [], {}

    def submit(self, descriptors, labels):
        first = len(self.submitted)
        self.submitted += descriptors
        self.labels += labels
        return range(first, len(self.submitted))

    def counter_address(self, counter):
        return 1_000_000 * self.index + 4 * counter

    def set_counter(self, counter, value):
        self.counters[counter] = value


@pytest.fixture
def timelines():
    return [Timeline(Device(index)) for index in range(3)]


def headers(timeline):
    timeline.flush()
    return [unpack(HEADER, raw) for raw in timeline._device.submitted]


def test_each_command_counts_up_the_counter_of_its_engine(timelines):
    first = timelines[0]
    events = [first.issue(opcode) for opcode in (Opcode.LOAD, Opcode.STORE, Opcode.LOAD)]
    assert events == [Event(0, Engine.LOAD, 1), Event(0, Engine.STORE, 1), Event(0, Engine.LOAD, 2)]
    signals = [(h["signal_counter"], h["signal_value"]) for h in headers(first)]
    assert signals == [(Engine.LOAD, 1), (Engine.STORE, 1), (Engine.LOAD, 2)]
    assert first.issued.tolist()[Engine.LOAD] == 2


def test_a_command_waits_for_the_latest_event_of_each_counter_but_not_its_own(timelines):
    first = timelines[0]
    loads = [first.issue(Opcode.LOAD) for _ in range(3)]
    stored = first.issue(Opcode.STORE, after=[loads[2], loads[0]])
    first.issue(Opcode.MATMUL, after=[stored, *loads])
    first.issue(Opcode.LOAD, after=loads)
    *_, store, fence, matmul, load = headers(first)
    assert (store["wait_counter"], store["wait_value"]) == (Engine.LOAD, 3)
    assert fence["opcode"] == Engine.MATMUL << 4 | 0xF
    waited = {(h["wait_counter"], h["wait_value"]) for h in (fence, matmul)}
    assert waited == {(Engine.STORE, 1), (Engine.LOAD, 3)}
    assert (fence["signal_counter"], matmul["signal_counter"]) == (NO_COUNTER, Engine.MATMUL)
    assert load["wait_counter"] == NO_COUNTER


def test_counts_go_on_where_descriptors_wrap(timelines):
    first = timelines[0]
    first.issued[Engine.LOAD] = 2**32 - 1
    event = first.issue(Opcode.LOAD)
    assert event.value == 2**32
    first.issue(Opcode.STORE, after=[event])
    load, store = headers(first)
    assert (load["signal_value"], store["wait_value"]) == (0, 0)


def test_a_card_tells_a_peer_through_the_counter_with_its_number(timelines):
    first, second, _ = timelines
    events = [first.notify(second._device) for _ in range(2)]
    assert events == [Event(1, peer_counter(TINY, 0), value) for value in (1, 2)]
    assert first.told.tolist()[:3] == [0, 2, 0]
    second.issue(Opcode.COPY, after=[events[1]])
    with pytest.raises(ValueError, match="event of card 1 given to card 0: use notify"):
        first.issue(Opcode.COPY, after=[events[0]])
    first.flush()
    sent = [unpack(fields(Opcode.SIGNAL), raw) for raw in first._device.submitted]
    address = second._device.counter_address(peer_counter(TINY, 0))
    assert [(s["address"], s["value"]) for s in sent] == [(address, 1), (address, 2)]
    (waiting,) = headers(second)
    assert (waiting["wait_counter"], waiting["wait_value"]) == (peer_counter(TINY, 0), 2)


def test_nothing_is_submitted_before_it_is_flushed_and_labels_go_along(timelines):
    first = timelines[0]
    loaded = first.issue(Opcode.LOAD, label="a")
    stored = first.issue(Opcode.STORE, after=[loaded], label="b")
    first.issue(Opcode.MATMUL, after=[loaded, stored], label="c")
    assert first._device.submitted == []
    assert first.flush() == range(4)
    assert first._device.labels == ["a", "b", "c", "c"]
    assert first.flush() == range(4, 4)
    first.issue(Opcode.LOAD)
    first.drop()
    assert first.flush() == range(4, 4)


@given(
    issued=st.lists(st.integers(0, 2**40), min_size=len(Engine), max_size=len(Engine)),
    told=st.lists(st.integers(0, 2**40), min_size=3, max_size=3),
)
def test_a_card_that_was_reset_takes_all_that_was_issued_and_told_for_done(issued, told):
    timelines = [Timeline(Device(index)) for index in range(3)]
    one = timelines[1]
    one.issued[:] = issued
    for timeline, count in zip(timelines, told, strict=True):
        timeline.told[1] = count
    one.restore(timelines)
    peers = {peer_counter(TINY, 0): told[0], peer_counter(TINY, 2): told[2]}
    assert one._device.counters == dict(enumerate(issued)) | peers
