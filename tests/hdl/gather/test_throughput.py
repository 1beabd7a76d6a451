"""What the engine promises about time, against a memory that never makes it wait."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from halfdome.hdl.gather.lane import byte_to_float
from halfdome.hdl.gather.lanes import AccumulateLanes
from tests.hdl.gather.harness import make_table, plain, run

TINY = PRESETS["tiny"]


def extra_cycles(config, short, long, **changes):
    """Cycles that the bags `long` take more than the bags `short`."""
    few, many = run(
        config,
        [plain(lengths=lengths, weights=None, **changes) for lengths in (short, long)],
        latency=(1, 1),
    )
    return many.cycles - few.cycles


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row_format", "bound"),
    [(RowFormat.INT8, "chunks"), (RowFormat.FLOAT16, "chunks"), (RowFormat.FLOAT32, "words")],
)
def test_a_row_takes_a_cycle_for_each_chunk_or_bus_word(row_format, bound):
    dim, rows, offset, word = 64, 4 * 4, 5, TINY.bus_bytes
    row_bytes = row_format.row_bytes(dim)
    table = make_table(np.random.default_rng(0), 12, dim, row_format, padding=-row_bytes % word)
    taken = extra_cycles(
        TINY, (4,) * 4, (4,) * 8, dim=dim, row_format=row_format, table=table, offset=offset
    )
    # A row of four-byte elements is as many words as chunks, and one more where it starts within.
    cycles = {"chunks": dim // TINY.lanes, "words": -(-(offset + row_bytes) // word)}
    assert bound == max(cycles, key=cycles.__getitem__)
    assert taken == rows * cycles[bound]


def test_bags_share_the_chain_latency():
    config = TINY.replace(gather_outstanding=16)
    chain_latency = AccumulateLanes(config).chain_latency
    assert chain_latency == 10
    bags = 2 * TINY.gather_contexts
    commands = [
        plain(lengths=lengths, weights=None, dim=TINY.lanes)
        for lengths in ((8,), (16,), (1,) * bags, (1,) * 2 * bags)
    ]
    cycles = [outcome.cycles for outcome in run(config, commands, latency=(1, 1))]
    assert cycles[1] - cycles[0] == 8 * chain_latency
    # The sequencer takes a cycle for each lookup and one for each bag.
    assert cycles[3] - cycles[2] <= bags * max(chain_latency / TINY.gather_contexts, 1 + 1)


@pytest.mark.slow
def test_a_chain_of_more_stages_is_longer_by_them():
    config = TINY.replace(gather_float_stages=2)
    assert AccumulateLanes(config).chain_latency == 16
    assert extra_cycles(config, (8,), (16,), dim=TINY.lanes) == 8 * 16


@pytest.mark.slow
def test_long_bags_share_the_chain_latency():
    config = TINY.replace(gather_outstanding=16)
    taken = extra_cycles(config, (20,) * 4, (20,) * TINY.gather_contexts, dim=TINY.lanes)
    assert taken <= 4 * 20 * AccumulateLanes(config).chain_latency / TINY.gather_contexts


def test_waiting_for_memory_counts_as_starved():
    command = plain(lengths=(4,) * 5, weights=None)
    (outcome,) = run(TINY, [command], latency=(40, 40))
    assert outcome.activity[Activity.STARVED] > 2 * outcome.activity[Activity.BUSY]
    assert outcome.waits["memory"] > 0.5 * outcome.cycles, outcome.waits
    assert sum(outcome.activity.values()) == outcome.cycles
    assert sum(outcome.waits.values()) == outcome.cycles - outcome.activity[Activity.IDLE]


def test_the_largest_count_names_the_bound():
    bounds = {
        # A bag alone; nothing but pruned rows; pooled rows of more words than chunks.
        "lanes": plain(lengths=(20,), dim=4, weights=None),
        "indices": plain(lengths=(40, 40), indices=[-1] * 80, pruned=True, weights=None),
        "output": plain(lengths=(1,) * 30, dim=16, weights=None, row_format=RowFormat.INT4),
    }
    config = TINY.replace(lanes=8, gather_outstanding=16)
    outcomes = run(config, list(bounds.values()), latency=(1, 1))
    for bound, outcome in zip(bounds, outcomes, strict=True):
        assert max(outcome.waits, key=outcome.waits.__getitem__) == bound, outcome.waits


@pytest.mark.slow
def test_waiting_for_the_output_counts_as_blocked():
    # Rows of one word and one chunk arrive every two cycles; a pooled row takes four to write.
    table = make_table(np.random.default_rng(0), 12, 16, RowFormat.INT4, padding=4)
    command = plain(dim=16, lengths=(1,) * 40, weights=None, table=table, row_format=RowFormat.INT4)
    (outcome,) = run(TINY.replace(lanes=16), [command], latency=(1, 1))
    assert outcome.cycles < 4 * 40 + 60
    assert outcome.activity[Activity.BLOCKED] > 80


def test_every_byte_becomes_its_float():
    m = Module()
    q = Signal(8)
    o = Signal(32)
    m.d.comb += o.eq(byte_to_float(q))
    floats = []

    async def bench(ctx):
        for value in range(256):
            ctx.set(q, value)
            floats.append(ctx.get(o))

    sim = Simulator(m)
    sim.add_testbench(bench)
    sim.run()
    np.testing.assert_array_equal(
        np.array(floats, np.uint32).view(np.float32), np.arange(256, dtype=np.float32)
    )
