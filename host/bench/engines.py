"""How fast each engine simulates, as a ratio in one run."""

import time

import numpy as np

from hdl.config import CardConfig
from host.bench.dlrm import SEED
from host.report.stamp import stamp
from host.runtime.card import Card
from host.runtime.runtime import open

PYSIM_SHAPE = (2, 16, 16)
NATIVE_SHAPE = (256, 256, 256)
"""M, K, N of the product each engine works on: long enough to time, short enough to wait for."""


def _work(card: Card, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    rng = np.random.default_rng(SEED)
    x = rng.integers(0, 256, (m, k)).astype(np.uint8)
    weight = rng.integers(-128, 128, (n, k)).astype(np.int8)
    card.linear(x, weight, 0.001)


def compare(config: CardConfig) -> dict:
    """Card cycles simulated per second of wall time, one card, opening left out."""
    speed = {}
    for engine, shape in (("pysim", PYSIM_SHAPE), ("native", NATIVE_SHAPE)):
        with open(cards=1, config=config, engine=engine) as runtime:
            first, start = runtime.cycles, time.perf_counter()
            _work(runtime.cards[0], shape)
            seconds = time.perf_counter() - start
            speed[engine] = (runtime.cycles - first) / seconds
    return {
        **stamp(config, SEED),
        "pysim_cycles_per_second": speed["pysim"],
        "native_cycles_per_second": speed["native"],
        "native_over_pysim": speed["native"] / speed["pysim"],
    }
