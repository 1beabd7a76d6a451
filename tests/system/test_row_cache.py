"""A card with a hot-row cache: the same bits, whoever rewrites a table and however."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Opcode
from halfdome.host.graph.fused_rows import fuse_8bit
from tests.system.programs import OTHER

pytestmark = pytest.mark.slow  # a model of the card is compiled first

ROWS, DIM = 40, 24


@pytest.fixture(scope="module")
def runtime():
    with halfdome.open(cards=1, config=OTHER) as runtime:
        yield runtime


def fused(seed):
    return fuse_8bit(np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32))


def load(runtime, table, rows):
    runtime.cards[0].accelerator.upload(table.block, rows.reshape(-1))


def window(runtime, table, rows):
    card = runtime.cards[0]
    card.device.bus.write(card.device.bar2 + table.block.address, rows.tobytes())


def copy(runtime, table, rows):
    card = runtime.cards[0]
    source = card.accelerator.place(rows.size)
    card.accelerator.upload(source, rows.reshape(-1))
    stride = -(-rows.size // 16) * 16
    card.accelerator.timeline.issue(
        Opcode.COPY, source=source.address, destination=table.block.address, rows=1,
        row_bytes=rows.size, source_stride=stride, destination_stride=stride,
    )  # fmt: skip
    card.device.check(card.accelerator.timeline.flush())
    card.release(source)


def backdoor(runtime, table, rows):
    card = runtime.cards[0]
    start = table.block.address
    runtime.platform.memory(0)[start : start + rows.size] = rows.reshape(-1)
    card.accelerator.announce(table.block)


@pytest.mark.parametrize("rewrite", [load, window, copy, backdoor])
def test_a_table_that_is_rewritten_is_read_anew(runtime, rewrite):
    card = runtime.cards[0]
    table = card.table(fused(0))
    indices = np.random.default_rng(1).integers(0, ROWS, 60)
    offsets = np.arange(0, 60, 5)
    for seed in range(3):
        rows = fused(seed)
        if seed:
            rewrite(runtime, table, rows)
        before = card.counters()
        golden = runtime.reference.embedding_bag(rows, indices, offsets)
        for _ in range(2):
            pooled = card.embedding_bag(table, indices, offsets)
            np.testing.assert_array_equal(pooled.view(np.uint32), golden.view(np.uint32))
        after = card.counters()
        hits = after["gather_cache_hits"] - before["gather_cache_hits"]
        misses = after["gather_cache_misses"] - before["gather_cache_misses"]
        # 60 lookups of rows on one or two lines, twice; the table's 20 lines fit the cache.
        assert 120 <= hits + misses <= 240
        assert 12 <= misses <= 24 + 2
    card.release(table)


def test_a_preloaded_table_takes_the_place_of_another(runtime):
    card = runtime.cards[0]
    indices = np.arange(ROWS)
    for seed in range(4):
        rows = fused(seed)
        table = card.table(rows, preload=True)
        offsets = np.arange(0, ROWS, 4)
        pooled = card.embedding_bag(table, indices, offsets)
        golden = runtime.reference.embedding_bag(rows, indices, offsets)
        np.testing.assert_array_equal(pooled.view(np.uint32), golden.view(np.uint32))
        card.release(table)
