"""Images that do not fit near memory: cut into strips, copied there, with the bits of the whole."""

import re
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compilation import LEAST_IN_FLIGHT, SLOWER
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.operands import decoded
from halfdome.host.compiler.strips import NEAR, best_height, strips
from halfdome.host.driver.kernels import Window
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from tests.host.networks import Network, convolution, residual
from tests.host.recommenders import check_served

TINY, DEFAULT = PRESETS["tiny"], PRESETS["default"]
U8 = ElementFormat.UINT8


@contextmanager
def kept():
    """While strips are kept as they are, whether they pay or not."""
    pays = patch("halfdome.host.compiler.compilation.Compilation._spares", lambda *_: True)
    with pays, patch("halfdome.host.compiler.staging.TRIES", 1):
        yield


class Cut(HalfdomeTarget):
    """Cards without near memory, so far as is known, whose products read strips of any height."""

    def __init__(self, config, seed):
        super().__init__(config)
        self.near_bytes = 0
        self._rng = np.random.default_rng(seed)

    def strip_height(self, window, blocks, row_bytes, slots, alone=False):
        return int(self._rng.integers(0, window.out[0] + 1))


class Whole(HalfdomeTarget):
    """Cards whose products read everything where it lies."""

    def strip_height(self, window, blocks, row_bytes, slots, alone=False):
        return 0


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(1, 2), requests=st.integers(1, 2),
    config=st.sampled_from([TINY.replace(scratchpad_bytes=4096), TINY, DEFAULT]),
)  # fmt: skip
def test_any_network_has_its_bits_however_it_is_cut(seed, cards, requests, config):
    made = Network(seed)
    try:
        with kept():
            check_served(
                made.graph, [made.request() for _ in range(requests)], config, cards=cards,
                seed=seed, target=Cut(config, seed),
            )  # fmt: skip
    except MemoryError:
        assert config is not DEFAULT
    except GraphError as error:
        if not re.search("order of columns|does not become", str(error)):
            raise


