"""What ONNX and ONNX Runtime allow in several forms, in one of them."""

from graphlib import CycleError, TopologicalSorter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from halfdome.host.frontend.net import nodes_within, used
from halfdome.host.frontend.weights import drop_inputs

_STANDARD = "ai.onnx"
"""What the domain of ONNX's own operators may be called, beside the empty name."""


def make_plain(model: onnx.ModelProto) -> None:
    """Operators of ONNX are of the domain "", constants of a model become dense and no inputs, its
    nodes come after what they take."""
    _name_standard(model)
    _fill_in(model.graph)
    _drop_defaults(model)
    _sort(model.graph)


def _name_standard(model: onnx.ModelProto) -> None:
    """Of operator sets of a domain the last is in force, as in ONNX Runtime."""
    for node in nodes_within(model.graph):
        node.domain = _standard(node.domain)
    versions = {_standard(each.domain): each.version for each in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in versions.items())


def _standard(domain: str) -> str:
    return "" if domain == _STANDARD else domain


def _fill_in(graph: onnx.GraphProto) -> None:
    """Makes dense tensors of sparse ones."""
    if graph.sparse_initializer:
        graph.initializer.extend(map(_dense, graph.sparse_initializer))
        del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                value = _dense(attribute.sparse_tensor)
                attribute.CopyFrom(onnx.helper.make_attribute("value", value))
            for inner in (attribute.g, *attribute.graphs):
                _fill_in(inner)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values, places = map(numpy_helper.to_array, (sparse.values, sparse.indices))
    made = np.zeros(sparse.dims, values.dtype)
    if places.ndim == 1:  # in the order of elements
        made.reshape(-1)[places] = values
    else:
        made[tuple(places.T)] = values
    return numpy_helper.from_array(made, sparse.values.name)


def _drop_defaults(model: onnx.ModelProto) -> None:
    """Constants are no inputs: old exporters list them as inputs that may be left out."""
    drop_inputs(model.graph, {tensor.name for tensor in model.graph.initializer})
    model.ir_version = max(model.ir_version, 4)  # the first that allows it


def _sort(graph: onnx.GraphProto) -> None:
    """Brings nodes into an order, of which ONNX Runtime needs none; a cycle stays."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    before = {
        place: {makers[name] for name in used(node) if name in makers}
        for place, node in enumerate(graph.node)
    }
    if all(max(makers_of, default=-1) < place for place, makers_of in before.items()):
        return
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:
        return
    nodes = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(nodes)
