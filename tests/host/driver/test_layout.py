"""What the host packs is what the documents say: checked element by element."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.host.driver.layout import pack_params, pack_weights, pad_rows

TINY = PRESETS["tiny"]


@given(
    n=st.integers(1, 40),
    k=st.integers(1, 40),
    taps=st.sampled_from([(), (1, 1), (2, 3)]),
    shape=st.sampled_from([(4, 4), (2, 8), (8, 2)]),
)
def test_tiles_lie_in_the_order_in_which_the_array_takes_them(n, k, taps, shape):
    rows, columns = shape
    config = TINY.replace(
        array_rows=rows, array_columns=columns, accumulator_rows=8, activation_rows=4
    )
    assert config.group_tiles == 2
    weight = np.random.default_rng(n * 64 + k).integers(-128, 128, (n, *taps, k)).astype(np.int8)
    by_tap = weight.reshape(n, -1, k)
    expected = []
    for n_group in range(0, n, 2 * columns):
        for tap in range(by_tap.shape[1]):
            for k_line in range(0, k, config.line_bytes):
                for first_n in range(n_group, min(n, n_group + 2 * columns), columns):
                    for first_k in range(k_line, min(k, k_line + config.line_bytes), rows):
                        tile = np.zeros(config.weight_tile_bytes, np.int8)
                        piece = by_tap[first_n : first_n + columns, tap, first_k : first_k + rows]
                        square = tile[: rows * columns].reshape(rows, columns)
                        square[: piece.shape[1], : piece.shape[0]] = piece.T
                        expected.append(tile)
    np.testing.assert_array_equal(
        pack_weights(weight, config).view(np.int8), np.concatenate(expected)
    )


def test_the_input_zero_point_moves_into_the_bias():
    rng = np.random.default_rng(1)
    weight = rng.integers(-128, 128, (5, 7)).astype(np.int8)
    bias = rng.integers(-1000, 1000, 5).astype(np.int32)
    multiplier = rng.random(5).astype(np.float32)
    packed = pack_params(weight, multiplier, bias, 3).reshape(5, 8)
    x = rng.integers(0, 256, 7)
    with_zero_point = (x - 3) @ weight.T.astype(int) + bias
    folded = x @ weight.T.astype(int) + packed[:, :4].copy().view(np.int32)[:, 0]
    assert np.array_equal(with_zero_point, folded)
    assert np.array_equal(packed[:, 4:].copy().view(np.float32)[:, 0], multiplier)


def test_rows_are_padded_with_zeros():
    assert pad_rows(np.array([[1, 2], [3, 4]], np.uint8), 4).tolist() == [1, 2, 0, 0, 3, 4, 0, 0]
