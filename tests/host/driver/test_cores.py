"""The driver and a card of several cores: a ring each, filled, emptied and reset by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl import registers
from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from halfdome.host.driver.device import Device
from halfdome.host.driver.errors import CardError, CommandError
from halfdome.host.driver.rings import RING_ENTRIES, TICKETS, Rings
from tests.host.driver.test_rings import Card as Memory
from tests.host.driver.test_rings import identifiers
from tests.host.golden_bus import GoldenBus

TWO = PRESETS["tiny"].replace(cores=2)
NEVER = {"wait_counter": 9, "wait_value": 1}


@pytest.fixture
def device():
    bus = GoldenBus(TWO, 1)
    bar0, bar2 = bus.bars(0)
    return Device(bus, TWO, index=0, bar0=bar0, bar2=bar2, message=(64, 0), patience_cycles=50_000)


def fences(count, core, **fields):
    return [pack(Opcode.FENCE_LOAD, core=core, **fields)] * count


def test_commands_go_to_the_ring_of_their_core_and_are_answered_in_the_order_given(device):
    raw = fences(2, 1) + fences(1, 0) + fences(1, 1, second_wait_counter=3) + fences(3, 0)
    sizes = np.array([len(each) // 64 for each in raw])
    tickets = device.submit(raw, sizes=sizes)
    assert sorted(tickets) == list(range(7))
    assert [device.read("SQ_TAIL", core) for core in range(2)] == [4, 4]
    assert device.check(tickets).id.tolist() == list(tickets)
    assert device.rings.idle


def test_a_core_whose_ring_is_full_stops_no_other(device):
    """More than its ring holds, before and behind what is for the other core."""
    held = device.submit(fences(RING_ENTRIES - 1, 1, **NEVER))
    assert device.rings.room(1) == 0
    for _ in range(3):
        tickets = device.submit(fences(RING_ENTRIES, 0))
        assert device.check(tickets).status.tolist() == [Status.OK] * RING_ENTRIES
    assert not device.rings.done(np.array(held[:1]))
    device.set_counter(9, 1)
    tickets = device.submit(fences(5, 1) + fences(5, 0))
    device.check([*held, *tickets])
    assert device.rings.idle


def test_what_is_for_a_full_ring_does_not_hold_up_what_is_handed_over_with_it(device):
    """The second core lets the first go, in the same call."""
    release = pack(Opcode.FENCE_STORE, core=1, signal_counter=9, signal_value=1)
    raw = [*fences(RING_ENTRIES + 5, 0, **NEVER), release]
    assert device.check(device.submit(raw)).status.tolist() == [Status.OK] * len(raw)


def test_a_core_that_does_not_exist_is_refused_by_the_card(device):
    with pytest.raises(CommandError, match="BAD_CORE: core=0x2: not the core of the ring"):
        device.check(device.submit(fences(1, 2)))
    with pytest.raises(ValueError, match="core=2: card 0 has 2"):
        device.reset_core(2)


def test_a_priority_is_written_when_it_changes_and_after_a_reset_of_the_card(device):
    written, write = [], device.write

    def watched(name, value, core=0):
        if name == "SQ_PRIORITY":
            written.append((value, core))
        write(name, value, core)

    device.write = watched
    for priority in (0, 1, 1, 0, 1):
        device.set_priority(1, priority)
    device.reset_core(1)
    device.set_priority(1, 1)
    assert written == [(1, 1), (0, 1), (1, 1)]
    assert device.read("SQ_PRIORITY", 1) == 1
    device.reset()
    assert device.read("SQ_PRIORITY", 1) == 0
    device.set_priority(1, 1)
    assert written[3:] == [(1, 1)]


def test_a_core_that_is_reset_forgets_its_commands_and_the_other_goes_on(device):
    lost = device.submit(fences(20, 1, **NEVER))
    kept = device.submit(fences(3, 0, wait_counter=8, wait_value=1))
    device.reset_core(1)
    assert device.rings.room(1) == RING_ENTRIES - 1
    with pytest.raises(CardError, match="card 0: its commands were lost in a reset"):
        device.wait(lost)
    device.check(device.submit(fences(4, 1)))
    device.set_counter(8, 1)
    assert device.check(kept).status.tolist() == [Status.OK] * 3
    assert device.rings.idle


def test_a_reset_of_a_core_that_does_not_end_is_told(device, monkeypatch):
    read = device.bus.read
    place = device.bar0 + registers.offset("CORE_STATUS", 1)

    def resetting(address, nbytes):
        if address == place:
            return registers.STATUS_RESETTING.to_bytes(nbytes, "little")
        return read(address, nbytes)

    monkeypatch.setattr(device.bus, "read", resetting)
    with pytest.raises(TimeoutError, match="a reset of core 1 is not over after 50000 cycles"):
        device.reset_core(1)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "complete", "take", "reset"]),
        st.integers(0, 2),
        st.integers(1, 700),
    ),
    max_size=25,
)


@given(steps=STEPS, first=st.sampled_from([0, TICKETS - 500]), seed=st.integers(0, 1 << 20))
def test_rings_of_three_cores_keep_their_commands_apart(steps, first, seed):
    memory, rng = Memory(), np.random.default_rng(seed)
    rings = Rings(memory, 3)
    rings.submitted = first
    rings.restart()
    raw = np.frombuffer(pack(Opcode.FENCE_LOAD), np.uint8)
    slots = memory.buffers[0].array.reshape(3, RING_ENTRIES, 64)
    next_slot, running, lost = [0, 0, 0], [[], [], []], []
    told, written = 0, 0

    def complete(identifier):
        nonlocal written
        size = rings.completion_entries
        entry = memory.buffers[1].array[written % size * 16 :][:16]
        phase = 1 - written // size % 2
        entry[:] = np.frombuffer(identifier.to_bytes(2, "little") + bytes([0, phase]) + bytes(12),
                                 np.uint8)  # fmt: skip
        written += 1

    for step, core, count in steps:
        if step == "put":
            count = min(count, rings.room(core))
            tickets = rings.put(np.tile(raw, (count, 1)), np.ones(count, np.int64), core)
            places = (next_slot[core] + np.arange(count)) % RING_ENTRIES
            found = identifiers(each.tobytes() for each in slots[core, places])
            assert found == [ticket % TICKETS for ticket in tickets]
            next_slot[core] += count
            running[core] += tickets
        elif step == "complete":
            for _ in range(min(count, len(running[core]), rings.completion_entries - 1 - told)):
                complete(running[core].pop(int(rng.integers(len(running[core])))) % TICKETS)
                told += 1
        elif step == "take":
            assert len(rings.take()) == told
            told = 0
        else:
            rings.take()
            told = 0
            lost += running[core]
            rings.restart_core(core)
            running[core], next_slot[core] = [], 0
        assert [rings.tail(core) for core in range(3)] == [
            each % RING_ENTRIES for each in next_slot
        ]
        assert not rings.stray
    rings.take()
    assert rings.idle == (not any(running))
    assert rings.retired == min((t for mine in running for t in mine), default=rings.submitted)
    for core, mine in enumerate(running):
        if not mine:
            assert rings.room(core) == RING_ENTRIES - 1
    assert all(rings.lost(np.array([ticket])) for ticket in lost)
