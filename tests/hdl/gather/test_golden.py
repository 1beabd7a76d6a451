"""The golden model pools exactly as PyTorch's quantised embedding-bag operators do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdl.commands import IndexMode, RowFormat, Status
from sim.golden.gather import row_bytes, sparse_lengths_sum, unpack_rows
from tests.oracles import gather_vectors

FORMATS = {8: RowFormat.INT8, 4: RowFormat.INT4}


def assert_same_bits(ours, theirs):
    """Equal bits; any NaN equals any other, whose payload is nobody's contract."""
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    number = ~np.isnan(theirs)
    np.testing.assert_array_equal(ours[number].view(np.uint32), theirs[number].view(np.uint32))


def test_committed_vectors():
    with np.load(gather_vectors.PATH) as vectors:
        cases = sum(key.startswith("pooled_") for key in vectors)
        assert cases == 16
        for number in range(cases):
            case = {
                name: vectors[f"{name}_{number}"]
                for name in ("table", "indices", "lengths", "weights", "dim", "bits", "pooled")
            }
            pooled, status, detail = sparse_lengths_sum(
                case["table"],
                case["indices"],
                case["lengths"],
                int(case["dim"]),
                FORMATS[int(case["bits"])],
                case["weights"] if case["weights"].size else None,
            )
            assert (status, detail) == (Status.OK, 0)
            assert_same_bits(pooled, case["pooled"])


@given(
    pairs=st.integers(1, 40),
    bits=st.sampled_from([8, 4]),
    weighted=st.booleans(),
    special=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_live_operators(pairs, bits, weighted, special, seed):
    pytest.importorskip("torch")
    dim = 2 * pairs if bits == 4 else pairs
    table, indices, lengths, weights = gather_vectors.random_case(
        np.random.default_rng(seed), dim, bits, weighted, special
    )
    pooled, status, _ = sparse_lengths_sum(table, indices, lengths, dim, FORMATS[bits], weights)
    assert status == Status.OK
    assert_same_bits(
        pooled, gather_vectors.torch_embedding_bag(table, indices, lengths, bits, weights)
    )


@pytest.fixture
def table():
    """Three 8-bit rows of one element, worth 1, 10 and 100."""
    rows = np.zeros((3, 9), np.uint8)
    rows[:, 0] = 1
    rows[:, 1:5] = np.array([[1], [10], [100]], np.float32).view(np.uint8)
    return rows


@pytest.mark.parametrize(
    ("indices", "lengths", "mode", "expected"),
    [
        ([0, 1, 2], [2, 0, 1], IndexMode.FATAL, ([11, 0, 100], Status.OK, 0)),
        ([], [0, 0], IndexMode.FATAL, ([0, 0], Status.OK, 0)),
        ([], [], IndexMode.FATAL, ([], Status.OK, 0)),
        ([0, 3, 2], [1, 2], IndexMode.FATAL, ([1], Status.BAD_INDEX, 1)),
        ([0, -1, 2], [1, 0, 2], IndexMode.FATAL, ([1, 0], Status.BAD_INDEX, 1)),
        ([3, -1, 2], [1, 2], IndexMode.WARN, ([0, 100], Status.OK, 2)),
        ([3, -1, 2], [1, 2], IndexMode.IGNORE, ([0, 100], Status.OK, 0)),
        ([0, 1, 2], [1, -2, 4], IndexMode.FATAL, ([1], Status.BAD_LENGTH, 1)),
        ([0, 1, 2], [1, 3], IndexMode.FATAL, ([1], Status.LENGTH_MISMATCH, 1)),
        ([0, 1, 2], [1, 1], IndexMode.FATAL, ([1, 10], Status.LENGTH_MISMATCH, 2)),
        ([0, 1, 9], [1, 1], IndexMode.FATAL, ([1, 10], Status.LENGTH_MISMATCH, 2)),
        ([9, 1, 2], [1, -1, 2], IndexMode.FATAL, ([], Status.BAD_INDEX, 0)),
        ([0, 9, 2], [1, -1, 2], IndexMode.FATAL, ([1], Status.BAD_LENGTH, 1)),
        ([9, 1, 2], [1, 2**31 - 1, 2**31 - 1], IndexMode.WARN,
         ([0], Status.LENGTH_MISMATCH, 1)),
    ],
)  # fmt: skip
def test_faults_are_reported_in_order(table, indices, lengths, mode, expected):
    pooled, status, detail = sparse_lengths_sum(
        table, indices, lengths, 1, RowFormat.INT8, mode=mode
    )
    values, *ending = expected
    np.testing.assert_array_equal(pooled, np.array(values, np.float32).reshape(-1, 1))
    assert [status, detail] == ending


def test_odd_int4_rows_leave_a_nibble_before_the_scale():
    row = np.array([[0x21, 0xF3, 0x00, 0x3C, 0x00, 0xC0]], np.uint8)
    assert row.shape[1] == row_bytes(3, RowFormat.INT4)
    q, scale, bias = unpack_rows(row, 3, RowFormat.INT4)
    np.testing.assert_array_equal(q, [[1, 2, 3]])
    assert (scale[0], bias[0]) == (1, -2)


def test_a_row_longer_than_its_stride_is_refused(table):
    with pytest.raises(ValueError, match=r"\(3, 9\).*dim 2 takes 10 bytes"):
        unpack_rows(table, 2, RowFormat.INT8)
