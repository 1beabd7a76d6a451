"""Where buffers lie: never two on the same bytes while both are in use."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.compiler.commands import Buffer, Command, Extent, Region
from halfdome.host.compiler.memory import lifetimes, plan
from halfdome.host.compiler.schedule import Schedule, schedule
from tests.host.compiler.commands import Work, needed, programs

LINE = 64
ONE_BANK = range(0, LINE, LINE)


def used_at(commands, times, buffer):
    """When a request uses a buffer: spans of time."""
    return [
        (times.starts[command], times.starts[command] + command.cycles)
        for command in commands
        for region in (*command.reads, *command.writes)
        if region.buffer is buffer
    ]


def buffers_of(commands):
    regions = [r for command in commands for r in (*command.reads, *command.writes)]
    return list({id(region.buffer): region.buffer for region in regions}.values())


@given(
    commands=programs(cards=2), slots=st.integers(1, 3),
    near=st.sampled_from([0, 512, 4096, 1 << 20]), contents=st.sets(st.integers(0, 9)),
    banks=st.sampled_from([ONE_BANK, range(0, 256, 64), range(0, 4096, 512)]),
)  # fmt: skip
def test_no_two_buffers_in_use_share_a_byte(commands, slots, near, contents, banks):
    times = schedule(commands, needed(commands))
    buffers = buffers_of(commands)
    written = {id(region.buffer) for command in commands for region in command.writes}
    for number, buffer in enumerate(buffers):
        if number in contents and id(buffer) not in written:
            buffer.contents = lambda: np.zeros(0, np.uint8)
    found = plan(commands, times, "near", near, "far", slots, banks, line=LINE)
    taken = dict.fromkeys({buffer.position for buffer in buffers}, 0)
    for buffer in buffers:
        memory = found.memories[id(buffer)]
        if buffer.contents is not None:
            assert id(buffer) not in found.offsets
            padded = -(-buffer.nbytes // LINE) * LINE
            taken[buffer.position] += padded if memory == "near" else 0
            continue
        start = found.offsets[id(buffer)]
        assert start % LINE == 0
        assert start + buffer.nbytes <= found.arena_bytes[buffer.position, memory]
    for position, bytes_ in taken.items():
        assert bytes_ + slots * found.arena_bytes.get((position, "near"), 0) <= near
    own = [buffer for buffer in buffers if buffer.contents is None]
    for place, one in enumerate(own):
        for two in own[:place]:
            apart = one.position != two.position or (
                found.memories[id(one)] != found.memories[id(two)]
            )
            a, b = found.offsets[id(one)], found.offsets[id(two)]
            if apart or a + one.nbytes <= b or b + two.nbytes <= a:
                continue
            assert not one.exclusive
            assert not two.exclusive
            for start, end in used_at(commands, times, one):
                for begin, stop in used_at(commands, times, two):
                    assert end <= begin or stop <= start


def whole(buffer):
    return Region(buffer, Extent(0, 1, buffer.nbytes, 0))


def command(reads=(), writes=(), cycles=10.0):
    made = Command(0, Work(0, cycles), "", list(map(whole, reads)), list(map(whole, writes)))
    for region in (*made.reads, *made.writes):
        region.buffer.traffic += region.traffic
    return made


def chain_of(*sizes, **options):
    """Buffers that each become the next."""
    buffers = [Buffer(f"b{n}", 0, size, **options) for n, size in enumerate(sizes)]
    steps = [command([a], [b]) for a, b in pairwise(buffers)]
    times = Schedule({each: 10.0 * n for n, each in enumerate(steps)}, 100.0, ())
    return buffers, steps, times


def test_what_is_read_for_the_last_time_makes_room():
    buffers, steps, times = chain_of(640, 64, 640, 64)
    found = plan(steps, times, "near", 1 << 20, "far", 2, ONE_BANK, line=LINE)
    places = [found.offsets[id(buffer)] for buffer in buffers]
    assert places[0] == places[2]
    assert found.arena_bytes == {(0, "near"): 704}


def test_what_others_write_to_shares_with_nothing():
    buffers, steps, times = chain_of(64, 64, 64, 64, exclusive=True)
    found = plan(steps, times, "near", 1 << 20, "far", 1, ONE_BANK, line=LINE)
    assert len({found.offsets[id(buffer)] for buffer in buffers}) == 4
    spans = lifetimes(steps, times)
    assert {(spans[id(b)].start, spans[id(b)].end) for b in buffers} == {(0.0, 30.0)}


@pytest.mark.parametrize(("near", "places"), [(128, "near"), (127, "far"), (64, "far")])
def test_each_request_in_flight_has_its_own_and_what_does_not_fit_goes_far(near, places):
    (one, two), steps, times = chain_of(64, 64)
    two.traffic = 0.0
    found = plan(steps, times, "near", near, "far", 2, ONE_BANK, line=LINE)
    assert found.memories[id(one)] == places
    assert found.memories[id(two)] == "far"


def test_what_moves_most_for_its_size_is_near():
    hot, cold = (Buffer(n, 0, 64, np.zeros(64, np.uint8)) for n in ("hot", "cold"))
    steps = [command([hot]), command([cold]), command([hot])]
    times = Schedule({each: 10.0 * n for n, each in enumerate(steps)}, 100.0, ())
    found = plan(steps, times, "near", 64, "far", 1, ONE_BANK, line=LINE)
    assert (found.memories[id(hot)], found.memories[id(cold)]) == ("near", "far")


def test_of_what_is_alike_but_for_rounding_the_first_is_near():
    """A buffer is as long as whole bus words, of which not every byte is moved."""
    indices, weights = (
        Buffer(name, 0, size, lambda: np.zeros(0)) for name, size in (("i", 1 << 15), ("w", 24576))
    )
    made = command()
    made.reads += [whole(indices).moving((1 << 15) - 60), whole(weights)]
    for region in made.reads:
        region.buffer.traffic += region.traffic
    times = Schedule({made: 0.0}, 100.0, ())
    found = plan([made], times, "near", 1 << 15, "far", 1, ONE_BANK, line=LINE)
    assert (found.memories[id(indices)], found.memories[id(weights)]) == ("near", "far")


@pytest.mark.parametrize(("rows", "is_near"), [(1, False), (4, True)])
def test_what_is_large_is_near_if_that_spares_half_of_what_moves_far(rows, is_near):
    """It has no room once what moves more for its size has its place."""
    small, large = (
        Buffer(n, 0, size, lambda: np.zeros(0)) for n, size in (("small", 64), ("large", 640))
    )
    made = command([small])
    made.reads.append(whole(large).moving(100.0 * rows))
    large.traffic += 100.0 * rows
    times = Schedule({made: 0.0}, 100.0, ())
    small.traffic = 150.0
    found = plan([made], times, "near", 640, "far", 1, ONE_BANK, line=LINE)
    assert (found.memories[id(large)] == "near") == is_near
    assert (found.memories[id(small)] == "near") != is_near


@pytest.mark.parametrize(("operands", "apart"), [(1, 4), (2, 2), (3, 2)])
def test_what_is_used_together_begins_in_banks_far_apart(operands, apart):
    """Of each size: whatever the buffers' lengths leave."""
    banks = range(0, 1 << 15, 1 << 12)
    for pages in (16, 17, 196):
        buffers = [Buffer(f"b{n}", 0, pages << 12) for n in range(operands + 1)]
        steps = [command(buffers[:operands], buffers[operands:])]
        times = Schedule({steps[0]: 0.0}, 100.0, ())
        found = plan(steps, times, "near", 0, "far", 1, banks, line=LINE)
        begins = sorted(found.offsets[id(each)] % banks.stop >> 12 for each in buffers)
        gaps = [(b - a) % 8 for a, b in pairwise([*begins, begins[0] + 8])]
        assert min(gaps) == apart


def test_small_buffers_leave_no_room_between_them():
    buffers, steps, times = chain_of(1 << 12, 1 << 12, 1 << 12)
    found = plan(steps, times, "near", 0, "far", 1, range(0, 1 << 15, 1 << 12), line=LINE)
    assert found.arena_bytes == {(0, "far"): 2 << 12}
    assert found.offsets[id(buffers[0])] == found.offsets[id(buffers[2])]
