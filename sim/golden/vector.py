"""The meaning of the vector engine's commands, bit for bit."""

import numpy as np
from numpy.typing import NDArray

from sim.golden import floats


def quantise(
    x: NDArray[np.float32], multiplier: float | np.float32, zero_point: int
) -> NDArray[np.uint8]:
    """QUANTISE: uint8 of the shape of `x`.

    `saturate(round_half_even(x * multiplier) + zero_point)` where the product is rounded to
    float32, ties go to the even integer and NaN counts as 0. With `multiplier` = 1 / scale in
    float32 this is `torch.fake_quantize_per_tensor_affine` before it goes back to float32, and
    ONNX's QuantizeLinear for a scale that is a power of two (it divides by the scale).

    Raises `ValueError` if `x` is not float32, `multiplier` is not finite or `zero_point` is not 0
    to 255.
    """
    if x.dtype != np.float32:
        raise ValueError(f"x: dtype {x.dtype}, must be float32")
    if not np.isfinite(np.float32(multiplier)):
        raise ValueError(f"multiplier={multiplier}: must be a finite float32")
    if not 0 <= zero_point <= 255:
        raise ValueError(f"zero_point={zero_point}: must be 0 to 255")
    return floats.quantise(x, np.float32(multiplier), zero_point)
