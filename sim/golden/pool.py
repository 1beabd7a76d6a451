"""Windows of an image: the maximum and the average, which are the meaning of POOL and AVERAGE."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from halfdome.hdl.commands import ElementFormat, Flag
from halfdome.sim.golden.vector import float_of
from halfdome.sim.golden.windows import tap_positions


def max_pool(
    x: NDArray[np.generic],
    *,
    out: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> NDArray[np.generic]:
    """[*out, k] of x's dtype: the largest of each channel of x [height, width, k], uint8 or int8.

    The first window begins `pad` rows above x and columns left of it. What lies outside x takes no
    part; at least one tap of every window must lie inside.
    """
    rows, columns = tap_positions(kernel, out, stride, pad, dilation)
    y = np.full((*out, x.shape[2]), np.iinfo(x.dtype).min, x.dtype)
    for down in rows.T:
        for right in columns.T:
            inside = (down >= 0) & (down < x.shape[0]), (right >= 0) & (right < x.shape[1])
            taken = x[np.ix_(down[inside[0]], right[inside[1]])]
            where = np.ix_(*inside)
            y[where] = np.maximum(y[where], taken)
    return y


def average_pool(
    x: NDArray[np.generic],
    *,
    out: tuple[int, int],
    kernel: tuple[int, int],
    dtype: type,
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    outside: bool = False,
    x_zero_point: int = 0,
    x_scale: np.float32,
    y_scale: np.float32,
    y_zero_point: int = 0,
) -> NDArray[np.generic]:
    """[*out, k] of `dtype`: QLinearAveragePool of x [height, width, k], uint8 or int8.

    Every step is rounded to float32: (x - x_zero_point) * x_scale; their sum, tap after tap in
    reading order; that over the number of taps, over `y_scale`, and with `y_zero_point`. That is
    rounded half to even and saturates. Taps outside of x count if `outside`, as zeros.
    """
    floats = (x.astype(np.int32) - x_zero_point).astype(np.float32) * x_scale
    total = np.zeros((*out, x.shape[2]), np.float32)
    counts = np.zeros((*out, 1), np.float32)
    rows, columns = tap_positions(kernel, out, stride, pad, dilation)
    for y_at in rows.T:
        for x_at in columns.T:
            y_in, x_in = (y_at >= 0) & (y_at < x.shape[0]), (x_at >= 0) & (x_at < x.shape[1])
            total[np.ix_(y_in, x_in)] += floats[np.ix_(y_at[y_in], x_at[x_in])]
            counts[np.ix_(y_in, x_in)] += 1
    if outside:
        counts[:] = kernel[0] * kernel[1]
    scaled = total / counts / y_scale + np.float32(y_zero_point)
    limits = np.iinfo(dtype)
    return np.rint(scaled).clip(limits.min, limits.max).astype(dtype)


def average_constants(v: dict[str, int]) -> dict[str, Any]:
    """What an AVERAGE with the fields `v` says of its numbers, as `average_pool` takes it."""
    x_type = np.int8 if v["flags"] & Flag.X_INT8 else np.uint8
    y_type = np.int8 if v["y_format"] == ElementFormat.INT8 else np.uint8
    return {
        "dtype": y_type,
        "outside": bool(v["flags"] & Flag.OUTSIDE),
        "x_zero_point": int(np.uint8(v["x_zero_point"]).view(x_type)),
        "y_zero_point": int(np.uint8(v["y_zero_point"]).view(y_type)),
        "x_scale": float_of(v["x_scale"]),
        "y_scale": float_of(v["y_scale"]),
    }
