"""Fused rows are those of PyTorch in every byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from halfdome.host.graph.fused_rows import fuse_4bit, fuse_8bit
from tests.oracles import quantise_rows

TABLES = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20),
    # Which of two zeros is the least depends on the width in PyTorch: no negative ones here.
    elements=st.floats(-60000, 60000, width=32).map(lambda x: x + 0.0),
)


def decode_8bit(rows):
    tail = np.ascontiguousarray(rows[:, -8:]).view("<f4")
    return rows[:, :-8] * tail[:, :1] + tail[:, 1:]


def decode_4bit(rows, dim):
    tail = np.ascontiguousarray(rows[:, -4:]).view("<f2").astype(np.float32)
    nibbles = np.stack([rows[:, :-4] & 15, rows[:, :-4] >> 4], axis=2).reshape(len(rows), -1)
    return nibbles[:, :dim] * tail[:, :1] + tail[:, 1:]


def test_rows_are_those_that_pytorch_made():
    vectors = np.load(quantise_rows.VECTORS)
    count = sum(name.startswith("table") for name in vectors)
    assert count == len(quantise_rows.tables())
    for number in range(count):
        table = vectors[f"table_{number}"]
        np.testing.assert_array_equal(fuse_8bit(table), vectors[f"rows8_{number}"])
        np.testing.assert_array_equal(fuse_4bit(table), vectors[f"rows4_{number}"])


@given(table=TABLES)
def test_rows_are_those_that_pytorch_makes(table):
    torch = pytest.importorskip("torch")
    operators = torch.ops.quantized
    source = torch.from_numpy(table)
    np.testing.assert_array_equal(
        fuse_8bit(table), operators.embedding_bag_byte_prepack(source).numpy()
    )
    if table.shape[1] % 2 == 0:
        np.testing.assert_array_equal(
            fuse_4bit(table), operators.embedding_bag_4bit_prepack(source).numpy()
        )


@given(table=TABLES)
def test_elements_come_back_within_half_a_step(table):
    span = np.ptp(table, axis=1, keepdims=True)
    size = np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(decode_8bit(fuse_8bit(table)) - table) <= span / 510 * 1.01 + size * 1e-6).all()
    rows = fuse_4bit(table)
    # fp16 scale and bias add their own rounding, 2**-11 of each at most.
    step = span / 30 * 1.01 + size * 0.003 + 1e-4
    assert (np.abs(decode_4bit(rows, table.shape[1]) - table) <= step).all()


def test_even_columns_lie_in_the_low_nibble_and_an_odd_width_is_padded():
    row = fuse_4bit(np.array([[0, 15, 3]], np.float32))[0]
    assert row.tolist() == [0xF0, 0x03, *np.array([1, 0], "<f2").view(np.uint8)]


def test_a_row_of_negative_zeros_has_bias_zero():
    zeros = np.zeros((1, 2), np.float32)
    np.testing.assert_array_equal(fuse_8bit(-zeros), fuse_8bit(zeros))
    np.testing.assert_array_equal(fuse_4bit(-zeros), fuse_4bit(zeros))


def test_row_sizes_are_those_of_the_formats():
    table = np.zeros((3, 32), np.float32)
    assert fuse_8bit(table).shape == (3, 40)
    assert fuse_4bit(table).shape == (3, 20)
    assert fuse_8bit(table[:0]).shape == (0, 40)
    assert fuse_4bit(table[:0]).shape == (0, 20)


@pytest.mark.parametrize("fuse", [fuse_8bit, fuse_4bit])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros(3, np.float32), r"table float32\[3\]: must be float32\[rows, dim >= 1\]"),
        (np.zeros((3, 0), np.float32), r"must be float32\[rows, dim >= 1\]"),
        (np.zeros((3, 2)), r"table float64\[3, 2\]"),
        (np.array([[0, 1], [np.nan, 0]], np.float32), "table row 1: .* not finite"),
        (np.array([[0, np.inf]], np.float32), "table row 0: .* not finite"),
        (np.array([[-3e38, 3e38]], np.float32), "table row 0: .* not finite"),
    ],
)
def test_what_cannot_be_fused_is_refused(fuse, table, message):
    with pytest.raises(ValueError, match=message):
        fuse(table)


def test_4bit_refuses_what_fp16_cannot_hold():
    with pytest.raises(ValueError, match=r"table row 0: -70000\.0 to 0\.0 does not fit fp16"):
        fuse_4bit(np.array([[-70000, 0]], np.float32))
    with pytest.raises(ValueError, match=r"table row 1: 0\.0 to 1000000\.0 does not fit fp16"):
        fuse_4bit(np.array([[0, 1], [0, 1e6]], np.float32))
