"""What the host packs is what the documents say: checked element by element."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hdl.config import PRESETS
from host.runtime.layout import pack_params, pack_weights, pad_rows

TINY = PRESETS["tiny"]


@given(n=st.integers(1, 11), k=st.integers(1, 11), shape=st.sampled_from([(4, 4), (2, 8), (8, 2)]))
def test_every_weight_is_where_its_tile_says(n, k, shape):
    config = TINY.replace(array_rows=shape[0], array_columns=shape[1])
    weight = np.random.default_rng(n * 16 + k).integers(-128, 128, (n, k)).astype(np.int8)
    packed = pack_weights(weight, config).view(np.int8)
    k_tiles = -(-k // shape[0])
    assert len(packed) == k_tiles * -(-n // shape[1]) * config.weight_tile_bytes
    seen = 0
    for row in range(n):
        for column in range(k):
            tile = (row // shape[1]) * k_tiles + column // shape[0]
            place = (column % shape[0]) * shape[1] + row % shape[1]
            assert packed[tile * config.weight_tile_bytes + place] == weight[row, column]
            seen += abs(int(weight[row, column]))
    assert np.abs(packed.astype(int)).sum() == seen, "padding must be zero"


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
