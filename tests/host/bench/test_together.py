"""Two models on cores of their own: right bits, little in each other's way, faults their own."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.config import PRESETS
from halfdome.host.bench import shapes, together
from halfdome.host.driver.errors import CommandError
from halfdome.host.runtime.deployment import run_together
from halfdome.host.runtime.transfers import Transfers
from halfdome.host.serving.deploy import deploy
from tests.host.recommenders import check_responses

FOUR = PRESETS["tiny"].replace(cores=4, counters=32)
MOST = 1.3
"""Times as long as alone that a model may take beside another that wants little of DRAM."""
ROWS = 50


@pytest.fixture
def models():
    """Many short requests, and one that takes about as long as all of them."""
    bags, asked = shapes.recommender(shapes.Recommender((16, 32), (32, 1), 3, 16, 5), 16, ROWS)
    vision, image = shapes.bottlenecks(shapes.Bottleneck(14, 32, 16), images=1)
    return {"bags": (bags, [asked() for _ in range(24)]), "vision": (vision, [image()])}


def test_a_long_request_of_one_keeps_nothing_from_the_other(models):
    """The host hands over what is next of one while it waits for the other."""
    with halfdome.open(cards=1, config=FOUR, engine="timing") as runtime:
        rows = together.measure(runtime, models)
    assert [row["workload"] for row in rows] == ["bags", "vision"]
    assert [row["mismatching_values"] for row in rows] == [0, 0]
    assert all(1 <= row["times_as_long"] <= MOST for row in rows)


@pytest.mark.slow
@pytest.mark.long
def test_hardware_of_four_cores_answers_two_models(models):
    """Interference to the cycle, and an index beyond its table that fails its own request alone."""
    config = PRESETS["quad"]
    with halfdome.open(cards=1, config=config, engine="timing") as runtime:
        expected = together.measure(runtime, models)
    with halfdome.open(cards=1, config=config, engine="native") as runtime:
        assert together.measure(runtime, models) == expected
        (bags, asked), (vision, images) = models.values()
        jobs = [
            (deploy(runtime, bags, cores=(0, 1)), [asked[0], beyond(asked[1])]),
            (deploy(runtime, vision, cores=(2, 3)), images),
        ]
        failed, answers = run_together(jobs)
        assert isinstance(failed, CommandError)
        assert "BAD_INDEX" in str(failed)
        check_responses(vision, images, answers, Transfers())
        jobs[0] = jobs[0][0], asked
        for graph, (_, requests), answers in zip(
            (bags, vision), jobs, run_together(jobs), strict=True
        ):
            check_responses(graph, requests, answers, Transfers())


def beyond(request):
    """The request with indices that are no row's."""
    name = "table 0 indices"
    return {**request, name: np.full_like(request[name], ROWS)}
