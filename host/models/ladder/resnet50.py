"""ResNet-50 as onnx carries it: the whole topology without its weights, to time compiling by."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from halfdome.host.models.ladder import photographs
from halfdome.host.models.ladder.rung import Rung

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET = 17
_PATH = "backend/test/data/light/light_resnet50.onnx"


def resnet50(seed: int = 0) -> Rung:
    """ResNet-50, float32[1, 3, 224, 224] to float32[1, 1000], with random weights.

    Where onnx's file has one value for all, weights stand that keep the size of activations, and
    its sums of two are additions. Raises `ImportError` without onnx, `MissingModel` without `make
    models`.
    """
    try:
        import onnx
        from onnx import version_converter
    except ImportError as error:
        raise ImportError(f"ResNet-50: {error}; `pip install 'halfdome[models]'`") from None

    model = onnx.load(Path(onnx.__file__).parent / _PATH)
    _fill(model, np.random.default_rng(seed))
    model = version_converter.convert_version(model, _OPSET)
    name = model.graph.input[0].name
    asked, seen = (
        [{name: photographs.normalised(photograph)} for photograph in names]
        for names in (photographs.TO_ASK, photographs.TO_CALIBRATE)
    )
    return Rung("ResNet-50", model, asked, seen)


def _fill(model: "ModelProto", rng: np.random.Generator) -> None:
    """Puts parameters in place of the constants, whose shapes alone are right."""
    from onnx import numpy_helper

    graph = model.graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    shapes = {name: array.shape for name, array in held.items()}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(held[node.input[0]].tolist())
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    summed = {name for node in nodes if node.op_type == "Sum" for name in node.input}
    parameters: dict[str, np.ndarray] = {}
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in shapes:
                parameters[name] = _parameter(node.op_type, place, shapes[name], rng)
        if node.op_type == "BatchNormalization" and node.output[0] in summed:
            parameters[node.input[1]] *= np.float32(0.5**0.5)  # a sum of two is as large as one
        if node.op_type == "Reshape":
            parameters[node.input[1]] = held[node.input[1]]
        if node.op_type == "Sum":
            node.op_type = "Add"
    model.ir_version = 8  # of the first versions, every initialiser is an input, too
    image = graph.input[0]
    for field, kept in (
        (graph.node, nodes),
        (graph.input, [image]),
        (graph.initializer, [numpy_helper.from_array(a, n) for n, a in parameters.items()]),
    ):
        kept = list(kept)
        del field[:]
        field.extend(kept)


def _parameter(op: str, place: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Input number `place` of a node: weights with the spread of He et al., normalisation of 1."""
    if op == "BatchNormalization":
        of_one = place in (1, 4)  # scale and variance; bias and mean are 0
        return np.full(shape, of_one, np.float32)
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    spread = np.float32((2 / np.prod(shape[1:])) ** 0.5)
    return rng.standard_normal(shape, np.float32) * spread
