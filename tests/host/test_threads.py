"""Calls from many threads: right answers, one after the other."""

import logging
import threading

import numpy as np
import pytest

from halfdome.hdl.config import preset
from halfdome.host.bench import faults
from halfdome.host.bench.dlrm import differing
from halfdome.host.compiler.compile import compile
from halfdome.host.runtime.deployment import Deployment
from tests.host.golden_platform import GoldenPlatform

TINY = preset("tiny")


def together(*works):
    """Runs works in threads of their own; what they raised."""
    raised = []

    def run(work):
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_eight_threads_use_cards_and_a_model_at_once():
    platform = GoldenPlatform(TINY, 2)
    empty = platform.owned()
    service = faults.made_up(np.random.default_rng(3), 16)
    served = Deployment(
        platform.session, platform.accelerators,
        lambda numbers, before: compile(service.graph, TINY, len(numbers)), lambda: 0,
    )  # fmt: skip

    def answer():
        for _ in range(2):
            assert differing(served.run(service.requests), service.expected) == 0

    def call(number):
        rng, card = np.random.default_rng(number), platform.cards[number % 2]
        for _ in range(4):
            x = rng.integers(0, 256, (3, 7), np.uint8)
            w = rng.integers(-9, 9, (5, 7)).astype(np.int8)
            with card.tensor(x) as placed, card.linear(placed, w, 0.1) as y:
                np.testing.assert_array_equal(y.numpy(), platform.reference.linear(x, w, 0.1))

    def fail():
        for _ in range(4):
            try:
                platform.cards[0].linear(np.zeros((2, 3), np.uint8), np.zeros((4, 2), np.int8), 1)
            except ValueError:
                continue
            raise AssertionError("accepted")

    works = [answer, answer, fail, *(lambda number=number: call(number) for number in range(5))]
    assert together(*works) == []
    served.release()
    assert platform.owned() == empty


def test_models_come_in_from_threads_at_once():
    """PyTorch exports one module at a time, and nobody's logging is left silent."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from halfdome.host.frontend.torch_export import from_torch

    handlers = list(logging.getLogger().handlers)
    made = {}

    def come_in(size):
        made[size] = from_torch(torch.nn.Linear(size, 2).eval(), [torch.ones(1, size)])

    assert not together(*(lambda size=size: come_in(size) for size in (1, 2)))
    assert {each.rest.graph.input[0].type.tensor_type.shape.dim[1].dim_value
            for each in made.values()} == {1, 2}  # fmt: skip
    assert logging.getLogger().handlers == handlers
