"""Commands that touch the same bytes come one after the other, unless both only read."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.compiler.commands import Buffer, Command, Extent, Region
from halfdome.host.compiler.order import by_buffer, dependencies
from halfdome.host.compiler.touching import conflicts
from halfdome.host.runtime.program import HOST
from tests.host.compiler.commands import Work, extents, programs


def bytes_of(extent):
    return {
        extent.start + row * extent.stride + byte
        for row in range(extent.rows)
        for byte in range(extent.row_bytes)
    }


@given(one=extents(200), other=extents(200))
def test_extents_with_a_byte_in_common_touch(one, other):
    """Those of rows in different steps may be said to touch though they do not."""
    common = bool(bytes_of(one) & bytes_of(other))
    assert one.end == max(bytes_of(one)) + 1
    assert one.touches(other) == other.touches(one)
    assert not common or one.touches(other)
    if one.rows == other.rows == 1:
        assert one.touches(other) == common


def test_columns_beside_each_other_do_not_touch():
    """Which is how tables are pooled into one matrix by several cards at once."""
    left, right = Extent(0, 8, 16, 64), Extent(16, 8, 48, 64)
    assert not left.touches(right)
    assert not right.touches(left)
    assert left.touches(Extent(15, 8, 2, 64))
    assert left.touches(Extent(64, 1, 1, 0))
    assert not left.touches(Extent(80, 1, 16, 0))
    assert left.touches(Extent(16, 7, 49, 64))  # beyond the end of its row


def closure(count, pairs):
    """For each of so many places all that come before it if these pairs are kept in order."""
    before = [set() for _ in range(count)]
    for one, two in sorted(pairs, key=lambda pair: pair[1]):
        before[two] |= before[one] | {one}
    return before


@given(
    accesses=st.lists(
        st.tuples(extents(200), st.booleans(), st.sampled_from([None, "a", "b"])), max_size=14
    ),
    in_queues=st.booleans(),
)
def test_the_conflicts_found_keep_all_in_order(accesses, in_queues):
    """And each of them is one."""
    found, writes, names = ([each[field] for each in accesses] for field in range(3))
    pairs = {
        (one, two)
        for two in range(len(found))
        for one in range(two)
        if (writes[one] or writes[two]) and found[one].touches(found[two])
    }
    told = conflicts(found, writes, names if in_queues else None)
    assert set(told) <= pairs
    assert told == sorted(set(told), key=lambda pair: pair[::-1])
    kept = set(told)
    if in_queues:
        kept |= {
            (one, two)
            for two, name in enumerate(names)
            for one in range(two)
            if name is not None and names[one] == name
        }
    before = closure(len(found), kept)
    assert all(one in before[two] for one, two in pairs)


@given(commands=programs(cards=2))
def test_whoever_writes_waits_for_all_before_it_and_is_waited_for(commands):
    found = dependencies(commands, by_buffer)
    places = {command: place for place, command in enumerate(commands)}
    pairs = [(places[other], places[each]) for each, others in found.items() for other in others]
    before = closure(len(commands), pairs)
    for place, command in enumerate(commands):
        for other in commands[:place]:
            conflict = any(
                one.buffer is two.buffer and bytes_of(one.extent) & bytes_of(two.extent)
                for reads, writes in (
                    (command.reads, other.writes),
                    (command.writes, other.reads),
                    (command.writes, other.writes),
                )
                for one in reads
                for two in writes
            )
            assert not conflict or places[other] in before[place]
        for other in found[command]:
            assert other in commands[:place]
            assert other.position == command.position


def of(*regions, writes=(), **options):
    return Command(0, Work(0, 1.0), "", list(regions), list(writes), **options)


def region(buffer, start=0, nbytes=8):
    return Region(buffer, Extent(start, 1, nbytes, 0))


def test_memory_that_is_only_read_and_that_of_the_host_order_nothing():
    weights = Buffer("w", 0, 64, contents=lambda: np.zeros(64, np.uint8))
    far = Buffer("h", HOST, 64)
    first, second = (of(region(weights), writes=[region(far)]) for _ in range(2))
    assert dependencies([first, second], by_buffer) == {first: [], second: []}


def test_buffers_that_share_bytes_order_those_who_use_them():
    one, other = Buffer("a", 0, 64), Buffer("b", 0, 64)
    first, second = of(region(one)), of(writes=[region(other)])
    assert dependencies([first, second], by_buffer)[second] == []
    starts = {id(one): 0, id(other): 4}
    found = dependencies([first, second], lambda r: ("arena", starts[id(r.buffer)]))
    assert found[second] == [first]
    starts[id(other)] = 8
    assert dependencies([first, second], lambda r: ("arena", starts[id(r.buffer)]))[second] == []


def test_what_must_come_behind_something_waits_for_it():
    first, second = of(), of()
    third = of(behind=[first])
    assert dependencies([first, second, third], by_buffer)[third] == [first]


@given(st.data())
def test_a_command_does_not_wait_for_itself(data):
    buffer = Buffer("a", 0, 64)
    extent = data.draw(extents(64))
    command = of(Region(buffer, extent), writes=[Region(buffer, extent)])
    assert dependencies([command], by_buffer) == {command: []}
