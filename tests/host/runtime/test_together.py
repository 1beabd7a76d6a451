"""Two models at once, each on cores of its own; a core that stops is reset alone."""

from unittest.mock import patch

import numpy as np
import pytest

from halfdome.hdl.commands import Status
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.driver.device import Device
from halfdome.host.driver.errors import CommandError
from halfdome.host.runtime.deployment import Deployment, run_together
from halfdome.host.runtime.transfers import Transfers
from tests.host.compiler.test_cores import product
from tests.host.golden_platform import GoldenPlatform
from tests.host.networks import residual
from tests.host.recommenders import Recommender, check_responses

QUAD = PRESETS["tiny"].replace(cores=4, counters=32)


@pytest.fixture
def platform():
    return GoldenPlatform(QUAD, 1, seed=5, patience_cycles=20_000)


def served(platform, graph, cores):
    program = compile(graph, QUAD, cores=cores, in_flight=2)
    return Deployment(platform.session, platform.accelerators, program, lambda: 0)


def images(graph, count):
    rng = np.random.default_rng(3)
    return [{"x": rng.integers(0, 256, graph.inputs[0].shape, np.uint8)} for _ in range(count)]


@pytest.fixture
def two(platform):
    """A recommender on two cores, a vision model on two others, and requests for each."""
    bags, vision = Recommender(7), residual(6, 8, 1, kernel=3)
    jobs = [
        (served(platform, bags.graph, (0, 1)), [bags.request() for _ in range(3)]),
        (served(platform, vision, (2, 3)), images(vision, 4)),
    ]
    return jobs, (bags.graph, vision)


def check(jobs, graphs, outcomes):
    for (_, requests), graph, responses in zip(jobs, graphs, outcomes, strict=True):
        check_responses(graph, requests, responses, Transfers())


def test_two_models_answer_at_once(platform, two):
    jobs, graphs = two
    check(jobs, graphs, run_together(jobs))
    assert all(not deployment.incidents for deployment, _ in jobs)
    cores = [raw[1] for raw in platform.bus.cards[0].executed[-40:]]
    assert {core < 2 for core in cores} == {True, False}


def test_a_command_that_fails_reaches_no_other_model(platform, two):
    """An index beyond its table: the request cannot be answered, all others are."""
    jobs, graphs = two
    golden = type(platform.bus.cards[0].golden)
    with patch.object(golden, "_gather", lambda *_: (Status.BAD_INDEX, 1)):
        failed, right = run_together(jobs)
    assert isinstance(failed, CommandError)
    check(jobs[1:], graphs[1:], [right])
    assert jobs[1][0].incidents == []
    check(jobs, graphs, run_together(jobs))


def test_a_core_that_stops_is_reset_beside_the_others(platform, two):
    jobs, graphs = two
    card, reset = platform.bus.cards[0], []
    original = Device.reset_core

    def noted(device, core):
        reset.append(core)
        original(device, core)

    card.stuck.add(1)
    with patch.object(Device, "reset_core", noted), patch.object(Device, "reset") as whole:
        check(jobs, graphs, run_together(jobs))
    assert reset == [1]
    whole.assert_not_called()
    assert jobs[0][0].incidents
    check(jobs, graphs, run_together(jobs))


def priorities(platform):
    """What the card was told of each core."""
    return [platform.accelerators[0].device.read("SQ_PRIORITY", core) for core in range(4)]


def test_the_cores_of_one_go_first(platform, two):
    """Also after a reset of the card, and until another deployment has them."""
    jobs, graphs = two
    assert priorities(platform) == [0, 0, 0, 0]
    jobs[1][0].priority = 1
    check(jobs, graphs, run_together(jobs))
    assert priorities(platform) == [0, 0, 1, 1]
    platform.bus.cards[0].stuck.add(1)
    with patch.object(Device, "reset_core"):  # does not help
        check(jobs, graphs, run_together(jobs))
    assert "card 0 reset" in jobs[0][0].incidents[0].action
    check(jobs, graphs, run_together(jobs))
    assert priorities(platform) == [0, 0, 1, 1]
    jobs[1][0].release()
    assert served(platform, graphs[1], (1, 2)).priority == 0
    assert priorities(platform) == [0, 0, 0, 1]


def test_the_host_hands_over_what_goes_first_before_the_rest(platform, two):
    jobs, graphs = two
    jobs[1][0].priority = 1
    begun, run = [], Deployment._running_of

    def noted(deployment, *rest):
        begun.append(deployment)
        return run(deployment, *rest)

    with patch.object(Deployment, "_running_of", noted):
        check(jobs, graphs, run_together(jobs))
    assert begun == [jobs[1][0], jobs[0][0]]


@pytest.mark.parametrize("priority", [-1, 2, 0.5, True, "high"])
def test_a_priority_that_does_not_exist_is_refused(platform, priority):
    program = compile(product(4, 8, 8), QUAD, cores=(0,), in_flight=2)
    cards, owned = platform.accelerators, platform.owned()
    with pytest.raises(ValueError, match=f"priority={priority!r}: must be an integer from 0 to 1"):
        Deployment(platform.session, cards, program, lambda: 0, priority=priority)
    assert platform.owned() == owned
    deployment = Deployment(platform.session, cards, program, lambda: 0)
    with pytest.raises(ValueError, match=f"priority={priority!r}"):
        deployment.priority = priority
    assert deployment.priority == 0


def test_what_cannot_run_together_is_refused(platform):
    graph = product(4, 8, 8)
    one, two = served(platform, graph, (0, 1)), served(platform, graph, (1, 2))
    with pytest.raises(ValueError, match="two deployments have core 1"):
        run_together([(one, []), (two, [])])
    with pytest.raises(ValueError, match="named twice"):
        run_together([(one, []), (one, [])])
    other = served(GoldenPlatform(QUAD, 1), graph, (3,))
    with pytest.raises(ValueError, match="different platforms"):
        run_together([(one, []), (other, [])])
    assert run_together([]) == []
