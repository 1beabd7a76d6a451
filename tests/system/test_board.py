"""A pico's RTL behind two wires and a serial port: the driver above it computes what is right."""

import numpy as np
import pytest

from halfdome.hdl.commands import Engine
from halfdome.host import platform
from halfdome.host.driver.errors import CommandError
from tests.system.simulated_board import simulated_board

pytest.importorskip("serial")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("noise", [0.0, 3e-4])
def test_products_come_over_the_wires_bit_for_bit_whatever_the_noise(noise):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (5, 12), np.uint8)
    weight = rng.integers(-128, 128, (3, 12), np.int8)
    image = rng.integers(0, 256, (5, 4, 3), np.uint8)
    kernel = rng.integers(-128, 128, (2, 3, 3, 3), np.int8)
    with simulated_board(noise) as (port, wires):
        # A first time compiles the board before it answers.
        with platform.open(board=port, answer_seconds=2 if noise else 60) as runtime:
            card, reference = runtime.cards[0], runtime.reference
            for product in (
                lambda it: it.linear(x, weight, 1e-2, y_zero_point=9, relu=True),
                lambda it: it.conv2d(image, kernel, 1e-2, pads=(1, 1, 1, 1)),
            ):
                np.testing.assert_array_equal(product(card), product(reference))
    assert bool(wires.wrong) == bool(noise)


def test_a_board_that_is_opened_again_is_as_after_power_on():
    x, weight = np.ones((2, 4), np.uint8), np.ones((1, 4), np.int8)
    with simulated_board() as (port, _):
        for _ in range(3):
            with platform.open(board=port, answer_seconds=60) as runtime:
                assert runtime.cards[0].linear(x, weight, 1.0).tolist() == [[4], [4]]


def test_a_board_with_a_gather_engine_pools_and_refuses_products():
    rng = np.random.default_rng(2)
    table = rng.standard_normal((20, 9)).astype(np.float32)
    indices, offsets = rng.integers(0, 20, 12), [0, 5, 5, 9]
    with simulated_board(engine=Engine.GATHER) as (port, _):
        with platform.open(board=port, answer_seconds=60) as runtime:
            card, reference = runtime.cards[0], runtime.reference
            ours, theirs = (
                it.embedding_bag(
                    table.astype(np.float16), indices, offsets, mode="mean", dtype=np.float16
                )
                for it in (card, reference)
            )
            np.testing.assert_array_equal(ours, theirs)
            with pytest.raises(CommandError, match="BAD_OPCODE: the card has no matmul"):
                card.linear(np.ones((2, 4), np.uint8), np.ones((1, 4), np.int8), 1.0)
