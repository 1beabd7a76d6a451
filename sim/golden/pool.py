"""The meaning of POOL: the maximum over windows of an image."""

import numpy as np
from numpy.typing import NDArray


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
    rows, columns = (
        np.arange(out[axis])[:, None] * stride[axis] - pad[axis]
        + np.arange(kernel[axis]) * dilation[axis]
        for axis in (0, 1)
    )  # fmt: skip
    y = np.full((*out, x.shape[2]), np.iinfo(x.dtype).min, x.dtype)
    for down in rows.T:
        for right in columns.T:
            inside = (down >= 0) & (down < x.shape[0]), (right >= 0) & (right < x.shape[1])
            taken = x[np.ix_(down[inside[0]], right[inside[1]])]
            where = np.ix_(*inside)
            y[where] = np.maximum(y[where], taken)
    return y
