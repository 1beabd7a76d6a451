"""Floating point operators written by means of others that have an 8-bit form, before quantising.

Real values stay the same but for the last bits; what is quantised then stays on the cards.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from halfdome.host.frontend.known import Known
from halfdome.host.frontend.net import attributes


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model in floating point, in which

    Sum adds one operand after the other, a quotient or difference with a constant is a product or
    sum, a mean over height and width is GlobalAveragePool, and MatMul with weights to which a bias
    is added is Gemm.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    writer = _Writer(made)
    for node in model.graph.node:
        rule = None if node.domain else _RULES.get(node.op_type)
        if rule is None or not writer.is_float32(node) or not rule(writer, node):
            writer.nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(writer.nodes)
    return made


class _Writer(Known):
    """The nodes of the copy so far, and what is known of the model."""

    def __init__(self, made: onnx.ModelProto):
        super().__init__(made.graph)
        self.made = made
        self.nodes: list[onnx.NodeProto] = []

    def is_float32(self, node: onnx.NodeProto) -> bool:
        """Whether a node is known to compute in it."""
        names = [*node.input, *node.output]
        kinds = {self.types[name].elem_type for name in names if name in self.types}
        return onnx.TensorProto.FLOAT in kinds and kinds <= {
            onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.UNDEFINED,
        }  # fmt: skip

    def product(self, name: str) -> onnx.NodeProto | None:
        """The MatMul that makes a tensor that one node sees."""
        if self.uses[name] != 1:
            return None
        made = (node for node in reversed(self.nodes) if name in node.output)
        return next((node for node in made if node.op_type == "MatMul"), None)

    def hold(self, name: str, array: np.ndarray) -> str:
        """Another constant."""
        self.made.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def add(self, like: onnx.NodeProto, op: str, inputs: list[str], output: str) -> str:
        """A node in the place of one of the model."""
        name = f"{like.name or like.output[0]} {op} {len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name))
        return output


def _sum(writer: _Writer, node: onnx.NodeProto) -> bool:
    if len(node.input) < 2:
        return False
    total, *others = node.input
    for place, other in enumerate(others, 2):
        last = place == len(node.input)
        total = writer.add(
            node, "Add", [total, other], node.output[0] if last else f"{node.output[0]} of {place}"
        )
    return True


def _by_constant(op: str, inverse: Callable[[np.ndarray], np.ndarray]):
    """What is done with a constant second operand as `op` with its inverse."""

    def rule(writer: _Writer, node: onnx.NodeProto) -> bool:
        x, name = node.input
        value = writer.constant(name)
        if value is None or value.dtype != np.float32 or writer.constant(x) is not None:
            return False
        with np.errstate(divide="ignore"):
            other = inverse(value).astype(np.float32)
        if not np.isfinite(other).all():
            return False
        held = writer.hold(f"{node.output[0]} constant", other)
        writer.add(node, op, [x, held], node.output[0])
        return True

    return rule


def _mean(writer: _Writer, node: onnx.NodeProto) -> bool:
    """Over height and width, which are kept, or not."""
    shape, found = writer.shape(node.input[0]), attributes(node)
    axes = found.get("axes")
    if len(node.input) > 1 and (held := writer.constant(node.input[1])) is not None:
        axes = held.reshape(-1).tolist()
    if len(shape) != 4 or axes is None or {axis % 4 for axis in axes} != {2, 3}:  # type: ignore[attr-defined]
        return False
    if found.get("keepdims", 1):
        writer.add(node, "GlobalAveragePool", [node.input[0]], node.output[0])
        return True
    pooled = f"{node.output[0]} pooled"
    writer.add(node, "GlobalAveragePool", [node.input[0]], pooled)
    held = writer.hold(f"{node.output[0]} shape", np.array(shape[:2], np.int64))
    writer.add(node, "Reshape", [pooled, held], node.output[0])
    return True


def _pool(writer: _Writer, node: onnx.NodeProto) -> bool:
    """A window as large as the image, and nothing around it."""
    shape, found = writer.shape(node.input[0]), attributes(node)
    whole = len(shape) == 4 and list(shape[2:]) == list(found.get("kernel_shape", ()))  # type: ignore[call-overload]
    if not whole or any(found.get("pads", ())) or found.get("auto_pad", "NOTSET") not in (  # type: ignore[arg-type]
        "NOTSET", "VALID",
    ):  # fmt: skip
        return False
    writer.add(node, "GlobalAveragePool", [node.input[0]], node.output[0])
    return True


def _biased(writer: _Writer, node: onnx.NodeProto) -> bool:
    """A bias that is added to a product with weights, which nobody else sees."""
    for x, name in (node.input, node.input[::-1]):
        bias, product = writer.constant(name), writer.product(x)
        if bias is None or product is None:
            continue
        a, w = product.input
        weight, shape, made = writer.constant(w), writer.shape(a), writer.shape(node.output[0])
        if weight is None or weight.ndim != 2 or len(shape) < 2:
            continue
        columns = weight.shape[-1]
        same_shape = made == (*shape[:-1], columns) and bias.ndim <= len(shape)
        if not same_shape or bias.size not in (1, columns) or bias.shape[-1:] not in (
            (), (bias.size,),
        ):  # fmt: skip
            continue
        writer.nodes.remove(product)
        wide = len(shape) > 2
        rows, output = a, node.output[0]
        if wide:
            flat = writer.hold(f"{output} rows", np.array([-1, shape[-1]], np.int64))
            rows = writer.add(node, "Reshape", [a, flat], f"{output} flat")
        held = writer.hold(f"{output} bias", np.broadcast_to(bias.reshape(-1), (columns,)))
        total = writer.add(node, "Gemm", [rows, w, held], f"{output} total" if wide else output)
        if wide:
            full = writer.hold(f"{output} shape", np.array(made, np.int64))
            writer.add(node, "Reshape", [total, full], output)
        return True
    return False


_RULES: Mapping[str, Callable[[_Writer, onnx.NodeProto], bool]] = {
    "Sum": _sum,
    "Add": _biased,
    "Div": _by_constant("Mul", lambda value: 1 / value),
    "Sub": _by_constant("Add", lambda value: -value),
    "ReduceMean": _mean,
    "AveragePool": _pool,
}
"""What writes a node anew, or says that it does not."""
