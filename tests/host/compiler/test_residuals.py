"""Sums lie where an operand did that nobody reads later."""

import numpy as np

from halfdome.hdl.commands import ElementFormat, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.operands import decoded
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from tests.host.networks import residual
from tests.host.recommenders import check_served

TINY, DEFAULT = PRESETS["tiny"], PRESETS["default"]
U8 = ElementFormat.UINT8


def sums(program):
    """The sums of a program by their label."""
    [part] = program.parts
    named = zip(part.labels, decoded(part), strict=True)
    return {name: each for name, each in named if each.opcode is Opcode.ADD_QUANTISED}


def written_over(program):
    """For each sum of a program the operands in whose place its output lies."""

    def place(each, name):
        return each.places[name], each.values[name]

    return {
        label: {name for name in "ab" if place(each, name) == place(each, "y")}
        for label, each in sums(program).items()
    }


def served(graph, config=TINY):
    rng = np.random.default_rng(1)
    x = graph.inputs[0]
    requests = [{x.name: rng.integers(0, 256, x.shape).astype(np.uint8)} for _ in range(2)]
    return check_served(graph, requests, config)


def of(nodes, outputs, **constants):
    return Graph([Value("x", (1, 4, 4, 16), U8)], outputs, nodes, constants)


TURNED = np.arange(256)[::-1].astype(np.uint8)


def test_a_chain_of_residuals_is_one_buffer():
    over = written_over(served(residual(image=4, channels=16, blocks=3, kernel=3)))
    assert over == {"y0": {"a"}, "y1": {"a"}, "y2": {"a"}}


def test_what_goes_out_or_is_read_later_stays():
    nodes = [
        Node("lookup", ("x", "table"), "other", {}),
        Node("add_quantised", ("x", "other"), "sum", {}),
        Node("add_quantised", ("sum", "other"), "twice", {}),
    ]

    def over(*outputs):
        return written_over(served(of(nodes, [*outputs], table=TURNED)))

    assert over("twice") == {"sum": {"a"}, "twice": {"a"}}
    assert over("twice", "x") == {"sum": set(), "twice": {"b"}}
    assert over("twice", "sum") == {"sum": {"a"}, "twice": {"b"}}
    assert over("twice", "sum", "x", "other") == {"sum": set(), "twice": set()}


def test_what_is_read_later_in_other_dimensions_stays():
    nodes = [
        Node("reshape", ("x",), "long", {"shape": (4, 64)}),
        Node("add_quantised", ("x", "x"), "sum", {}),
        Node("reshape", ("sum",), "long sum", {"shape": (4, 64)}),
        Node("add_quantised", ("long sum", "long"), "y", {}),
    ]
    assert written_over(served(of(nodes, ["y"]))) == {"sum": set(), "y": {"b"}}


def test_a_sum_is_written_where_a_concatenation_wants_it():
    nodes = [
        Node("lookup", ("x", "table"), "other", {}),
        Node("add_quantised", ("x", "other"), "sum", {}),
        Node("concat", ("sum", "sum"), "y", {}),
    ]
    assert written_over(served(of(nodes, ["y"], table=TURNED))) == {"sum": set()}


def test_a_tensor_stays_near_through_all_sums_where_two_do_not_fit():
    image, channels = 14, 1024
    assert DEFAULT.scratchpad_bytes < 2 * image * image * channels
    program = compile(residual(image, channels, blocks=3), DEFAULT, values=False, in_flight=1)
    found = [program.segments[each.places["y"][0]].memory for each in sums(program).values()]
    assert found == ["scratchpad"] * len(found)
