"""Makes quantise_rows.npz: tables and their fused rows, as PyTorch's prepack operators pack them.

Run with `python -m tests.oracles.quantise_rows`; needs torch.
"""

from pathlib import Path

import numpy as np

VECTORS = Path(__file__).with_suffix(".npz")


def tables() -> list[np.ndarray]:
    """Random tables of many widths and magnitudes; constant, zero and one-signed rows in each."""
    rng = np.random.default_rng(7)
    made = []
    for dim in (2, 4, 6, 16, 32, 34, 64):
        for magnitude in (1e-30, 1e-7, 1e-3, 1.0, 300.0):
            table = (rng.normal(size=(9, dim)) * magnitude).astype(np.float32)
            table[0] = 0
            table[1] = magnitude / 3  # not a float16: the 4-bit bias is off, perhaps above it
            table[2] = -magnitude / 7
            table[3, 0] = 3 * magnitude
            table[4] = np.abs(table[4])
            table[5] = -np.abs(table[5])
            made.append(table)
    return made


def packed(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8-bit and the 4-bit rows that PyTorch makes of float32[rows, dim], dim even."""
    import torch

    source = torch.from_numpy(table)
    return (
        torch.ops.quantized.embedding_bag_byte_prepack(source).numpy(),
        torch.ops.quantized.embedding_bag_4bit_prepack(source).numpy(),
    )


def main() -> None:
    """Writes the file."""
    arrays = {}
    for number, table in enumerate(tables()):
        arrays[f"table_{number}"] = table
        arrays[f"rows8_{number}"], arrays[f"rows4_{number}"] = packed(table)
    np.savez_compressed(VECTORS, **arrays)


if __name__ == "__main__":
    main()
