"""A model in the form in which ONNX Runtime's quantiser keeps what it says.

The quantiser drops Relu and Clip, for it takes the scale of their input from what they let through;
it quantises a constant once, whoever uses it; and it knows biases of one number for each column
alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.net import attributes, nodes_within, used

_SAME_SCALE = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "MaxPool", "Gather", "Split", "Pad",
    "Resize", "Identity", "Relu", "Clip",
}  # fmt: skip
"""Operators whose outputs get the scale of their input."""
_MONOTONE_MOVES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "MaxPool"}
"""Those that Relu and Clip may as well come before."""
_OTHER_PRECISIONS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
FLOATS = (TensorProto.FLOAT, *_OTHER_PRECISIONS)
_MAGNIFIES = {"Sqrt": 0, "Log": 0, "Reciprocal": 0, "Div": 1}
"""Functions that are steep next to 0, and of which operand."""
_BLOCKED = "com.microsoft.nchwc"
"""The domain of operators whose channels lie in blocks, for kernels of one machine."""
_ENDINGS = ("_quantized", "_scale", "_zero_point")
"""What the quantiser appends to names for tensors of its own."""


def prepared_to_quantise(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a floating point model, in which

    every node has a name, no constant is cast to float32 or has two uses in it, no name ends as the
    quantiser's do, Gemm scales nothing and has a bias of one number for each column or none, and
    Relu and Clip come before what only moves.

    Raises `ModelError` for an input or output with a name that the quantiser makes.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for place, node in enumerate(made.graph.node):
        node.name = node.name or f"{node.output[0]} node {place}"
    _rename(made.graph)
    _fold_casts(made.graph)
    _part_constants(made.graph)
    _plain_products(made.graph)
    _activations_first(made.graph)
    return made


def unquantisable(model: onnx.ModelProto) -> list[str]:
    """Names of nodes that the quantiser would get wrong: of a model that is prepared for it.

    They are Clip whose range does not hold 0, a product with a vector or with several matrices of
    weights, Gemm that still scales, Conv whose bias is computed, a mean of pixels that lie apart,
    Pad that is told to pad with another number than 0, which may be beyond the range of what it
    pads, what has channels in blocks, and what takes or makes floats of another precision than
    float32, or takes constants that are not finite: no operator of 8 bits has a scale for them.
    """
    constants = _constants(model.graph)
    ranks = _ranks(model.graph)
    scaleless = _scaleless(model.graph)
    wrong = {
        "Clip": lambda node: not _holds_zero(node, constants),
        "MatMul": lambda node: (
            any(ranks.get(name) == 1 for name in node.input)
            or (node.input[1] in constants and ranks[node.input[1]] > 2)
        ),
        "Pad": lambda node: not _pads_zeros(node, constants),
        "Gemm": lambda node: _factors(node) != (1, 1),
        "Conv": lambda node: any(name not in constants for name in node.input[2:] if name),
        "AveragePool": lambda node: any(
            each != 1 for each in attributes(node).get("dilations", ())
        ),
    }
    return [
        node.name
        for node in model.graph.node
        if node.domain == _BLOCKED
        or scaleless.intersection((*node.input, *node.output))
        or (node.op_type in wrong and wrong[node.op_type](node))
    ]


def magnified(model: onnx.ModelProto) -> list[str]:
    """Names of sums and products of which a root, a logarithm or a quotient is found: these magnify
    what 8 bits lose next to 0, as in norms."""
    steep = {
        node.input[_MAGNIFIES[node.op_type]]
        for node in model.graph.node
        if node.op_type in _MAGNIFIES
    }
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("Add", "Mul") and node.output[0] in steep
    ]


def copy_before_activations(model: onnx.ModelProto, kept: Sequence[str]) -> list[str]:
    """Puts a sum with 0 before each Relu and Clip whose input has a scale of its own.

    Others see that input, too, or it has the scale of another tensor; the sum is what the
    activation is then dropped behind. Those whose names are among `kept` stay as they are.

    Returns names of nodes that stay in floating point: `kept`, and those that are not known to
    compute in float32.
    """
    graph = model.graph
    known = {value.name: value.type.tensor_type.elem_type for value in _values(graph)}
    kept = list(kept)
    makers = {name: node for node in graph.node for name in node.output}
    uses = _uses(graph)
    nodes = []
    for node in graph.node:
        if node.op_type in ("Relu", "Clip") and node.name not in kept:
            x = node.input[0]
            maker = makers.get(x)
            if known.get(x) != onnx.TensorProto.FLOAT:
                kept.append(node.name)
            elif uses[x] > 1 or (maker is not None and maker.op_type in _SAME_SCALE):
                zero, name = f"{node.name} zero", f"{node.name} input"
                graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), zero))
                nodes.append(helper.make_node("Add", [x, zero], [name], name=name))
                node.input[0] = name
        nodes.append(node)
    _replace(graph, nodes)
    return kept


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _uses(graph: onnx.GraphProto) -> Counter[str]:
    """How many places see each tensor, the model's outputs included."""
    uses = Counter(name for node in graph.node for name in used(node))
    uses.update(value.name for value in graph.output)
    return uses


