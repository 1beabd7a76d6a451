"""Programs on a card: descriptors patched for where things lie and for what a request says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode
from halfdome.hdl.descriptors import NO_COUNTER, offset, pack, unpack
from halfdome.hdl.descriptors import fields as fields_of
from halfdome.host.driver.accelerator import Code, Place
from halfdome.host.driver.halfdome import InstalledPart

ADDRESS, STRIDE, BYTES = (offset(Opcode.LOAD, n) for n in ("source", "source_stride", "row_bytes"))


def part(addresses, symbols=(), waits=((-1, -1),), peer=(-1,), counters=(0,), peers=(), rows=1):
    """LOADs with source 100, installed for slots whose segments lie where `place` says."""
    raw = np.stack([np.frombuffer(pack(Opcode.LOAD, source=100), np.uint8)] * rows)
    code = Code(
        np.zeros(rows, np.uint8), np.array(waits, np.int32), np.array(peer, np.int16),
        {
            "descriptors": raw, "sizes": np.ones(rows, np.uint8),
            "addresses": np.array(addresses, np.int32).reshape(-1, 5),
            "symbols": np.array(symbols, np.int32).reshape(-1, 4),
        },
    )  # fmt: skip
    here, there = np.array([[0x1000], [0x2000]]), np.array([[0xA000_0000], [0xB000_0000]])
    return InstalledPart(code, Place(here, there, np.array(counters, np.int64), peers), 1)


def values(installed, slot, row=0):
    return unpack(fields_of(Opcode.LOAD), installed.slots[slot, row].tobytes())


def test_every_slot_has_its_own_addresses_here_and_on_the_bus():
    local = part([(0, ADDRESS, 8, 0, 0)])
    assert [values(local, slot)["source"] for slot in (0, 1)] == [0x1064, 0x2064]
    remote = part([(0, ADDRESS, 8, 0, 1)])
    assert [values(remote, slot)["source"] for slot in (0, 1)] == [0xA000_0064, 0xB000_0064]


@given(numbers=st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**20)), min_size=1))
def test_numbers_of_a_request_take_the_place_of_those_before(numbers):
    installed = part([], [(0, ADDRESS, 8, 0), (0, BYTES, 4, 1)])
    for source, nbytes in numbers:
        installed.set_symbols(1, np.array([source, nbytes]))
        found = values(installed, 1)
        assert (found["source"], found["row_bytes"]) == (100 + source, nbytes)
        assert found["source_stride"] == 0
        assert values(installed, 0)["source"] == 100


def test_commands_wait_for_the_counters_of_their_events_and_signal_that_of_their_queue():
    installed = part([], waits=[(2, -1), (-1, -1)], peer=(-1, -1), counters=[7, 8, 9], rows=2)
    assert [values(installed, 0, row)["wait_counter"] for row in (0, 1)] == [9, NO_COUNTER]
    assert values(installed, 0)["signal_counter"] == 0


def test_descriptors_are_picked_in_the_order_asked_for():
    installed = part([], waits=[(-1, -1)] * 4, peer=[-1] * 4, rows=4)
    installed.sizes, installed.starts = np.array([1, 2, 1]), np.array([0, 1, 3])
    assert installed.rows(np.array([2, 1, 0, 1])).tolist() == [3, 1, 2, 0, 1, 2]
    assert installed.rows(np.array([], np.int64)).tolist() == []
