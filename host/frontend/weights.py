"""Weights of models that are larger than one message, which has at most 2 GB."""

from collections.abc import Collection, Iterable
from math import prod
from pathlib import Path

import onnx
from onnx import shape_inference
from onnx.helper import make_tensor_value_info, tensor_dtype_to_np_dtype

_MESSAGE = 1 << 30
"""Bytes of weights from which they lie outside a model's message."""
_HEAVY = 1 << 16
"""Elements from which only the type and shape of a constant matter for those of other tensors."""


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the weights of a model have no room in its message."""
    return sum(map(_bytes, model.graph.initializer)) > _MESSAGE


def _bytes(tensor: onnx.TensorProto) -> int:
    """By its shape: a tensor of 2 GB does not tell its own size."""
    return prod(tensor.dims) * tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def save(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Writes a model, if it is large its weights beside it, in `.data`. Returns what it wrote."""
    if not is_large(model):
        onnx.save(model, path)
        return [path]
    made = onnx.ModelProto()
    made.CopyFrom(model)  # `onnx.save` takes the weights out of what it is given
    data = path.with_suffix(".data")
    data.unlink(missing_ok=True)
    onnx.save(made, path, save_as_external_data=True, location=data.name)
    return [path, data]


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model, of any size, with the types and shapes that ONNX infers."""
    heavy = []
    if is_large(model):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model, heavy = copy, set_aside(copy)
    made = shape_inference.infer_shapes(model, data_prop=True)
    put_back(made, heavy)
    return made


def set_aside(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Takes heavy constants out of a model: they are inputs for a while."""
    heavy = [tensor for tensor in model.graph.initializer if prod(tensor.dims) >= _HEAVY]
    light = [tensor for tensor in model.graph.initializer if prod(tensor.dims) < _HEAVY]
    del model.graph.initializer[:]
    model.graph.initializer.extend(light)
    model.graph.input.extend(
        make_tensor_value_info(each.name, each.data_type, each.dims) for each in heavy
    )
    return heavy


def put_back(model: onnx.ModelProto, heavy: Iterable[onnx.TensorProto]) -> None:
    """Makes constants of a model of inputs that `set_aside` made of them."""
    constants = {tensor.name: tensor for tensor in heavy}
    drop_inputs(model.graph, constants)
    add(model.graph, constants.values())


def drop_inputs(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Takes inputs out of a graph, as those that constants are."""
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)


def add(graph: onnx.GraphProto, constants: Iterable[onnx.TensorProto]) -> None:
    """Adds constants to a graph; `extend` takes none of 2 GB."""
    for tensor in constants:
        graph.initializer.add().CopyFrom(tensor)