def _values(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, ...]:
    """What is known of tensors that are not constant."""
    return (*graph.input, *graph.value_info, *graph.output)


def _scaleless(graph: onnx.GraphProto) -> set[str]:
    """Names of tensors of floating point that is not float32, and of infinite constants."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in _values(graph)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    infinite = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and not np.isfinite(numpy_helper.to_array(tensor)).all()
    }
    return infinite | {name for name, kind in kinds.items() if kind in _OTHER_PRECISIONS}


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Numbers of dimensions, as far as they are known."""
    known = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in _values(graph)
        if value.type.tensor_type.HasField("shape")
    }
    return known | {tensor.name: len(tensor.dims) for tensor in graph.initializer}


def _within(node: onnx.NodeProto) -> list[str]:
    """What graphs in the attributes of a node take from around it."""
    return used(node)[sum(map(bool, node.input)) :]


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _rename(graph: onnx.GraphProto) -> None:
    """Gives other names to what is called as the quantiser calls its tensors of another."""
    names = {name for node in graph.node for name in (*used(node), *node.output)}
    fixed = {value.name for value in (*graph.input, *graph.output)}
    fresh = {}
    for name in sorted(names | fixed):
        if not any(stem in names | fixed for stem in _stems(name)):
            continue
        if name in fixed:
            raise ModelError(
                f"{name}: is called as the quantiser calls a tensor of its own; rename this input "
                "or output of the model"
            )
        fresh[name] = f"{name} of the model"
    if not fresh:
        return
    for node in nodes_within(graph):
        for names_of in (node.input, node.output):
            names_of[:] = [fresh.get(name, name) for name in names_of]
    for each in (*graph.initializer, *graph.value_info):
        each.name = fresh.get(each.name, each.name)


def _stems(name: str) -> Iterator[str]:
    """What is left of a name without the endings that the quantiser appends."""
    while ending := next((each for each in _ENDINGS if name.endswith(each)), ""):
        name = name.removesuffix(ending)
        yield name


def _fold_casts(graph: onnx.GraphProto) -> None:
    """Casts constants to float32, as ONNX Runtime wants those of float16."""
    constants = _constants(graph)
    nodes = []
    for node in graph.node:
        tensor = constants.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or attributes(node)["to"] != onnx.TensorProto.FLOAT:
            nodes.append(node)
            continue
        array = numpy_helper.to_array(tensor).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    _replace(graph, nodes)


def _part_constants(graph: onnx.GraphProto) -> None:
    """Gives each use of a constant in floating point a copy of its own, but for the first."""
    constants = _constants(graph)
    seen: set[str] = {name for node in graph.node for name in _within(node)}
    seen.update(value.name for value in graph.output)
    for node in graph.node:
        for place, name in enumerate(node.input):
            tensor = constants.get(name)
            if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
                continue
            if name in seen:
                copy = graph.initializer.add()
                copy.CopyFrom(tensor)
                copy.name = node.input[place] = f"{name} of {node.output[0]} {place}"
            seen.add(name)


