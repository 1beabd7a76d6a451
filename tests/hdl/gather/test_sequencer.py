"""The bag sequencer sends every good lookup up to the first fault, under stalls on every stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import IndexMode, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.sequencer import FLOAT_ONE, BagSequencer
from tests.bench import monitor, simulate, sink, source

STALLS = st.sampled_from([0.0, 0.3, 0.7])


def sequence(
    lengths, indices, rows, mode, weighted, index_count, expected, stall=0.0, seed=0, pruned=False
):
    """Runs one command; returns its `expected` first lookups and its (status, detail)."""
    dut = BagSequencer(CardConfig())
    job = {
        "bags": len(lengths), "rows": rows, "index_count": index_count, "mode": mode,
        "weighted": weighted, "pruned": pruned,
    }  # fmt: skip
    mask = 2**64 - 1
    bags = [{"length": v & 0xFFFFFF, "negative": v < 0, "long": v >= 1 << 24} for v in lengths]
    lookups, results = [], []
    simulate(
        dut,
        source(dut.i, [job]),
        sink(dut.o, expected, lookups, seed=seed, stall=stall),
        sink(dut.result, 1, results, seed=seed + 1, stall=stall),
        background=[
            source(dut.lengths, bags, seed=seed + 2, stall=stall),
            source(dut.indices, [v & mask for v in indices], seed=seed + 3, stall=stall),
            source(dut.weights, range(len(indices)), seed=seed + 4, stall=stall),
            monitor(dut.o, "o"),
            monitor(dut.result, "result"),
        ],
    )
    (result,) = results
    return lookups, (Status(result.status), result.detail)


@given(
    lengths=st.lists(st.integers(0, 5), max_size=8),
    mode=st.sampled_from([IndexMode.WARN, IndexMode.IGNORE]),
    weighted=st.booleans(),
    pruned=st.booleans(),
    data=st.data(),
    stall=STALLS,
    seed=st.integers(0, 2**16),
)
def test_each_bag_ends_once_and_bad_rows_are_left_out(
    lengths, mode, weighted, pruned, data, stall, seed
):
    count = sum(lengths)
    indices = data.draw(st.lists(st.integers(-2, 9), min_size=count, max_size=count))
    expected, position, skipped = [], 0, 0
    for length in lengths:
        bag = []
        for step in range(length):
            index = indices[position]
            last = step == length - 1
            if 0 <= index < 8:
                bag.append((index, position if weighted else FLOAT_ONE, 1, int(last)))
            elif last:
                bag.append((None, None, 0, 1))
            skipped += not 0 <= index < 8 and not (pruned and index == -1)
            position += 1
        expected += bag or [(None, None, 0, 1)]
    lookups, result = sequence(
        lengths, indices, 8, mode, weighted, count, len(expected), stall, seed, pruned
    )
    assert [
        (p.index, p.weight, 1, p.last) if p.row else (None, None, 0, p.last) for p in lookups
    ] == expected
    assert result == (Status.OK, skipped if mode == IndexMode.WARN else 0)


@pytest.mark.parametrize("index", [-1, -(2**31), 2**32, 2**32 + 1, 2**63 - 1, -(2**63)])
def test_an_index_of_64_bits_is_bad_whatever_its_low_half(index):
    _, result = sequence([2], [2**32 - 2, index], 2**32 - 1, IndexMode.FATAL, 0, 2, 1)
    assert result == (Status.BAD_INDEX, 1)


def test_only_minus_one_is_a_pruned_row():
    indices = [-1, 3, -1, -2]
    lookups, result = sequence([3, 1], indices, 8, IndexMode.FATAL, 0, 4, 2, pruned=True)
    assert [(p.row, p.last) for p in lookups] == [(1, 0), (0, 1)]
    assert lookups[0].index == 3
    assert result == (Status.BAD_INDEX, 3)


def test_lengths_that_wrap_around_24_bits_do_not_add_up():
    lengths = [2, 2**24 - 1, 2]
    _, result = sequence(lengths, [0, 1], 8, IndexMode.FATAL, 0, 2, 2)
    assert result == (Status.LENGTH_MISMATCH, 1)
    _, result = sequence([2, 2**24, 2], [0, 1], 8, IndexMode.FATAL, 0, 2, 2)
    assert result == (Status.LENGTH_MISMATCH, 1)