def window(image, k, n, kernel, stride=1, pad=0, dilation=1):
    out = (image + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    pairs = ((each, each) for each in (out, kernel, stride, pad, dilation))
    return Window((image, image), k, n, *pairs)


@given(
    image=st.integers(1, 20), kernel=st.integers(1, 5), stride=st.integers(1, 4),
    pad=st.integers(0, 6), dilation=st.integers(1, 3), height=st.integers(1, 20),
)  # fmt: skip
def test_strips_see_what_their_rows_are_made_of(image, kernel, stride, pad, dilation, height):
    if image + 2 * pad < dilation * (kernel - 1) + 1:
        return
    whole = window(image, 4, 4, kernel, stride, pad, dilation)
    found = strips(whole, height)
    assert [row for strip in found for row in strip.out] == list(range(whole.out[0]))
    for strip in found:
        mine = strip.window(whole)
        assert mine.pad[0] >= 0
        assert len(strip.image) > 0
        for row in range(len(strip.out)):
            for tap in range(kernel):
                seen = (strip.out[row] * stride - pad) + tap * dilation
                place = row * stride - mine.pad[0] + tap * dilation
                assert (seen in range(image)) == (place in range(mine.image[0]))
                assert seen not in range(image) or strip.image[place] == seen


def opcodes(program):
    part = program.parts[0]
    return [Opcode(raw[0]) for raw in part.code["descriptors"][: len(part)].tolist()]


def test_a_large_image_comes_in_strips_and_a_small_one_as_it_is():
    large = compile(convolution(112, 32, 32), DEFAULT, values=False)
    copies = opcodes(large).count(Opcode.COPY)
    assert copies > 2
    assert opcodes(large).count(Opcode.CONV2D) == copies
    small = opcodes(compile(convolution(14, 64, 64), DEFAULT, values=False))
    assert set(small) == {Opcode.LOAD, Opcode.CONV2D, Opcode.STORE}


def test_a_large_image_of_channels_by_themselves_comes_in_strips():
    large = opcodes(
        compile(convolution(112, 32, 32, 32), DEFAULT, in_flight=1, values=False)
    )  # fmt: skip
    assert large.count(Opcode.DEPTHWISE) >= large.count(Opcode.COPY) > 2  # in bands
    small = opcodes(compile(convolution(14, 64, 64, 64), DEFAULT, values=False))
    assert Opcode.COPY not in small


def test_strips_that_find_no_place_near_are_lower_or_none():
    """Two convolutions, one behind the other, have strips at the same time."""
    first = convolution(112, 32, 32, 32)
    [node] = first.nodes
    second = Node("conv2d", ("y", *node.inputs[1:]), "z", node.attributes)
    both = Graph(first.inputs, ["z"], [node, second], first.constants)
    small = DEFAULT.replace(scratchpad_bytes=64 * 1024)
    program = compile(both, small, in_flight=2, values=False)
    copies = [each for each in decoded(program.parts[0]) if each.opcode is Opcode.COPY]
    targets = {each.places["destination"][0] for each in copies}
    assert {program.segments[number].memory for number in targets} == {"scratchpad"}


def test_what_strips_send_away_is_read_in_strips_too():
    """The first image lies near until strips of the second take its place."""
    first = convolution(56, 48, 48, 48)
    [node] = first.nodes
    second = Node("conv2d", ("y", *node.inputs[1:]), "z", node.attributes)
    both = Graph(first.inputs, ["z"], [node, second], first.constants)
    with patch("halfdome.host.compiler.compilation.Compilation._spares", lambda *_: True):
        program = compile(both, DEFAULT, in_flight=1, values=False)
    read = [each.places["x"][0] for each in decoded(program.parts[0]) if "x" in each.places]
    assert {program.segments[number].memory for number in read} == {"scratchpad"}


def test_strips_spare_far_memory():
    graph = convolution(112, 32, 32)
    moved = [
        compile(graph, target, in_flight=1, values=False).about["traffic_bytes"][0]["dram"]
        for target in (HalfdomeTarget(DEFAULT), Whole(DEFAULT))
    ]
    assert moved[0] < moved[1] / 2


def test_requests_come_one_at_a_time_if_their_tensors_are_nearer_then():
    """A long one hardly notices that it waits for the one before; a short one would."""
    long, short = residual(28, 128, 4, kernel=3), residual(28, 128, 1)
    chosen, two = (compile(long, DEFAULT, in_flight=n, values=False) for n in (None, 2))
    assert chosen.slots == 1
    far = [program.about["traffic_bytes"][0]["dram"] for program in (chosen, two)]
    assert far[0] < 0.8 * far[1]
    assert chosen.about["interval_cycles"] < SLOWER * two.about["interval_cycles"]
    assert compile(short, DEFAULT, values=False).slots == LEAST_IN_FLIGHT


def by_themselves(each, **attributes):
    """A convolution of 48 channels, of each `each` others, and a request."""
    rng, n = np.random.default_rng(1), 48 * each
    constants = {
        "w": rng.integers(-128, 128, (n, 3, 3, 1)).astype(np.int8),
        "b": np.zeros(n, np.int32), "m": np.full(n, 0.01, np.float32),
    }  # fmt: skip
    attributes = {"groups": 48, "pads": (1, 0, 1, 0)} | attributes
    node = Node("conv2d", ("x", "w", "b", "m"), "y", attributes)
    graph = Graph([Value("x", (2, 5, 4, 48), U8, zero_point=9)], ["y"], [node], constants)
    return graph, {"x": rng.integers(0, 256, (2, 5, 4, 48)).astype(np.uint8)}


def test_blocks_of_groups_read_the_same_strip():
    graph, request = by_themselves(2)
    whole = check_served(graph, [request], TINY, target=Whole(TINY))
    assert opcodes(whole).count(Opcode.CONV2D) == 2 * 3
    with kept():
        cut = check_served(graph, [request], TINY, target=Cut(TINY, 3))
    assert opcodes(cut).count(Opcode.CONV2D) == 3 * opcodes(cut).count(Opcode.COPY) > 2 * 3


def test_channels_by_themselves_share_a_command_and_its_strip():
    graph, request = by_themselves(1)
    whole = check_served(graph, [request], TINY, target=Whole(TINY))
    assert opcodes(whole).count(Opcode.DEPTHWISE) == 2
    with kept():
        cut = check_served(graph, [request], TINY, target=Cut(TINY, 3))
    assert opcodes(cut).count(Opcode.DEPTHWISE) == opcodes(cut).count(Opcode.COPY) > 2


def test_strips_without_a_row_inside_are_not_cut():
    """The first row's two upper taps are above; what is below them lies in other strips."""
    graph, request = by_themselves(1, pads=(4, 0, 4, 0), dilation=(2, 1))
    with kept():
        check_served(graph, [request], TINY, target=Cut(TINY, 3))


def test_two_strips_are_near_at_a_time():
    program = compile(convolution(112, 32, 32), DEFAULT, in_flight=1, values=False)
    [near] = [
        segment for segment in program.segments
        if segment.memory == "scratchpad" and segment.per_slot
    ]  # fmt: skip
    assert near.nbytes <= NEAR * DEFAULT.scratchpad_bytes


@given(
    image=st.integers(1, 300), k=st.integers(1, 300), n=st.integers(1, 300),
    kernel=st.integers(1, 7), stride=st.integers(1, 2), slots=st.integers(1, 4),
    config=st.sampled_from([TINY, DEFAULT]),
)  # fmt: skip
def test_no_strip_is_larger_than_its_share(image, k, n, kernel, stride, slots, config):
    whole = window(image, k, n, kernel, stride, kernel // 2)
    height = best_height(config, whole, 1, k, slots)
    if height:
        rows = max(len(strip.image) for strip in strips(whole, height))
        row_bytes = -(-k // config.bus_bytes) * config.bus_bytes
        assert 2 * slots * rows * image * row_bytes <= config.scratchpad_bytes


def test_a_pool_of_what_a_large_layer_made_comes_in_strips():
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-128, 128, (64, 1, 1, 160)).astype(np.int8),
        "b": np.zeros(64, np.int32), "m": np.full(64, 1e-4, np.float32),
    }  # fmt: skip
    windows = {"kernel": (3, 3), "stride": (2, 2), "pads": (1, 1, 1, 1)}
    nodes = [Node("conv2d", ("x", *constants), "z"), Node("max_pool", ("z",), "y", windows)]
    inputs = [Value("x", (1, 112, 112, 160), U8)]
    program = compile(Graph(inputs, ["y"], nodes, constants), DEFAULT, 1, in_flight=2)
    found = [each for each in decoded(program.parts[0]) if each.opcode is Opcode.POOL]
    assert len(found) > 1
    assert {program.segments[each.places["x"][0]].memory for each in found} == {"scratchpad"}
