"""Where the taps of windows lie in an image."""

import numpy as np
from numpy.typing import NDArray


def tap_positions(
    kernel: tuple[int, int], out: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:  # fmt: skip
    """Rows [out[0], kernel[0]] and columns [out[1], kernel[1]] of the image, for each place of the
    output and each tap: negative or beyond the image where they lie outside."""
    rows, columns = (
        np.arange(out[axis])[:, None] * stride[axis] - pad[axis]
        + np.arange(kernel[axis]) * dilation[axis]
        for axis in (0, 1)
    )  # fmt: skip
    return rows, columns
