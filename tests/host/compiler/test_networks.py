"""Whatever a network is made of, cards compute the bits of its graph."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.operands import decoded
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from tests.host.networks import Network
from tests.host.recommenders import check_served

TINY, DEFAULT = PRESETS["tiny"], PRESETS["default"]
SHALLOW = DEFAULT.replace(accumulator_rows=1024)  # holds more tiles of outputs than a line has


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(1, 3), config=st.sampled_from([TINY, DEFAULT]),
    requests=st.integers(1, 3),
)  # fmt: skip
def test_any_network_has_the_bits_of_its_graph(seed, cards, config, requests):
    made = Network(seed)
    try:
        check_served(
            made.graph, [made.request() for _ in range(requests)], config, cards=cards, seed=seed
        )
    except MemoryError:
        assert config is TINY
    except GraphError as error:
        if not re.search("order of columns|does not become", str(error)):
            raise


def test_groups_with_more_outputs_than_inputs_are_convolved_in_blocks():
    rng, channels = np.random.default_rng(2), 2 * DEFAULT.bus_bytes
    constants = {
        "w": rng.integers(-128, 128, (2 * channels, 2, 2, 1)).astype(np.int8),
        "b": rng.integers(-100, 100, 2 * channels).astype(np.int32),
        "m": rng.random(2 * channels).astype(np.float32),
    }
    node = Node("conv2d", ("x", *constants), "y", {"groups": channels})
    inputs = [Value("x", (1, 3, 3, channels), ElementFormat.UINT8, zero_point=7)]
    request = {"x": rng.integers(0, 256, (1, 3, 3, channels)).astype(np.uint8)}
    check_served(Graph(inputs, ["y"], [node], constants), [request], DEFAULT)


@given(
    seed=st.integers(0, 1 << 30), log_each=st.integers(1, 4), groups=st.integers(2, 9),
    config=st.sampled_from([TINY, DEFAULT, SHALLOW]),
)  # fmt: skip
def test_groups_that_divide_a_tile_are_one_command(seed, log_each, groups, config):
    rng, each = np.random.default_rng(seed), 1 << log_each
    channels = groups * each
    kind, pads = [(np.int8, (0, 1, 1, 0)), (np.uint8, (0, 0, 0, 0))][seed % 2]
    ends = np.iinfo(kind)
    constants = {
        "w": rng.integers(ends.min, ends.max, (channels, 2, 3, each), kind, endpoint=True),
        "b": rng.integers(-100, 100, channels).astype(np.int32),
        "m": (rng.random(channels) / 99).astype(np.float32),
    }
    attributes = {"groups": groups, "pads": pads, "weight_zero_point": int(rng.integers(0, 99))}
    node = Node("conv2d", ("x", *constants), "y", attributes)
    inputs = [Value("x", (1, 3, 5, channels), ElementFormat.UINT8, zero_point=7)]
    graph = Graph(inputs, ["y"], [node], constants)
    request = {"x": rng.integers(0, 256, (1, 3, 5, channels)).astype(np.uint8)}
    program = check_served(graph, [request], config)
    if config.array_rows % each == 0:
        work = decoded(program.parts[0])
        flags = [command.values["flags"] for command in work if command.opcode is Opcode.CONV2D]
        assert [each & Flag.DIAGONAL for each in flags] == [Flag.DIAGONAL]


@given(
    scale=st.sampled_from([1 + 2.0**-23, 2 - 2.0**-23]) | st.floats(1, 2, width=32),
    power=st.integers(-126, 116), kind=st.sampled_from([ElementFormat.UINT8, ElementFormat.INT8]),
    zero_point=st.integers(0, 127),
)  # fmt: skip
def test_what_is_quantised_is_divided_and_rounded_once_at_ties_and_beyond(
    scale, power, kind, zero_point
):
    scale = np.float32(scale * 2.0**power)
    ties = (np.arange(-300, 300) + np.float32(0.5)) * scale
    beside = [np.nextafter(ties, np.float32(side * np.inf)) for side in (-1, 1)]
    limits = np.finfo(np.float32)
    ends = [0, -0.0, limits.tiny, limits.max, limits.min, 1e30, -1e30, limits.tiny / 2]
    x = np.concatenate([ties, *beside, np.array(ends, np.float32)]).reshape(8, -1)
    attributes = {"scale": float(scale), "format": kind, "zero_point": zero_point}
    node = Node("quantise", ("x",), "y", attributes)
    inputs = [Value("x", x.shape, ElementFormat.FLOAT32)]
    check_served(Graph(inputs, ["y"], [node], {}), [{"x": x.astype(np.float32)}], TINY)
