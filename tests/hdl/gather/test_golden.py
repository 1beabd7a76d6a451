"""The golden model pools exactly as PyTorch's quantised embedding-bag operators do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, IndexMode, RowFormat, Status
from halfdome.sim.golden.gather import lengths_of, pooled_as, sparse_lengths_sum, unpack_rows
from tests.oracles import gather_vectors

FORMATS = {8: RowFormat.INT8, 4: RowFormat.INT4}


def assert_same_bits(ours, theirs):
    """Equal bits; any NaN equals any other, whose payload is nobody's contract."""
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    assert ours.dtype == theirs.dtype
    number = ~np.isnan(theirs)
    bits = f"u{theirs.itemsize}"
    np.testing.assert_array_equal(ours[number].view(bits), theirs[number].view(bits))


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


@given(
    dim=st.integers(1, 70),
    row_format=st.sampled_from([RowFormat.FLOAT16, RowFormat.FLOAT32]),
    mode=st.sampled_from(["sum", "weighted", "mean"]),
    padded=st.booleans(),
    wide=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_live_operator_of_float_rows(dim, row_format, mode, padded, wide, seed):
    """A padding index contributes nothing and does not count, as index -1 on the card."""
    pytest.importorskip("torch")
    real = np.float16 if row_format == RowFormat.FLOAT16 else np.float32
    rng = np.random.default_rng(seed)
    rows = 30
    # Powers of ten make sums that overflow fp16, and differences that cancel.
    table = rng.standard_normal((rows, dim)) * 10.0 ** rng.integers(-4, 5, (rows, 1))
    table = np.clip(table, -60_000, 60_000).astype(real)
    lengths = rng.integers(0, 12, 9)
    indices = rng.integers(0, rows, lengths.sum())
    weights = rng.standard_normal(len(indices)).astype(real) if mode == "weighted" else None
    theirs = gather_vectors.torch_float_bags(
        table, indices, np.cumsum(lengths) - lengths, weights=weights,
        mode="mean" if mode == "mean" else "sum", padding=7 if padded else None,
    )  # fmt: skip
    pooled, status, _ = sparse_lengths_sum(
        table.view(np.uint8),
        np.where(padded & (indices == 7), -1, indices),
        lengths,
        dim,
        row_format,
        weights if weights is None else weights.astype(np.float32),
        pruned=padded,
        mean=mode == "mean",
        output_format=ElementFormat.FLOAT16 if real == np.float16 else ElementFormat.FLOAT32,
    )
    assert status == Status.OK
    assert_same_bits(pooled, theirs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_quantised_bags_are_those_of_torch(dtype):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32) * 30
    x[0] = [0, 1e8, -1e8, 0.25, 0.75]
    scale, zero_point = np.float32(0.5), -3 if dtype == np.int8 else 131
    limits = np.iinfo(dtype)
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), float(scale), zero_point, limits.min, limits.max
    )
    output_format = ElementFormat.INT8 if dtype == np.int8 else ElementFormat.UINT8
    ours = pooled_as(x, output_format, 1 / scale, zero_point & 0xFF)
    assert ours.dtype == dtype
    # PyTorch answers in the scale of x.
    np.testing.assert_array_equal((ours.astype(np.float32) - zero_point) * scale, theirs.numpy())


@pytest.mark.parametrize(
    ("offsets", "count", "expected"),
    [
        ([0, 2, 2], 5, [2, 0, 3]),
        ([0], 0, [0]),
        ([], 0, []),
        ([0, 3, 1], 4, [3, -2, 3]),
        ([0, 9], 4, [9, -5]),
    ],
)
def test_lengths_from_offsets(offsets, count, expected):
    np.testing.assert_array_equal(lengths_of(offsets, count), expected)


def test_offsets_that_do_not_start_at_0_are_a_fault_of_bag_0(table):
    lengths = lengths_of([1, 2], 3)
    _, status, detail = sparse_lengths_sum(table, [0, 1, 2], lengths, 1, RowFormat.INT8)
    assert (status, detail) == (Status.LENGTH_MISMATCH, 0)


def test_a_pruned_row_is_neither_added_nor_counted_nor_bad(table):
    pooled, status, detail = sparse_lengths_sum(
        table, [-1, 2, 1, -1, -2], [3, 2], 1, RowFormat.INT8, mode=IndexMode.WARN,
        pruned=True, mean=True,
    )  # fmt: skip
    assert (pooled.tolist(), status, detail) == ([[55], [0]], Status.OK, 1)


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
    assert row.shape[1] == RowFormat.INT4.row_bytes(3)
    q, scale, bias = unpack_rows(row, 3, RowFormat.INT4)
    np.testing.assert_array_equal(q, [[1, 2, 3]])
    assert (scale[0], bias[0]) == (1, -2)


def test_a_row_longer_than_its_stride_is_refused(table):
    with pytest.raises(ValueError, match=r"\(3, 9\).*dim 2 takes 10 bytes"):
        unpack_rows(table, 2, RowFormat.INT8)
