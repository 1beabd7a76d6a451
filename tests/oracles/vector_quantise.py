"""Makes vector_quantise.npz: float32 arrays and what PyTorch's quantisation makes of them.

Run with `python -m tests.oracles.vector_quantise`; needs torch.

The operator is `torch.fake_quantize_per_tensor_affine`, zero_point + nearbyint(x * (1 / scale)).
`torch.quantize_per_tensor` is no oracle: on x86 it adds the zero point before it rounds, so ties
fall elsewhere if the zero point is odd. ONNX's QuantizeLinear rounds first, but divides by the
scale; the two are the same for a scale that is a power of two.
"""

from pathlib import Path

import numpy as np

VECTORS = Path(__file__).with_suffix(".npz")

CASES = ((1.0, 0), (0.5, 128), (0.0235, 7), (3.7e-3, 255), (117.3, 64), (2.0**-20, 1), (1 / 255, 0))
"""Scales and zero points."""


def inputs(scale: float) -> np.ndarray:
    """float32 whose products land in and around 0..255, on ties, near ties and far beyond."""
    rng = np.random.default_rng(11)
    steps = np.arange(-300, 300, 0.5, np.float32) * np.float32(scale)
    near = np.concatenate([steps, np.nextafter(steps, np.float32(9)), np.nextafter(steps, -steps)])
    spread = rng.normal(size=500).astype(np.float32) * np.float32(100 * scale)
    small = np.float32([0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 1e-30])
    large = np.float32([1e6, -1e6, 1e8, -1e8]) * np.float32(scale)
    return np.concatenate([near, spread, small, large]).astype(np.float32)


def quantised(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """uint8 of float32 `x` by PyTorch."""
    import torch

    scale = np.float32(scale)
    made = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), float(scale), zero_point, 0, 255
    )
    # Back from (q - zero_point) * scale, which a float32 tells apart for all q.
    return (np.rint(made.numpy() / scale) + zero_point).astype(np.uint8)


def main() -> None:
    """Writes the file."""
    arrays = {}
    for number, (scale, zero_point) in enumerate(CASES):
        x = inputs(scale)
        arrays[f"x_{number}"] = x
        arrays[f"scale_{number}"] = np.float32(scale)
        arrays[f"zero_point_{number}"] = np.int64(zero_point)
        arrays[f"y_{number}"] = quantised(x, scale, zero_point)
    np.savez_compressed(VECTORS, **arrays)


if __name__ == "__main__":
    main()
