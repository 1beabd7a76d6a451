"""What the engine promises about time, against a memory that never makes it wait."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hdl.commands import RowFormat
from hdl.config import PRESETS
from hdl.engine import Activity
from hdl.gather.interleave import CONTEXTS
from hdl.gather.lane import byte_to_float
from hdl.gather.lanes import AccumulateLanes
from tests.hdl.gather.harness import make_table, plain, run

TINY = PRESETS["tiny"]
DEFAULT = PRESETS["default"]


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


@pytest.mark.slow
def test_the_default_card_takes_four_cycles_for_a_row_of_64():
    rows = 8 * 8
    taken = extra_cycles(DEFAULT, (8,) * 8, (8,) * 16, dim=64)
    assert taken == rows * 64 // DEFAULT.lanes == rows * 4


def test_a_bag_alone_adds_a_row_every_chain_latency():
    assert AccumulateLanes.chain_latency == 10
    assert extra_cycles(TINY, (20,), (40,), dim=4) == 20 * AccumulateLanes.chain_latency


@pytest.mark.parametrize("length", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_bags_share_the_chain_latency(length):
    bags = 80 // length
    config = TINY.replace(gather_outstanding=16)
    taken = extra_cycles(config, (length,) * bags, (length,) * 2 * bags, dim=TINY.lanes)
    # The sequencer takes a cycle for each lookup and one for each bag.
    assert taken <= bags * max(length * AccumulateLanes.chain_latency / CONTEXTS, length + 1)


def test_waiting_for_memory_counts_as_starved():
    (outcome,) = run(TINY, [plain(lengths=(1, 1, 1), weights=None)], latency=(80, 80))
    assert outcome.activity[Activity.STARVED] > 2 * outcome.activity[Activity.BUSY]
    assert sum(outcome.activity.values()) == outcome.cycles
    assert sum(outcome.waits.values()) == outcome.cycles - outcome.activity[Activity.IDLE]


PRUNED = {"lengths": (100, 100), "indices": np.full(200, -1), "pruned": True}
BOUNDS = {
    # Few reads in flight; a bag alone; nothing but pruned rows; pooled rows of many words.
    "memory": ({"lengths": (20,) * 6}, {"gather_outstanding": 2}, 30),
    "lanes": ({"lengths": (60,), "dim": 4}, {"gather_outstanding": 16}, 1),
    "indices": (PRUNED, {}, 1),
    "output": ({"lengths": (1,) * 60, "dim": 16}, {"gather_outstanding": 16}, 1),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_largest_count_names_the_bound(bound):
    command, card, latency = BOUNDS[bound]
    command = {"weights": None, "row_format": RowFormat.INT4} | command
    config = TINY.replace(lanes=16, **card)
    (outcome,) = run(config, [plain(**command)], latency=(latency, latency))
    assert outcome.waits[bound] > 0.5 * outcome.cycles, outcome.waits


@pytest.mark.slow
def test_waiting_for_the_output_counts_as_blocked():
    # Rows of one word and one chunk arrive every two cycles; a pooled row takes four to write.
    table = make_table(np.random.default_rng(0), 12, 16, RowFormat.INT4, padding=4)
    command = plain(
        dim=16, lengths=(1,) * 100, weights=None, table=table, row_format=RowFormat.INT4
    )
    (outcome,) = run(TINY.replace(lanes=16), [command], latency=(1, 1))
    assert outcome.cycles < 4 * 100 + 60
    assert outcome.activity[Activity.BLOCKED] > 200


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
