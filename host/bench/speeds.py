"""How fast the timing card is: beside hardware, and at what hardware takes too long for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from halfdome.hdl.config import PRESETS, CardConfig
from halfdome.host.bench import dlrm as demo
from halfdome.host.bench import engines, ladder, matmul, shapes
from halfdome.host.compiler.compile import compile as compile_graph
from halfdome.host.frontend.compile import compile
from halfdome.host.graph.graph import Graph
from halfdome.host.models.dlrm import WEIGHTS
from halfdome.host.models.movielens import DataError
from halfdome.host.models.quantise import request
from halfdome.host.platform import Runtime, open
from halfdome.host.runtime.requests import Request
from halfdome.host.serving.deploy import deploy
from halfdome.host.serving.session import InferenceSession

SIDE = 512
"""Of the product in the scratchpad."""
PRODUCT_BAR, DEMO_BAR = 1000.0, 40.0
"""How many times as long as the timing card hardware should take, at the least."""
MODEL_BAR, REQUESTS_BAR = 5.0, 10.0
"""Seconds that a whole model, and that all `REQUESTS`, should take at most."""
REQUESTS, BATCH = 1000, 128
SAMPLES = 10 * BATCH
"""Different samples of the requests."""
RM2_ROWS, RM2_BATCH = 500_000, 256
ROUNDS = 3
"""Of what is short; the fastest counts."""

Repeat = Callable[[], object]


def measure(config: CardConfig) -> dict[str, list[dict]]:
    """A row for each bar: of `compared` on cards of `config`, and of what `timing` does `alone`.

    Seconds are with Python and without opening or compiling; of one batch, picture or run. What is
    compared is in processor seconds of one thread; what is alone as time passes for who waits, on
    as many threads as there are cards and processors.
    """
    return {"compared": compared(config), "alone": [_resnext(), _rm2(), _requests()]}


def compared(config: CardConfig, side: int = SIDE) -> list[dict]:
    """The same work on both engines: a product of `side` in a scratchpad that is large enough,
    whose values `timing` leaves out, and the demo's batches on six cards where the data set is."""

    @contextmanager
    def product(runtime: Runtime) -> Iterator[Repeat]:
        with matmul.near(runtime.cards[0], side) as repeat:
            yield repeat

    roomy = config
    while matmul.near_side(roomy) < side:
        roomy = roomy.replace(scratchpad_bytes=2 * roomy.scratchpad_bytes)
    rows = [_both(f"{side}^3 near", roomy, 1, product, False, PRODUCT_BAR)]
    if batches := engines.batches(config):

        @contextmanager
        def work(runtime: Runtime) -> Iterator[Repeat]:
            yield batches(runtime)

        rows.append(_both("demo, six batches", config, engines.CARDS, work, True, DEMO_BAR))
    return rows


def _both(name: str, config: CardConfig, cards: int, work: Callable, values: bool, bar: float):
    taken = {}
    for engine, computes in (("native", True), ("timing", values)):
        with (
            open(cards=cards, config=config, engine=engine, threads=1, values=computes) as runtime,
            work(runtime) as repeat,
        ):
            taken[engine] = _timed(runtime, repeat, ROUNDS, time.process_time)
    (cycles, native), (modelled, timing) = taken["native"], taken["timing"]
    return {
        "of": name, "cards": cards, "values": values, "native_cycles": cycles,
        "timing_cycles": modelled, "native_seconds": native, "timing_seconds": timing,
        "native_over_timing": native / timing, "bar": bar, "met": native / timing >= bar,
    }  # fmt: skip


def _timed(
    runtime: Runtime, repeat: Repeat, rounds: int, clock: Callable[[], float]
) -> tuple[int, float]:
    """Cycles of all rounds, and the seconds of the fastest; the first time is not counted."""
    repeat()
    first, seconds = runtime.cycles, []
    for _ in range(rounds):
        start = clock()
        repeat()
        seconds.append(clock() - start)
    return runtime.cycles - first, min(seconds)


def _alone(
    name: str, cards: int, taken: tuple[int, float] | None, bar: float, missing: str = ""
) -> dict:
    """A row; without what it took if files are `missing`."""
    cycles, seconds = taken or (None, None)
    return {
        "of": name, "cards": cards, "timing_cycles": cycles, "timing_seconds": seconds, "bar": bar,
        "met": seconds is not None and seconds <= bar, "missing": missing,
    }  # fmt: skip


def _resnext() -> dict:
    """A picture of 224 x 224 on one `default` card."""
    name = "ResNeXt-101"
    rung = ladder.built("resnext101")
    if isinstance(rung, str):
        return _alone(name, 1, None, MODEL_BAR, rung)
    plan = compile(rung.model, calibration=rung.calibration, cards=1)
    with InferenceSession(plan, engine="timing", values=False) as session:
        taken = _timed(
            session.runtime, lambda: session.tensors(rung.inputs[:1]), 1, time.perf_counter
        )
    return _alone(name, 1, taken, MODEL_BAR)


def _rm2() -> dict:
    """A batch on six `m2` cards. Tables exist by their shape."""
    shape = shapes.RECOMMENDERS["RM2"]
    small, draw = shapes.recommender(shape, RM2_BATCH, rows=1)
    tables = {
        name: np.broadcast_to(array, (RM2_ROWS, array.shape[1]))
        for name, array in small.constants.items()
        if name.startswith("table")
    }
    graph = Graph(small.inputs, small.outputs, small.nodes, small.constants | tables)
    rng = np.random.default_rng(demo.SEED)

    def drawn() -> Request:
        count = RM2_BATCH * shape.lookups
        return dict(draw()) | {
            f"{name} indices": rng.integers(0, RM2_ROWS, count, np.int32) for name in tables
        }

    config = PRESETS["m2"]
    program = compile_graph(graph, config, engines.CARDS, values=False)
    with open(cards=engines.CARDS, config=config, engine="timing", values=False) as runtime:
        served = deploy(runtime, program)
        taken = _timed(runtime, lambda: served.run([drawn()]), 1, time.perf_counter)
    return _alone("RM2", engines.CARDS, taken, MODEL_BAR)


def _requests() -> dict:
    """`REQUESTS` of the demo on six `default` cards."""
    name = f"demo, {REQUESTS:,} requests"
    try:
        work = demo.workload(None, WEIGHTS, SAMPLES, BATCH)
    except DataError as error:
        return _alone(name, engines.CARDS, None, REQUESTS_BAR, str(error))
    asked = [request(batch) for batch in work.batches]
    with open(cards=engines.CARDS, engine="timing", values=False) as runtime:
        served = deploy(runtime, work.graph)
        many = [asked[i % len(asked)] for i in range(REQUESTS)]
        served.run(asked)
        first, start = runtime.cycles, time.perf_counter()
        served.run(many)
        taken = runtime.cycles - first, time.perf_counter() - start
    return _alone(name, engines.CARDS, taken, REQUESTS_BAR)
