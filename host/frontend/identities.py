"""Identity nodes where ONNX Runtime overlooks what is taken or returned as it is."""

from collections.abc import Mapping

import onnx

from halfdome.host.frontend.net import MOVES, nodes_within, used


def taken_real(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, in which Where and nodes with graphs within take copies of tensors now.

    ONNX Runtime's quantiser hands these nodes on without dequantising what they take; what Identity
    takes it does dequantise.
    """
    makers = {name for node in model.graph.node for name in node.output if name}
    nodes: list[onnx.NodeProto] = []
    copied: dict[str, str] = {}
    for node in model.graph.node:
        within = any(attribute.g.node or attribute.graphs for attribute in node.attribute)
        if node.op_type == "Where" or within:
            for name in dict.fromkeys(used(node)):
                if name in makers and name not in copied:
                    copied[name] = f"{name} as it is"
                    nodes.append(_identity(name, copied[name]))
            _rename(node, copied)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def returned_real(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, whose outputs of floating point that one move takes are copies now.

    ONNX Runtime quantises what leads by moves to QuantizeLinear, if one node alone takes it, and
    overlooks that it is returned, too.
    """
    floats = {
        value.name
        for value in model.graph.output
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in floats.intersection(used(node)):
            users.setdefault(name, []).append(node.op_type)
    copied = {
        name: f"{name} as it is" for name, [op, *more] in users.items() if op in MOVES and not more
    }
    for node in model.graph.node:
        _rename(node, copied)
        node.output[:] = [copied.get(name, name) for name in node.output]
    model.graph.node.extend(_identity(name, output) for output, name in copied.items())
    return model


def constants_returned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, each of whose outputs a node makes now: of a constant, an Identity."""
    outputs = {value.name for value in model.graph.output}
    constants = {
        tensor.name: f"{tensor.name} as it is"
        for tensor in model.graph.initializer
        if tensor.name in outputs
    }
    for node in model.graph.node:
        _rename(node, constants)
    for tensor in model.graph.initializer:
        tensor.name = constants.get(tensor.name, tensor.name)
    model.graph.node.extend(_identity(name, output) for output, name in constants.items())
    return model


def _identity(name: str, output: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Identity", [name], [output], name=f"Identity of {name}")


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Has a node, and graphs within it, take tensors by other names."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in nodes_within(graph):
                inner.input[:] = [names.get(name, name) for name in inner.input]
