"""How fast each engine simulates: cycles of wall time and their ratios, all from one run."""

import os
import time
from collections.abc import Callable

import numpy as np

from halfdome.hdl.config import CardConfig
from halfdome.host.bench import dlrm as dlrm_bench
from halfdome.host.models import dlrm, movielens
from halfdome.host.models.quantise import request
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.serving.deploy import deploy

BARS = {"native_over_pysim": 300.0, "native_over_bare": 0.8, "six_over_one": 1.7}
"""The least that each ratio should be on the `default` configuration and two processors."""
CARDS = 6
PYSIM_SHAPE = (2, 16, 16)
NATIVE_SHAPE = (256, 256, 256)
"""M, K, N of a product: long enough to time on its engine, short enough to wait for."""
BATCH = 128
"""Samples of the DLRM batch each card answers in a round, where the data set is installed."""
ROUNDS = 3
"""Rounds of native measurements; the fastest counts, since other programs only slow one down."""

Work = Callable[[Runtime], Callable[[], object]]
"""Prepares a runtime; what it returns is timed."""


def _product(shape: tuple[int, int, int]) -> Work:
    m, k, n = shape
    rng = np.random.default_rng(dlrm_bench.SEED)
    x = rng.integers(0, 256, (m, k)).astype(np.uint8)
    weight = rng.integers(-128, 128, (n, k)).astype(np.int8)

    def prepare(runtime: Runtime) -> Callable[[], object]:
        def work() -> None:
            for card in runtime.cards:
                card.linear(x, weight, 0.001)

        return work

    return prepare


def batches(config: CardConfig) -> Work | None:
    """One batch for each card; None without the data set or where a card cannot hold the model."""
    try:
        movielens.find()
    except movielens.DataError:
        return None
    work = dlrm_bench.workload(None, dlrm.WEIGHTS, BATCH, BATCH)
    try:
        dlrm_bench.check_design(work, config, cards=1, engine="native")
    except (ValueError, MemoryError):
        return None

    def prepare(runtime: Runtime) -> Callable[[], object]:
        served = deploy(runtime, work.graph)
        requests = [request(batch) for batch in work.batches] * len(runtime.cards)
        return lambda: served.run(requests)

    return prepare


def _speed(runtime: Runtime, work: Callable[[], object]) -> tuple[float, float]:
    """Card cycles of all cards per second of wall time, and those seconds."""
    first, start = runtime.cycles, time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return (runtime.cycles - first) * len(runtime.cards) / seconds, seconds


def _where(runtime: Runtime, work: Callable[[], object]) -> dict[str, float]:
    """Shares of the wall time of one card's work, measured with clocks around each part."""
    world = runtime.platform.world
    world.measure_time()
    _, seconds = _speed(runtime, work)
    world.measure_time(False)
    spent = world.time_spent()
    evaluation, around = spent["evaluation_seconds"], spent["dram_and_link_seconds"]
    return {
        "evaluation_share": evaluation / seconds,
        "dram_and_link_share": around / seconds,
        "fabric_share": (spent["run_seconds"] - evaluation - around) / seconds,
        "python_share": 1 - spent["run_seconds"] / seconds,
    }


def compare(config: CardConfig) -> dict:
    """Card cycles simulated per second of wall time; opening left out.

    pysim works on a small product; the native engine on a DLRM batch for each card if data set and
    configuration allow it, else on products, one card after the other. *Bare* is the same compiled
    card in a C++ loop, its inputs tied to 0. Rounds of bare, one and six cards alternate.

    Six cards wait for each other every few cycles: a processor that other programs keep busy costs
    them more than its share. Hence the load average before the run is part of the result.
    """
    load = os.getloadavg()[0]
    work = batches(config)
    native = work or _product(NATIVE_SHAPE)
    with open(cards=1, config=config, engine="pysim") as runtime:
        pysim, _ = _speed(runtime, _product(PYSIM_SHAPE)(runtime))
    bare = one = six = 0.0
    with (
        open(cards=1, config=config) as single,
        open(cards=CARDS, config=config) as platform,
    ):
        on_one, on_six = native(single), native(platform)
        for _ in range(ROUNDS):
            cycles = single.cycles
            speed, _ = _speed(single, on_one)
            one = max(one, speed)
            bare = max(bare, single.platform.bare_cycles_per_second(single.cycles - cycles))
            six = max(six, _speed(platform, on_six)[0])
        where = _where(single, on_one)
    return {
        **stamp(config, dlrm_bench.SEED),
        "processors": len(os.sched_getaffinity(0)),
        "load_average_before": load,
        "native_work": "dlrm" if work else "matmul",
        "pysim_cycles_per_second": pysim,
        "native_cycles_per_second": one,
        "native_six_cards_cycles_per_second": six,
        "bare_cycles_per_second": bare,
        "native_over_pysim": one / pysim,
        "native_over_bare": one / bare,
        "six_over_one": six / one,
        "bars": BARS,
        **where,
    }
