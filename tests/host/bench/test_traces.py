"""Synthesised traces have the reuse that was published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.bench.traces import REUSE, production, reuse_counts, uniform

UNIQUE_ROWS = (0.473, 0.152, 0.139, 0.112, 0.072, 0.032, 0.011, 0.005, 0.002, 0.001)
"""Share of the rows met that fall in each range, in the same source; not used to make traces."""


def share(counts, low, weights):
    """What part of `weights` falls to rows looked up more than `low`, up to `2 low`, times."""
    inside = (counts > low) & (counts <= max(1, 2 * low))
    return weights[inside].sum() / weights.sum()


@pytest.mark.parametrize("accesses", [5_000, 100_000, 2_000_000])
def test_a_trace_has_the_published_shares(accesses):
    counts = reuse_counts(np.random.default_rng(1), accesses)
    for low, published in REUSE:
        # What is too little for one row of the range above came down, and went down from here.
        moved = 2 * low / accesses
        assert share(counts, low, counts) == pytest.approx(published, abs=moved + 0.003)
    for (low, _), published in zip(REUSE, UNIQUE_ROWS, strict=False):
        assert share(counts, low, np.ones_like(counts)) == pytest.approx(published, abs=0.01)
    assert counts.sum() / len(counts) == pytest.approx(6.9, rel=0.02)


@given(accesses=st.integers(0, 3000), seed=st.integers(0, 100))
def test_every_access_goes_to_some_row(accesses, seed):
    counts = reuse_counts(np.random.default_rng(seed), accesses)
    assert counts.sum() == accesses
    assert (counts > 0).all()


def test_a_trace_looks_its_rows_up_as_often_as_drawn():
    trace = production(np.random.default_rng(3), 100_000, 20_000)
    assert trace.dtype == np.int32
    assert 0 <= trace.min() <= trace.max() < 100_000
    _, counts = np.unique(trace, return_counts=True)
    drawn = reuse_counts(np.random.default_rng(3), 20_000)
    assert sorted(counts) == sorted(drawn)
    # Hot rows are scattered over table and time.
    hottest = trace == np.bincount(trace).argmax()
    assert abs(np.flatnonzero(hottest).mean() - 10_000) < 1_000


def test_a_table_too_small_for_the_trace_is_refused():
    with pytest.raises(ValueError, match="rows=50: a trace of 1000 accesses meets 1"):
        production(np.random.default_rng(0), 50, 1000)


def test_uniform_lookups_favour_no_row():
    counts = np.bincount(uniform(np.random.default_rng(0), 50, 100_000), minlength=50)
    assert len(counts) == 50
    assert counts.min() > 1_700
    assert counts.max() < 2_300
