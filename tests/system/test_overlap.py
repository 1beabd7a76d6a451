"""Engines of a card work at the same time, within a request and from one to the next, and so do
cards; and a program knows what it takes."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.report import layers
from halfdome.host.serving.deploy import deploy
from tests.host.networks import residual

pytestmark = pytest.mark.slow  # a model of the card is compiled first

TINY = PRESETS["tiny"]
GRAPH = residual(28, 32, 3)
REQUEST = {"x": np.random.default_rng(1).integers(0, 256, (1, 28, 28, 32)).astype(np.uint8)}


class Whole(HalfdomeTarget):
    """Cards whose commands are not cut."""

    def in_bands(self, commands):
        return list(commands)


@pytest.fixture(scope="module")
def answered():
    """For commands in bands and whole ones the program, the answer to a request alone, and the
    cycles that four take in flight."""
    with halfdome.open(cards=1, config=TINY) as runtime:

        def run(target):
            program = compile(GRAPH, target)
            served = deploy(runtime, program)
            [alone] = served.run([REQUEST])
            spans = np.concatenate([each.spans[0] for each in served.run(4 * [REQUEST])])
            served.release()
            return program, alone, spans[:, 1].max() - spans[:, 0].min()

        return run(HalfdomeTarget(TINY)), run(Whole(TINY))


def array_cycles(program):
    return program.about["busy_cycles"][0][str(int(Engine.MATMUL))]


def test_answers_have_their_bits(answered):
    expected = GRAPH.run(REQUEST)
    for _, alone, _ in answered:
        assert all(np.array_equal(alone.outputs[name], expected[name]) for name in GRAPH.outputs)


def test_sums_of_a_request_run_under_its_products(answered):
    (program, alone, _), (whole_program, whole, _) = answered
    assert alone.latency_cycles < 1.15 * array_cycles(program)
    sums = whole_program.about["busy_cycles"][0][str(int(Engine.VECTOR))]
    assert alone.latency_cycles < whole.latency_cycles - 0.5 * sums


def test_the_array_is_busy_all_the_time_while_requests_are_in_flight(answered):
    (program, _, cycles), _ = answered
    assert cycles < 1.04 * 4 * array_cycles(program)


def test_six_cards_answer_nearly_six_times_as_much(answered):
    """Images and answers share the host's link."""
    (_, alone, _), _ = answered
    graph = residual(28, 32, 3, images=6)
    request = {"x": np.random.default_rng(2).integers(0, 256, (6, 28, 28, 32)).astype(np.uint8)}
    with halfdome.open(cards=6, config=TINY) as runtime:
        [response] = deploy(runtime, compile(graph, TINY, 6)).run([request])
    expected = graph.run(request)
    assert all(np.array_equal(response.outputs[name], expected[name]) for name in graph.outputs)
    assert 5.7 * response.latency_cycles < 6 * alone.latency_cycles


def test_layers_share_the_card_unless_they_are_compiled_apart():
    shared = {}
    with halfdome.open(cards=1, config=TINY) as runtime:
        for apart in (False, True):
            program = compile(GRAPH, TINY, apart=apart)
            served = deploy(runtime, program)
            [response] = served.run([REQUEST])
            served.release()
            found = layers.of(program, TINY, response).layers
            shared[apart] = sum(each.shared_cycles for each in found)
    assert shared[False] > 0
    assert shared[True] == 0


def test_a_program_knows_what_it_takes(answered):
    (program, alone, cycles), _ = answered
    about = program.about
    assert alone.latency_cycles == pytest.approx(about["latency_cycles"], rel=0.03)
    assert cycles == pytest.approx(about["latency_cycles"] + 3 * about["interval_cycles"], rel=0.03)
