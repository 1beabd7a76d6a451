"""What operators cost on the tiny card, to the cycle: golden counts in `tests/cycles/`."""

import numpy as np
import pytest

from halfdome.hdl.registers import ACTIVITIES
from halfdome.host.graph.fused_rows import fuse_8bit

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


GRID = [(1, 4, 4), (1, 64, 16), (16, 16, 16), (7, 13, 9), (64, 32, 8)] + [
    (m, k, n) for m in (1, 5, 33) for k in (3, 70) for n in (1, 9, 40)
]


@pytest.mark.parametrize(("m", "k", "n"), GRID)
def test_matmul_takes_the_recorded_cycles(card, measure, m, k, n):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (m, k), np.uint8)
    weight = rng.integers(-128, 128, (n, k), np.int8)
    measure(f"matmul m={m} k={k} n={n}", "matmul", lambda: card.linear(x, weight, 0.01))


@pytest.mark.parametrize("transposed", [False, True])
def test_batch_matmul_takes_the_recorded_cycles(card, measure, transposed):
    rng = np.random.default_rng(1)
    x, w = rng.integers(0, 256, (4, 9, 12), np.uint8), rng.integers(0, 256, (4, 12, 12), np.uint8)
    name = "batch_matmul transposed" if transposed else "batch_matmul"
    measure(name, "matmul", lambda: card.matmul(x, w, 0.01, transposed=transposed))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4096), (33, 40)])
def test_lookup_takes_the_recorded_cycles(card, measure, rows, columns):
    rng = np.random.default_rng(1)
    x, table = rng.integers(0, 256, (rows, columns), np.uint8), rng.integers(0, 256, 256, np.uint8)
    measure(f"lookup rows={rows} columns={columns}", "vector", lambda: card.lookup(x, table))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4096), (33, 40)])
@pytest.mark.parametrize(("op", "factors"), [("add", (0.5, 0.5)), ("multiply", (0.01,))])
def test_quantised_pairs_take_the_recorded_cycles(card, measure, op, factors, rows, columns):
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (rows, columns), np.uint8) for _ in "ab")
    call = getattr(card, f"{op}_quantised")
    name = f"{op}_quantised rows={rows} columns={columns}"
    measure(name, "vector", lambda: call(a, b, *factors))


def test_quantise_linear_takes_the_recorded_cycles(card, measure):
    x = np.random.default_rng(1).normal(size=(33, 40)).astype(np.float32)
    measure("quantise_linear", "vector", lambda: card.quantise_linear(x, 0.1))


@pytest.mark.parametrize("k", [3, 40])
def test_max_pool_takes_the_recorded_cycles(card, measure, k):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (12, 12, k), np.uint8)
    call = {"kernel": 3, "stride": 2, "pads": 1}
    measure(f"max_pool k={k}", "vector", lambda: card.max_pool(x, **call))


@pytest.mark.parametrize("k", [3, 40])
def test_average_pool_takes_the_recorded_cycles(card, measure, k):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (12, 12, k), np.uint8)
    call = {"kernel": 3, "x_scale": 0.1, "y_scale": 0.07, "stride": 2, "pads": 1}
    measure(f"average_pool k={k}", "vector", lambda: card.average_pool(x, **call))


@pytest.mark.parametrize("k", [3, 40])
def test_depthwise_takes_the_recorded_cycles(card, measure, k):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (12, 12, k), np.uint8)
    weight = rng.integers(-128, 128, (k, 3, 3, 1), np.int8)
    options = {"pads": 1, "groups": k}
    measure(f"depthwise k={k}", "vector", lambda: card.conv2d(x, weight, 0.01, **options))


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (100, 3)])
def test_transpose_takes_the_recorded_cycles(card, measure, shape):
    x = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    name = "x".join(map(str, shape))
    measure(f"transpose {name}", "load", lambda: card.transpose(x))


@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d_takes_the_recorded_cycles(card, measure, groups):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (6, 5, 8), np.uint8)
    weight = rng.integers(-128, 128, (8, 3, 3, 8 // groups), np.int8)
    options = {"pads": (1, 1, 1, 1), "groups": groups}
    measure(f"conv2d groups={groups}", "matmul", lambda: card.conv2d(x, weight, 0.01, **options))
