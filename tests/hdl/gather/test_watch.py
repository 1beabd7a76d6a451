"""No command may meet a cached line that was written before it; most need not flush."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import preset
from halfdome.hdl.gather.watch import WriteWatch
from tests.bench import simulate


@dataclass
class Command:
    start: int
    table: int
    rows: int
    stride: int

    def covers(self, address):
        return self.table <= address < self.table + self.rows * self.stride


@dataclass
class Write:
    asked: int
    """Cycle in which its port takes it."""
    sent: int
    seen: int
    """Cycle from which reads see it."""
    address: int


def play(commands, writes, cycles):
    """The cycles in which the watch flushes, and those in which it is busy."""
    dut = WriteWatch(preset("m2"))
    flushes, busy = [], []
    by_start = {command.start: command for command in commands}
    by_sent = {write.sent: write for write in writes}

    async def bench(ctx):
        for cycle in range(cycles):
            command, write = by_start.get(cycle), by_sent.get(cycle - 1)
            ctx.set(dut.start, command is not None)
            if command:
                ctx.set(dut.table, command.table)
                ctx.set(dut.rows, command.rows)
                ctx.set(dut.row_stride, command.stride)
            ctx.set(dut.writes.valid, write is not None)
            ctx.set(dut.writes.address, write.address if write else 0)
            # Accepted in the cycle before the last, still without its response in the last.
            pending = any(w.asked <= cycle - 2 and cycle - 1 <= w.seen for w in writes)
            ctx.set(dut.writes.pending, pending)
            if ctx.get(dut.flush):
                assert command, "a flush without a command"
                flushes.append(cycle)
            if ctx.get(dut.busy):
                busy.append(cycle)
            await ctx.tick()

    simulate(dut, bench, cycles=cycles + 10)
    return flushes, busy


@given(seed=st.integers(0, 1 << 30), gap=st.sampled_from([6, 20]), rate=st.sampled_from([2, 8, 40]))
def test_no_command_meets_a_line_that_was_written_before_it(seed, gap, rate):
    rng = random.Random(seed)
    commands, writes = [], []
    cycle = 2
    while cycle < 600:
        table = rng.choice([0, 0x1000, 0x40000, 1 << 33]) + rng.randrange(64)
        commands.append(
            Command(cycle, table, rng.choice([1, 7, 70000]), rng.choice([1, 24, 65535]))
        )
        cycle += 6 + rng.randrange(gap)
    sent = 0
    while (sent := sent + 1 + rng.randrange(2 * rate)) < 600:
        asked = sent - 1 - rng.randrange(6)
        target = rng.choice(commands)
        address = target.table + rng.randrange(-40, target.rows * target.stride + 40)
        writes.append(Write(asked, sent, sent + 1 + rng.randrange(30), max(0, address)))

    flushes, _ = play(commands, writes, 620)
    for number, command in enumerate(commands):
        last = max([f for f in flushes if f < command.start], default=-1)
        for earlier in commands[:number]:
            # A line of `earlier` may have been read until the write could be seen.
            stale = [
                w for w in writes
                if earlier.covers(w.address) and earlier.start <= w.seen < command.start
                and earlier.start >= last and not any(w.seen < f < command.start for f in flushes)
            ]  # fmt: skip
            assert not stale or command.start in flushes, (command, earlier, stale)


TABLE = Command(10, 0x1000, 10, 64)
AGAIN = Command(40, 0x1000, 10, 64)


@pytest.mark.parametrize(
    ("address", "flushed"),
    [(0x1000, True), (0x1000 + 639, True), (0x1000 + 640, False), (0x1000 - 1, False)],
)
def test_only_a_write_to_the_table_flushes(address, flushed):
    flushes, _ = play([TABLE, AGAIN], [Write(20, 21, 25, address)], 60)
    assert flushes == ([40] if flushed else [])


def test_tables_of_more_than_65536_rows_are_watched_to_their_end():
    large = Command(10, 0x1000, 70_000, 65_535)
    again = Command(40, 0x1000, 70_000, 65_535)
    end = 0x1000 + 70_000 * 65_535
    assert play([large, again], [Write(20, 21, 25, end - 1)], 60)[0] == [40]
    assert play([large, again], [Write(20, 21, 25, end)], 60)[0] == []


def test_writes_between_two_tables_count_as_writes_to_them():
    other = Command(20, 0x9000, 1, 64)
    flushes, _ = play([TABLE, other, AGAIN], [Write(28, 29, 32, 0x5000)], 60)
    assert flushes == [40]


def test_a_flush_forgets_the_span():
    other = Command(30, 0x9000, 1, 64)
    last = Command(50, 0x9000, 1, 64)
    writes = [Write(20, 21, 25, 0x1000), Write(38, 39, 42, 0x1000)]
    flushes, _ = play([TABLE, other, last], writes, 60)
    assert flushes == [30]


def test_a_write_in_flight_when_a_command_begins_makes_the_next_flush():
    # Sent before the first table is known, seen after rows may have been read.
    flushes, _ = play([TABLE, AGAIN], [Write(5, 6, 15, 0x1040)], 60)
    assert flushes == [40]


def test_rows_wait_until_the_span_is_known():
    _, busy = play([TABLE], [], 30)
    assert busy == [11, 12, 13]


def test_nothing_is_flushed_without_a_write():
    commands = [Command(10 * i, 0x1000 * i, 100, 24) for i in range(1, 9)]
    assert play(commands, [], 100) == (
        [],
        [c for i in range(1, 9) for c in range(10 * i + 1, 10 * i + 4)],
    )
