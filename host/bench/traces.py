"""Index traces: which table rows are looked up, and how often the same ones."""

from collections.abc import Callable

import numpy as np

REUSE: tuple[tuple[int, float], ...] = (
    (0, 0.069), (1, 0.044), (2, 0.068), (4, 0.101), (8, 0.121), (16, 0.104), (32, 0.073),
    (64, 0.058), (128, 0.052), (256, 0.050), (512, 0.049), (1024, 0.048), (2048, 0.048),
    (4096, 0.043), (8192, 0.031), (16384, 0.023), (32768, 0.019),
)  # fmt: skip
"""Share of a production trace's accesses that go to rows looked up more than so many times, up to
twice as many (the first: once).

Source: statistics of facebookresearch/dlrm_datasets, 2021 (887 million accesses, mean reuse 6.9).
"""


def reuse_counts(rng: np.random.Generator, accesses: int) -> np.ndarray:
    """How often each row of a trace of so many accesses is looked up, by the shares of `REUSE`.

    int64[rows], summing to `accesses`. What a range has too few accesses for falls to the range
    below: a short trace cannot hold the rows that a long one meets a thousand times.
    """
    shares = np.array([share for _, share in REUSE])
    ends = np.rint(np.cumsum(shares) / shares.sum() * accesses).astype(int)
    counts: list[int] = []
    left = 0
    for (low, _), own in zip(reversed(REUSE), np.diff(ends, prepend=0)[::-1], strict=True):
        left += int(own)
        while left > low:
            # Log-uniform within the range, which gives the published shares of unique rows.
            counts.append(min(left, int(low * 2 ** rng.random()) + 1))
            left -= counts[-1]
    return np.array(counts, np.int64)


def uniform(rng: np.random.Generator, rows: int, accesses: int) -> np.ndarray:
    """int32[accesses]: every row of the table is as likely as any other."""
    return rng.integers(0, rows, accesses, np.int32)


def production(rng: np.random.Generator, rows: int, accesses: int) -> np.ndarray:
    """int32[accesses]: reuse as `reuse_counts`, rows anywhere in the table, in random order.

    Raises `ValueError` for a table with fewer rows than the trace needs.
    """
    counts = reuse_counts(rng, accesses)
    if len(counts) > rows:
        raise ValueError(f"rows={rows}: a trace of {accesses} accesses meets {len(counts)} rows")
    trace = np.repeat(rng.choice(rows, len(counts), replace=False).astype(np.int32), counts)
    rng.shuffle(trace)
    return trace


TRACES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "uniform": uniform,
    "production": production,
}
"""Traces by name: generator, rows of the table and accesses to int32[accesses]."""
