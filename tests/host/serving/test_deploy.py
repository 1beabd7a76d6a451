"""Models are compiled for the cards that serve them, and programs served by cards they are for."""

from types import SimpleNamespace

import numpy as np
import pytest

from halfdome.hdl.config import preset
from halfdome.host.compiler.compile import compile
from halfdome.host.runtime.placement import Before
from halfdome.host.runtime.program import ProgramError
from halfdome.host.runtime.transfers import Transfers
from halfdome.host.serving.deploy import _kept, deploy
from tests.host.golden_platform import GoldenPlatform
from tests.host.recommenders import Recommender, check_responses

TINY = preset("tiny")


def runtime(cards):
    """As much of a runtime as a deployment needs."""
    platform = GoldenPlatform(TINY, cards)
    return SimpleNamespace(
        session=platform.session, accelerators=platform.accelerators, config=TINY,
        platform=SimpleNamespace(cycles=0), owned=platform.owned,
    )  # fmt: skip


@pytest.mark.parametrize("transfers", [None, Transfers(fused=False, command_lists=False)])
def test_a_graph_and_its_program_answer_alike_and_give_all_back(transfers):
    made = Recommender(11)
    requests = [made.request() for _ in range(3)]
    for model in (made.graph, compile(made.graph, TINY, 2, transfers=transfers)):
        opened = runtime(2)
        empty = opened.owned()
        served = deploy(opened, model, transfers if model is made.graph else None)
        assert [card.index for card in served.cards] == [0, 1]
        check_responses(made.graph, requests, served.run(requests), transfers or Transfers())
        served.release()
        assert opened.owned() == empty


def test_a_program_for_other_cards_is_refused_before_any_memory_is_taken():
    graph, opened = Recommender(11).graph, runtime(2)
    empty = opened.owned()
    with pytest.raises(ProgramError, match="the program is for 3 cards, there are 2: compile it"):
        deploy(opened, compile(graph, TINY, 3))
    other = TINY.replace(queue_depth=8)
    with pytest.raises(ProgramError, match=f"for halfdome {other.hash}, card 0 is halfdome"):
        deploy(opened, compile(graph, other, 2))
    assert opened.owned() == empty


def test_tables_stay_on_the_cards_that_hold_them_as_a_whole():
    tables = {
        "on 1": [[0, 0, 9, 0, 8]], "on 2": [[1, 0, 9, 0, 8]], "on 4": [[2, 0, 9, 0, 8]],
        "on 1 and 2": [[0, 0, 4, 0, 8], [1, 4, 9, 0, 8]], "cut": [[2, 0, 9, 0, 4], [0, 0, 9, 4, 8]],
    }  # fmt: skip
    before = Before(SimpleNamespace(about={"tables": tables}), [1, 2, 4])
    assert _kept([1, 4], before) == {0: 0, 2: 1}
    assert _kept([0, 1, 2, 3, 4], before) == {0: 1, 1: 2, 2: 4}
    assert _kept([3], before) == {}


def test_requests_are_laid_out_anew_when_other_cards_take_over():
    """The program for fewer cards has its bags in another order."""
    made = Recommender(3)
    opened = runtime(3)
    served = deploy(opened, made.graph)
    requests = [made.request(made.batch) for _ in range(4)]
    check_responses(made.graph, requests, served.run(requests), Transfers())
    silent, bus = opened.accelerators[0], opened.session.bus
    read = bus.read

    def unanswered(address, nbytes):
        inside = silent.device.bar0 <= address < silent.device.bar2
        return b"\xff" * nbytes if inside else read(address, nbytes)

    started = []

    def progress(rows):
        if not started:
            started.append(rows)
            bus.read = unanswered
            bus.cards[0].actions = lambda: []

    check_responses(made.graph, requests, served.run(requests, progress), Transfers())
    assert [card.index for card in served.cards] == [1, 2]
    assert len(served.incidents) == 1
    assert np.array_equal(served.incidents[0].cards, [0])


def test_a_deployment_that_was_released_or_is_running_says_so():
    made = Recommender(11)
    opened = runtime(2)
    served = deploy(opened, made.graph)
    request = made.request()
    for within in (lambda: served.run([request]), served.release, served.revive):
        with pytest.raises(ValueError, match="the deployment is running: call it when that is"):
            served.run([request] * 2, lambda rows, within=within: within())
        check_responses(made.graph, [request], served.run([request]), Transfers())
    served.release()
    for call in (lambda: served.run([request]), served.revive):
        with pytest.raises(ValueError, match="the deployment was released: deploy the model again"):
            call()


def test_a_callback_may_use_another_deployment():
    made = Recommender(11)
    opened = runtime(2)
    first, second = deploy(opened, made.graph), deploy(opened, made.graph)
    requests, inner = [made.request() for _ in range(3)], []
    found = first.run(requests, lambda rows: inner.extend(second.run(requests[:1])))
    check_responses(made.graph, requests, found, Transfers())
    check_responses(made.graph, requests[:1] * 3, inner, Transfers())


GRAPH = Recommender(11).graph


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deploy(runtime(1), None), "model: is a NoneType, must be a Graph or a Program"),
        (lambda: compile(None, TINY), "graph: is a NoneType, must be a Graph"),
        (lambda: compile(GRAPH, "huge"), "preset 'huge' is unknown"),
        (lambda: compile(GRAPH, TINY, 0), "cards=0: must be an integer from 1 to 12"),
        (lambda: compile(GRAPH, TINY, "a"), "cards='a': must be an integer"),
        (lambda: compile(GRAPH, TINY, in_flight=0), "in_flight=0: must be an integer from 1 to"),
        (lambda: compile(GRAPH, TINY, in_flight=2.5), "in_flight=2.5: must be an integer"),
        (lambda: compile(GRAPH, TINY, transfers=True), "transfers: is a bool, must be Transfers"),
        (lambda: Transfers(fused="no"), "fused='no': must be True or False"),
        (lambda: deploy(runtime(1), GRAPH).run({}), "requests: is a dict, must be a list of"),
        (lambda: deploy(runtime(1), GRAPH).run([None]), "request: is a NoneType, must map names"),
    ],
)
def test_what_is_no_model_or_request_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_preset_may_be_named():
    assert compile(GRAPH, "tiny", 2).design == TINY.hash
