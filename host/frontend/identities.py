"""Identity nodes for what a model returns and no node makes."""

from collections.abc import Mapping

import onnx

from halfdome.host.frontend.load import nodes_within


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
