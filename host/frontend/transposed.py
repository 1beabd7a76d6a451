"""ConvTranspose whose windows do not meet, written as what cards have."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from halfdome.host.frontend.known import Known
from halfdome.host.frontend.net import attributes


def pixel_by_pixel(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model in floating point, in which

    ConvTranspose with strides as large as its window is Conv of single pixels, each of which makes
    a window, and moves of those to their places. What is added to channels, or normalises them,
    behind it is folded into it.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    writer = _Writer(made)
    nodes: list[onnx.NodeProto] = []
    gone: set[str] = set()
    for node in made.graph.node:
        if node.output[0] in gone:
            continue
        if node.op_type == "ConvTranspose" and writer.is_apart(node):
            written, folded = writer.written(node)
            nodes += written
            gone |= folded
        else:
            nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


class _Writer(Known):
    """What is known of a model, and its new constants."""

    def __init__(self, made: onnx.ModelProto):
        super().__init__(made.graph)
        self._graph = made.graph

    def is_apart(self, node: onnx.NodeProto) -> bool:
        """Whether each pixel makes a window for itself, all of which stays."""
        found, weight, shape = (
            attributes(node), self.constant(node.input[1]), self.shape(node.input[0])
        )  # fmt: skip
        if weight is None or weight.ndim != 4 or len(shape) != 4:
            return False
        if not self.is_float(node.input[0]):
            return False
        if node.input[2:] and self.constant(node.input[2]) is None:
            return False
        window = list(weight.shape[2:])
        plain = found.get("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(
            any(found.get(name, ()))  # type: ignore[arg-type]
            for name in ("pads", "output_padding", "output_shape")
        )
        return (
            plain and found.get("group", 1) == 1
            and list(found.get("strides", (1, 1))) == window  # type: ignore[call-overload]
            and list(found.get("dilations", (1, 1))) == [1, 1]  # type: ignore[call-overload]
        )  # fmt: skip

    def written(self, node: onnx.NodeProto) -> tuple[Sequence[onnx.NodeProto], set[str]]:
        """Nodes in its place, and outputs of those that are folded into it."""
        weight = numpy_helper.to_array(self.constants[node.input[1]])
        taken, count, *window = weight.shape
        bias = self.constant(node.input[2]) if node.input[2:] else np.zeros(count, np.float32)
        output, folded = node.output[0], set()
        while (behind := self._behind(output, count)) is not None:
            output, factor, term = behind
            weight, bias = weight * factor.reshape(-1, 1, 1), bias * factor + term
            folded.add(output)
        batch, _, height, width = self.shape(node.input[0])
        name = node.name or node.output[0]
        # A pixel's window lies as it is written: by rows, by columns, by channels.
        tiles = weight.transpose(2, 3, 1, 0).reshape(-1, taken, 1, 1)
        held = {
            f"{name} pixels": tiles.astype(np.float32),
            f"{name} biases": np.tile(bias, window[0] * window[1]).astype(np.float32),
            f"{name} windows": np.array([batch, *window, count, height, width]),
            f"{name} image": np.array([batch, count, height * window[0], width * window[1]]),
        }
        self._graph.initializer.extend(
            numpy_helper.from_array(array, key) for key, array in held.items()
        )
        pixels, biases, windows, image = held
        product, apart, placed = (f"{output} {each}" for each in ("product", "apart", "placed"))
        return [
            helper.make_node("Conv", [node.input[0], pixels, biases], [product], name=name),
            helper.make_node("Reshape", [product, windows], [apart], name=apart),
            helper.make_node("Transpose", [apart], [placed], name=placed, perm=[0, 3, 4, 1, 5, 2]),
            helper.make_node("Reshape", [placed, image], [output], name=f"{output} image"),
        ], folded

    def _behind(self, name: str, count: int) -> tuple[str, np.ndarray, np.ndarray] | None:
        """What alone sees a tensor, if it multiplies channels and adds to them: its output, factors
        and terms."""
        if self.uses[name] != 1:
            return None
        user = next((node for node in self._graph.node if name in node.input), None)
        if user is None or user.domain:
            return None
        if user.op_type == "Add":
            other = user.input[1] if user.input[0] == name else user.input[0]
            term = self.constant(other)
            if term is None or term.shape not in ((count, 1, 1), (1, count, 1, 1)):
                return None
            return user.output[0], np.ones(count, np.float32), term.reshape(-1)
        if user.op_type != "BatchNormalization" or len(user.output) > 1:
            return None
        parameters = [self.constant(each) for each in user.input[1:]]
        if any(each is None for each in parameters):
            return None
        scale, shift, mean, variance = parameters
        epsilon = float(attributes(user).get("epsilon", 1e-5))  # type: ignore[arg-type]
        factor = scale / np.sqrt(variance + epsilon)  # type: ignore[operator]
        return user.output[0], factor, shift - mean * factor  # type: ignore[operator]
