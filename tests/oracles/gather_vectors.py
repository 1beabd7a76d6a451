"""Makes `gather_vectors.npz`: pooled rows as PyTorch's quantised embedding-bag operators give them.

Run as `python -m tests.oracles.gather_vectors` with torch 2.13 installed. Case `i` has the keys
`table_i`, `indices_i`, `lengths_i`, `weights_i` (empty if unweighted), `dim_i`, `bits_i`, and the
operator's answer `pooled_i`.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_suffix(".npz")
SEED = 20240607


def torch_embedding_bag(table, indices, lengths, bits, weights=None) -> np.ndarray:
    """float32[bags, dim] from `torch.ops.quantized.embedding_bag_*_rowwise_offsets`."""
    import torch

    operators = torch.ops.quantized
    operator = {
        8: operators.embedding_bag_byte_rowwise_offsets,
        4: operators.embedding_bag_4bit_rowwise_offsets,
    }[bits]
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    pooled = operator(
        torch.from_numpy(table),
        torch.from_numpy(np.asarray(indices, np.int64)),
        torch.from_numpy(offsets),
        per_sample_weights=None if weights is None else torch.from_numpy(weights),
    )
    return pooled.numpy()


def torch_float_bags(
    table, indices, offsets, *, weights=None, mode="sum", padding=None, last=False
) -> np.ndarray:
    """`torch.nn.functional.embedding_bag` of float rows, in the dtype of `table`."""
    import torch

    return torch.nn.functional.embedding_bag(
        torch.from_numpy(np.asarray(indices, np.int64)),
        torch.from_numpy(table),
        torch.from_numpy(np.asarray(offsets, np.int64)),
        mode=mode,
        per_sample_weights=None if weights is None else torch.from_numpy(weights),
        padding_idx=padding,
        include_last_offset=last,
    ).numpy()


def random_case(rng: np.random.Generator, dim: int, bits: int, weighted: bool, special: bool):
    """One case; `special` mixes zeros, subnormals, infinities and NaN into scales and biases."""
    rows = 24
    lengths = rng.integers(0, 9, 7)
    lengths[rng.integers(7)] = 0
    count = lengths.sum()
    real = np.float32 if bits == 8 else np.float16
    factors = (rng.standard_normal((rows, 2)) * 10.0 ** rng.integers(-3, 4, (rows, 1))).astype(real)
    if special:
        odd = [0.0, -0.0, np.finfo(real).smallest_subnormal, np.finfo(real).max, np.inf, np.nan]
        factors = np.where(
            rng.random((rows, 2)) < 0.1, rng.choice(np.array(odd, real), (rows, 2)), factors
        )
    data = rng.integers(0, 256, (rows, dim if bits == 8 else dim // 2), np.uint8)
    table = np.hstack([data, factors.view(np.uint8)])
    weights = rng.standard_normal(count).astype(np.float32) if weighted else None
    return table, rng.integers(0, rows, count).astype(np.int32), lengths, weights


def main() -> None:
    """Writes the vectors."""
    rng = np.random.default_rng(SEED)
    arrays = {}
    for number in range(16):
        bits, weighted, special = 8 >> (number & 1), bool(number & 2), bool(number & 4)
        dim = int(rng.integers(1, 20)) * (1 if bits == 8 else 2)
        table, indices, lengths, weights = random_case(rng, dim, bits, weighted, special)
        case = {
            "table": table,
            "indices": indices,
            "lengths": lengths,
            "weights": np.zeros(0, np.float32) if weights is None else weights,
            "dim": dim,
            "bits": bits,
            "pooled": torch_embedding_bag(table, indices, lengths, bits, weights),
        }
        arrays |= {f"{name}_{number}": value for name, value in case.items()}
    np.savez_compressed(PATH, **arrays)


if __name__ == "__main__":
    main()
