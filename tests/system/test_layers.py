"""Layers of vision models on a `default` card, operands where the compiler puts them: hardly slower
than what bounds them, the passes through the array or the bytes of DRAM."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import ElementFormat, Engine, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler import costs, traffic
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.operands import decoded
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from halfdome.host.report.layers import LONG, NEAR, START, of
from halfdome.host.serving.deploy import deploy

pytestmark = pytest.mark.slow

DEFAULT = PRESETS["default"]


class Whole(HalfdomeTarget):
    """Cards whose commands are not cut: no layer waits for what another does meanwhile."""

    def in_bands(self, commands):
        return list(commands)


@pytest.fixture(scope="module")
def runtime():
    with halfdome.open(cards=1, config=DEFAULT, engine="native") as platform:
        yield platform


def layer(image, k, n, kernel, stride, groups):
    """A convolution of what the card has made of its input."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-128, 128, (n, kernel, kernel, k // groups)).astype(np.int8),
        "b": np.zeros(n, np.int32), "m": np.full(n, 1e-4, np.float32),
    }  # fmt: skip
    clamp = {"low": 0.0, "high": 99.0, "zero_point": 7, "format": ElementFormat.UINT8}
    how = {"groups": groups, "stride": (stride,) * 2, "pads": (kernel // 2,) * 4}
    nodes = [Node("clamp", ("x",), "z", clamp), Node("conv2d", ("z", *constants), "y", how)]
    value = Value("x", (1, image, image, k), ElementFormat.UINT8, zero_point=7)
    return Graph([value], ["y"], nodes, constants)


def measured(runtime, graph):
    """Cycles of the products and of what is copied for them, from the first's start to the end of
    the last; and their bound."""
    program = compile(graph, Whole(DEFAULT), 1)
    served = deploy(runtime, program)
    [response] = served.run([{"x": np.zeros(graph.inputs[0].shape, np.uint8)}])
    served.release()
    spans, passes, moved = [], 0.0, 0
    commands = decoded(program.parts[0], response.symbols)
    for span, command in zip(response.spans[0].tolist(), commands, strict=True):
        if command.opcode.engine is Engine.MATMUL or command.opcode is Opcode.COPY:
            nbytes = traffic.moved(command, program.segments, DEFAULT)
            found = traffic.cycles(command, nbytes, program.segments, DEFAULT)
            passes += found["compute"]
            moved += nbytes["dram"]
            spans.append(span)
    taken = max(end for _, end in spans) - min(start for start, _ in spans)
    return taken, max(passes, moved / costs.dram_bytes_per_cycle(DEFAULT))


def test_a_sum_in_dram_waits_for_few_turns_between_reads_and_writes(runtime):
    """Two streams in and one out, whose lengths would have all of them in one bank at a time."""
    clamps = [
        Node("clamp", (x,), y, {"low": 0.0, "high": high, "format": ElementFormat.UINT8})
        for x, y, high in (("x", "a", 99.0), ("a", "b", 80.0))
    ]
    add = Node("add_quantised", ("a", "b"), "y", {"a_ratio": 0.5, "b_ratio": 0.25})
    graph = Graph([Value("x", (1, 56, 56, 64), ElementFormat.UINT8)], ["y"], [*clamps, add], {})
    program = compile(graph, DEFAULT, 1, apart=True)
    served = deploy(runtime, program)
    [response] = served.run([{"x": np.zeros(graph.inputs[0].shape, np.uint8)}])
    served.release()
    [found] = [each for each in of(program, DEFAULT, response).layers if each.name == "y"]
    assert found.moved_bytes["dram"] == 3 * 56 * 56 * 64
    assert 1 < (found.of_bound or 0) < 1.05


@pytest.mark.parametrize(
    ("image", "k", "n", "kernel", "stride", "groups"),
    [
        (56, 64, 64, 1, 1, 1),
        (14, 128, 128, 3, 1, 1),
        (28, 256, 512, 1, 2, 1),
        (28, 128, 128, 3, 1, 32),
        (28, 256, 256, 3, 1, 32),
        (14, 512, 512, 3, 1, 32),
        (7, 1024, 1024, 3, 1, 32),
        (112, 32, 16, 1, 1, 1),
        (56, 144, 24, 1, 1, 1),
        (14, 240, 80, 1, 1, 1),
        (7, 320, 1280, 1, 1, 1),
        (1, 1280, 1000, 1, 1, 1),
    ],
)
def test_a_layer_takes_what_bounds_it(runtime, image, k, n, kernel, stride, groups):
    taken, bound = measured(runtime, layer(image, k, n, kernel, stride, groups))
    assert taken <= (NEAR * bound if bound >= LONG else bound + START)
    useful = (-(-image // stride)) ** 2 * n * kernel**2 * k // groups
    if groups == 32 and k == 128:
        assert useful >= 0.24 * DEFAULT.array_rows * DEFAULT.array_columns * taken
