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


def part(addresses, symbols=(), waits=((-1, -1),), peer=(-1,), counters=(0,), peers=(), sizes=(1,)):
    """LOADs with source 100, and as id the number of their descriptor, installed for slots whose
    segments lie where `place` says."""
    raw = [pack(Opcode.LOAD, source=100, id=number) for number in range(sum(sizes))]
    code = Code(
        np.zeros(len(sizes), np.uint8), np.array(waits, np.int32), np.array(peer, np.int16),
        {
            "descriptors": np.frombuffer(b"".join(raw), np.uint8).reshape(len(raw), -1),
            "sizes": np.array(sizes, np.uint8),
            "addresses": np.array(addresses, np.int32).reshape(-1, 5),
            "symbols": np.array(symbols, np.int32).reshape(-1, 4),
        },
    )  # fmt: skip
    here, there = np.array([[0x1000], [0x2000]]), np.array([[0xA000_0000], [0xB000_0000]])
    return InstalledPart(code, Place(here, there, np.array(counters, np.int64), peers), 1)


def values(installed, slot, command=0):
    _, (descriptor, *_) = installed.run(np.array([command]), np.array([slot]))
    return unpack(fields_of(Opcode.LOAD), descriptor.tobytes())


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
    installed = part([], waits=[(2, -1), (-1, -1)], peer=(-1, -1), counters=[7, 8, 9], sizes=(1, 1))
    assert [values(installed, 0, row)["wait_counter"] for row in (0, 1)] == [9, NO_COUNTER]
    assert values(installed, 0)["signal_counter"] == 0


def test_descriptors_are_picked_in_the_order_asked_for():
    installed = part(
        [(row, ADDRESS, 8, 0, 0) for row in range(4)],
        waits=[(-1, -1)] * 3,
        peer=[-1] * 3,
        sizes=(1, 2, 1),
    )
    for _ in range(2):  # the second time it is remembered
        run, rows = installed.run(np.array([2, 1, 0, 1]), np.array([0, 1, 1, 0]))
        found = [unpack(fields_of(Opcode.LOAD), row.tobytes()) for row in rows]
        assert [each["id"] for each in found] == [3, 1, 2, 0, 1, 2]
        there = [0x1064, 0x2064, 0x2064, 0x2064, 0x1064, 0x1064]
        assert [each["source"] for each in found] == there
        assert run.firsts.tolist() == [0, 1, 3, 4]
        assert run.extended.tolist() == [1, 3]
        rows[:] = 0  # a copy
    _, none = installed.run(np.array([], np.int64), np.array([], np.int64))
    assert none.shape == (0, 64)
