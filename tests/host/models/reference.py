"""The card's operators in a few lines of numpy, written apart from the golden model."""

import numpy as np


class NumpyOperators:
    """Implements `halfdome.host.models.quantise.Operators`."""

    def embedding_bag(self, table, indices, lengths):
        dim = table.shape[1] - 8
        tail = np.ascontiguousarray(table[:, dim:]).view("<f4")
        pooled = np.zeros((len(lengths), dim), np.float32)
        start = np.cumsum(lengths) - lengths
        for position in range(max(lengths, default=0)):
            bags = np.flatnonzero(lengths > position)
            rows = indices[start[bags] + position]
            scale, bias = tail[rows, :1], tail[rows, 1:]
            # scale * q is exact in float64, so that only the last rounding could differ from fma.
            product = scale.astype(np.float64) * table[rows, :dim]
            pooled[bags] = (product + (pooled[bags] + bias)).astype(np.float32)
        return pooled

    def linear(self, x, weight, multiplier, bias, x_zero_point, y_zero_point, relu):
        assert (x.dtype, weight.dtype, bias.dtype) == (np.uint8, np.int8, np.int32)
        assert multiplier.dtype == np.float32
        sums = (x.astype(np.int64) - x_zero_point) @ weight.astype(np.int64).T + bias
        assert np.abs(sums).max(initial=0) < 2**31
        y = np.rint(sums.astype(np.float32) * multiplier) + y_zero_point
        return y.clip(y_zero_point if relu else 0, 255).astype(np.uint8)

    def quantise(self, x, multiplier, zero_point):
        assert x.dtype == np.float32
        return (np.rint(x * np.float32(multiplier)) + zero_point).clip(0, 255).astype(np.uint8)

    def dot_interaction(self, x, multiplier, zero_point):
        assert (x.dtype, multiplier.dtype) == (np.uint8, np.float32)
        y = []
        for i in range(x.shape[1]):
            for j in range(i):
                pair = (x[:, i].astype(np.int64) - zero_point) * (x[:, j] - float(zero_point))
                y.append(np.rint(pair.sum(axis=1).astype(np.float32) * multiplier) + zero_point)
        return np.stack(y, axis=1).clip(0, 255).astype(np.uint8)

    def sigmoid(self, x, scale, zero_point):
        assert (x.dtype, scale.dtype) == (np.uint8, np.float32)
        return (0.5 + 0.5 * np.tanh((x.astype(float) - zero_point) * scale / 2)).astype(np.float32)
