"""How many requests in flight six cards are worth: where more of them answer no faster."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from halfdome.hdl.config import PLATFORM_CARDS, CardConfig
from halfdome.host.bench import dlrm
from halfdome.host.bench.answers import differing, span_cycles
from halfdome.host.models.dlrm import WEIGHTS
from halfdome.host.models.quantise import request as request_of
from halfdome.host.platform import open
from halfdome.host.report.stamp import stamp
from halfdome.host.serving.deploy import deploy

COUNTS = (1, 2, 4, 6, 12, 24, 48)
BATCH = 16
"""Samples of a request: so few that none fills a card."""
REQUESTS = 24
"""Requests that are counted, behind as many as are in flight."""
ENOUGH = 0.98
"""Of the most requests a second, what is as good."""


def measure(
    config: CardConfig, counts: Sequence[int] = COUNTS, *, cards: int = PLATFORM_CARDS,
    engine: str = "timing", data: Path | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> dict:  # fmt: skip
    """The demo with each number of requests in flight; JSON-able.

    `cycles_per_request` is what `REQUESTS` requests add to the time of those that fill the cards;
    `latency_cycles` the median from a request's first command to its last. `saturates_at` is the
    fewest in flight that answer at `ENOUGH` of the best rate.
    """
    work = dlrm.workload(data, WEIGHTS, (max(counts) + REQUESTS) * BATCH, BATCH)
    asked = [request_of(batch) for batch in work.batches]
    rows = []
    with open(cards=cards, config=config, engine=engine) as runtime:
        for count in counts:
            served = deploy(runtime, work.graph, in_flight=count)
            filling = span_cycles(served.run(asked[:count]))
            answers = served.run(asked[: count + REQUESTS])
            served.release()
            rows.append({
                "in_flight": count,
                "cycles_per_request": (span_cycles(answers) - filling) / REQUESTS,
                "latency_cycles": float(np.median([each.latency_cycles for each in answers])),
                "mismatching_values": differing(
                    answers, map(work.graph.run, asked[: count + REQUESTS])
                ),
            })  # fmt: skip
            progress(count)
    best = min(row["cycles_per_request"] for row in rows)
    for row in rows:
        row["of_best_rate"] = best / row["cycles_per_request"]
    enough = min(row["in_flight"] for row in rows if row["of_best_rate"] >= ENOUGH)
    about = {**stamp(config, dlrm.SEED), "engine": engine, "cards": cards, "batch_size": BATCH}
    return about | {"rows": rows, "saturates_at": enough}
