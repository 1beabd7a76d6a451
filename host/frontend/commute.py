"""Moves of floats that are about to be quantised, made moves of bytes: the bits are the same."""

from collections import Counter

import onnx

from halfdome.host.frontend.net import MOVES, used

_MOVES = MOVES - {"Concat", "Split", "Pad"} | {"Gather"}
"""Moves of one tensor, all of whose elements are elements of that."""


def quantised_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which what only moves dequantised elements that are then quantised moves bytes.

    Each element is quantised by itself, so it does not matter when. What is between a
    DequantizeLinear and a QuantizeLinear of one scale and zero point each goes behind both.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = list(made.graph.node)
    while swap := _found(nodes, {value.name for value in made.graph.output}):
        move, quantise = swap
        moved, result = nodes[move], nodes[quantise].output[0]
        early = onnx.NodeProto()
        early.CopyFrom(nodes[quantise])
        early.input[0] = moved.input[0]
        early.output[0] = f"{result} before {moved.name or moved.output[0]}"
        late = onnx.NodeProto()
        late.CopyFrom(moved)
        late.input[0], late.output[0] = early.output[0], result
        nodes[quantise] = late
        nodes[move] = early
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _found(nodes: list[onnx.NodeProto], outputs: set[str]) -> tuple[int, int] | None:
    """A move of dequantised elements that one QuantizeLinear alone sees, and that."""
    makers = {name: node for node in nodes for name in node.output}
    uses = Counter(name for node in nodes for name in used(node))
    users = {node.input[0]: place for place, node in enumerate(nodes) if node.input}
    for place, node in enumerate(nodes):
        if node.op_type not in _MOVES or len(node.output) != 1 or node.domain:
            continue
        maker, user = makers.get(node.input[0]), users.get(node.output[0])
        lonely = uses[node.output[0]] == 1 and node.output[0] not in outputs
        if maker is None or user is None or not lonely or not _is_floating(maker, makers):
            continue
        if nodes[user].op_type == "QuantizeLinear" and not _by_axis(nodes[user]):
            return place, user
    return None


def _is_floating(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether it dequantises bytes, or moves what does."""
    while node.op_type in _MOVES and not node.domain:
        before = makers.get(node.input[0])
        if before is None:
            return False
        node = before
    return node.op_type == "DequantizeLinear"


def _by_axis(node: onnx.NodeProto) -> bool:
    """Whether a scale for each place along an axis, or each block, was meant."""
    return any(attribute.name in ("axis", "block_size") for attribute in node.attribute)
