"""Convolutions of each channel by itself: which are the vector engine's, and their bits."""

from dataclasses import replace

import numpy as np
import pytest

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import BODIES, HEADER, unpack
from halfdome.host.compiler import costs
from halfdome.host.driver.kernels import Window
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from tests.host.recommenders import check_served

TINY, DEFAULT = PRESETS["tiny"], PRESETS["default"]
CHANNELS = 70


def served(kernel, *, weight=None, each=1, raw=False, **attributes):
    """Descriptors of such a convolution of an image, which had the bits of the graph."""
    rng, n = np.random.default_rng(sum(kernel)), CHANNELS * each
    if weight is None:
        weight = rng.integers(-128, 128, (n, *kernel, 1)).astype(np.int8)
    constants = {"w": weight}
    if not raw:
        constants["b"] = rng.integers(-100, 100, n).astype(np.int32)
        constants["m"] = rng.random(n).astype(np.float32) * 0.01
    attributes |= {"format": ElementFormat.INT32} if raw else {"zero_point": 3}
    node = Node("conv2d", ("x", *constants), "y", {"groups": CHANNELS, **attributes})
    inputs = [Value("x", (1, 9, 9, CHANNELS), ElementFormat.UINT8, zero_point=7)]
    request = {"x": rng.integers(0, 256, (1, 9, 9, CHANNELS)).astype(np.uint8)}
    part = check_served(Graph(inputs, ["y"], [node], constants), [request], TINY).parts[0]
    raws = [bytes(row) for row in part.code["descriptors"][: len(part)]]
    return [(Opcode(row[0]), unpack(HEADER + BODIES[Opcode(row[0])], row)) for row in raws]


def opcodes(found):
    return {opcode for opcode, _ in found} - {Opcode.LOAD, Opcode.STORE}


@pytest.mark.parametrize(
    "about",
    [
        {"kernel": (3, 3), "pads": (1, 1, 1, 1)},
        {"kernel": (5, 5), "stride": (2, 2), "pads": (1, 2, 2, 2), "relu": True},
        {"kernel": (8, 8)},
        {"kernel": (3, 2), "dilation": (2, 3), "weight_zero_point": -4},
    ],
)
def test_a_command_has_all_channels(about):
    found = served(**about)
    assert opcodes(found) == {Opcode.DEPTHWISE}
    assert {values["k"] for _, values in found if "k" in values} == {CHANNELS}


def test_weights_that_are_one_are_not_read():
    ones = np.full((CHANNELS, 9, 9, 1), 5, np.uint8)
    found = served((9, 9), weight=ones, weight_zero_point=4)
    flags = [values["flags"] for opcode, values in found if opcode is Opcode.DEPTHWISE]
    assert flags
    assert all(each & Flag.ONES for each in flags)


@pytest.mark.parametrize(
    "about",
    [
        {"kernel": (3, 3), "each": 2},
        {"kernel": (3, 3), "raw": True},
        {"kernel": (9, 9)},
        {"kernel": (3, 3), "pads": (3, 0, 0, 0)},
    ],
    ids=["two of each", "sums as they are", "too many taps", "windows that see nothing"],
)
def test_other_convolutions_are_the_arrays(about):
    assert opcodes(served(**about)) == {Opcode.CONV2D}


def test_what_is_written_costs_as_much_as_its_parameters_on_average_over_a_row():
    """Rows of five windows: the upper one sees 4 + 3 * 6 + 4 taps, those below 6 + 3 * 9 + 6."""
    whole = Window((9, 5), 32, 32, (4, 5), (3, 3), (1, 1), (1, 1), (1, 1))
    rows = [max(4 + 3 * 6 + 4, 8 * 5), *3 * [max(6 + 3 * 9 + 6, 8 * 5)]]
    assert costs.sums(DEFAULT, whole, weighted=True) == costs.START_CYCLES + 9 + 8 + sum(rows)
    assert costs.sums(DEFAULT, whole, weighted=False) == costs.START_CYCLES + 8 + sum(rows)
    alone = replace(whole, kernel=(5, 5), pad=(2, 2), k=64, n=64)
    seen = [each * (3 + 4 + 5 + 4 + 3) for each in (3, 4, 5, 5)]
    assert costs.sums(DEFAULT, alone, weighted=False) == costs.START_CYCLES + 16 + 2 * sum(seen)
