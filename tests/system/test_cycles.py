"""What operators cost on the tiny card, to the cycle: golden counts in `tests/cycles/`."""

import numpy as np
import pytest

from hdl.registers import ACTIVITIES
from host.models.fused_rows import fuse_8bit

pytestmark = pytest.mark.slow  # a model of the card is compiled first

ACTIVE = set(ACTIVITIES) - {"idle"}


@pytest.fixture
def card(platform):
    """A card fresh from reset for each test, so that counts do not depend on the tests before."""
    return platform.cards[0]


@pytest.fixture
def measure(platform, card, golden_cycles):
    """Checks what a call costs the platform, and what part of it its engine was at work."""

    def measure(name, engine, call):
        start = platform.cycles
        call()
        taken = platform.cycles - start
        counters = card.counters()
        active = sum(counters[f"core0_{engine}_{activity}_cycles"] for activity in ACTIVE)
        assert 0 < active < taken
        golden_cycles(f"{name} call", taken)
        golden_cycles(f"{name} engine", active)

    return measure


@pytest.mark.parametrize("dim", [4, 64])
@pytest.mark.parametrize("bags", [1, 8])
@pytest.mark.parametrize("pooling", [1, 16])
def test_gather_takes_the_recorded_cycles(card, measure, dim, bags, pooling):
    rng = np.random.default_rng(1)
    rows = card.table(fuse_8bit(rng.normal(size=(256, dim)).astype(np.float32)), preload=True)
    indices = rng.integers(0, 256, bags * pooling)
    offsets = np.arange(0, bags * pooling, pooling)
    measure(
        f"gather dim={dim} bags={bags} pooling={pooling}",
        "gather",
        lambda: card.embedding_bag(rows, indices, offsets),
    )


@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 4, 4), (1, 64, 16), (16, 16, 16), (7, 13, 9), (64, 32, 8)]
)
def test_matmul_takes_the_recorded_cycles(card, measure, m, k, n):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (m, k), np.uint8)
    weight = rng.integers(-128, 128, (n, k), np.int8)
    measure(f"matmul m={m} k={k} n={n}", "matmul", lambda: card.linear(x, weight, 0.01))