def _factors(node: onnx.NodeProto) -> tuple[float, float]:
    """alpha and beta of Gemm; beta is 1 without a bias."""
    found = attributes(node)
    biased = len(node.input) > 2 and node.input[2]
    return float(found.get("alpha", 1.0)), float(found.get("beta", 1.0)) if biased else 1.0  # type: ignore[arg-type]


def _plain_products(graph: onnx.GraphProto) -> None:
    """Folds factors of Gemm into its constants, and adds biases behind it that it cannot hold."""
    constants = _constants(graph)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Gemm":
            continue
        alpha, beta = _factors(node)
        bias = node.input[2] if len(node.input) > 2 else ""
        if alpha != 1 and node.input[1] in constants:
            _scale(constants[node.input[1]], alpha)
            _drop_attribute(node, "alpha")
        if beta != 1 and bias in constants:
            _scale(constants[bias], beta)
            beta = 1
        if beta == 1:
            _drop_attribute(node, "beta")
        if not bias or _factors(node) != (1, 1) or _by_column(node, graph, constants):
            continue
        output, product = node.output[0], f"{node.output[0]} product"
        del node.input[2:]
        node.output[0] = product
        nodes.append(helper.make_node("Add", [product, bias], [output], name=f"{node.name} bias"))
    _replace(graph, nodes)


def _scale(tensor: onnx.TensorProto, factor: float) -> None:
    scaled = (numpy_helper.to_array(tensor) * np.float32(factor)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _by_column(
    node: onnx.NodeProto, graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]
) -> bool:  # fmt: skip
    """Whether Gemm has a constant bias of one number for each column, which it has then in one
    dimension."""
    bias, weight = constants.get(node.input[2]), constants.get(node.input[1])
    if bias is None or weight is None:
        return False
    columns = weight.dims[0 if attributes(node).get("transB", 0) else 1]
    array = numpy_helper.to_array(bias)
    if array.size != 1 and (array.size != columns or array.shape[-1] != columns):
        return False
    flat = np.broadcast_to(array.reshape(-1), (columns,))
    bias.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(flat), bias.name))
    kept = [value for value in graph.value_info if value.name != bias.name]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return True


def _holds_zero(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether 0 is known to be within the range of a Clip."""
    found = attributes(node)
    bounds = [float(found.get("min", -np.inf)), float(found.get("max", np.inf))]  # type: ignore[arg-type]
    for place, name in enumerate(node.input[1:3]):
        if name and name not in constants:
            return False
        if name:
            bounds[place] = float(numpy_helper.to_array(constants[name]).reshape(-1)[0])
    return bounds[0] <= 0 <= bounds[1]


def _pads_zeros(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether no other number than 0 is told; without one it is 0, or copies of what is there."""
    value = node.input[2] if len(node.input) > 2 else ""
    if not value:
        return not attributes(node).get("value", 0)
    constant = attributes(node).get("mode", "constant") == "constant"
    return constant and value in constants and not numpy_helper.to_array(constants[value]).any()


def _activations_first(graph: onnx.GraphProto) -> None:
    """Puts Relu and Clip before a move of what they alone see."""
    constants = _constants(graph)
    uses = _uses(graph)
    nodes = list(graph.node)
    moved = set()
    for place, node in enumerate(nodes):
        clips = node.op_type == "Clip" and _holds_zero(node, constants)
        at = place
        while node.op_type == "Relu" or clips:
            x = nodes[at].input[0]
            before = next((i for i in range(at) if x in nodes[i].output), None)
            if before is None or uses[x] != 1 or len(nodes[before].output) != 1:
                break
            move = nodes[before]
            if move.op_type not in _MONOTONE_MOVES:
                break
            # What the move made, the activation makes; the move makes what the activation did.
            early = f"{nodes[at].output[0]} before {move.name}"
            node.input[0], move.input[0] = move.input[0], early
            move.output[0], node.output[0] = node.output[0], early
            uses[early] = 1
            moved.add(x)
            nodes.insert(before, nodes.pop(at))
            nodes.insert(at, nodes.pop(before + 1))
            at = before
    _replace(graph, nodes)
    kept = [value for value in graph.value_info if value.name not in moved]
    del graph.value_info[:]
    graph.value_info.extend(kept)
