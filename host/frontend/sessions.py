"""ONNX Runtime: the sessions of the host's share of a model, and what its optimiser makes of one.

Its bits are the reference of every translation. Kernels that multiply uint8 by int8 may saturate
in 16 bits on machines without VNNI; `session.x64quantprecision` selects those that do not.
"""

import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.weights import inferred, is_large, save
from halfdome.host.runtime.left_out import LeftOut

_PRODUCTS = ("QLinearConv", "QLinearMatMul", "QGemm")
_WEIGHTS_WRITTEN = "session.optimized_model_external_initializers_file_name"
_SILENT = 4
"""ONNX Runtime's severity below which it says nothing."""
_ALONE = threading.RLock()
"""Held by the thread in which tools of ONNX and PyTorch are silent."""


def open_session(
    model: onnx.ModelProto,
    level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    *,
    precise: bool = True,
    written: Path | None = None,
) -> InferenceSession:
    """A session on the CPU, which writes what it made of the model to a file if there is to be one.

    Raises `ModelError` with ONNX Runtime's words if it does not take the model.
    """
    options = SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = _SILENT
    if precise and not _takes_int8(model):
        model = _apart(model)
        options.add_session_config_entry("session.x64quantprecision", "1")
    if written:
        options.optimized_model_filepath = str(written)
        if is_large(model):
            options.add_session_config_entry(_WEIGHTS_WRITTEN, "weights.data")
    with told(), _source(model) as source:
        return InferenceSession(source, options, providers=["CPUExecutionProvider"])


@contextmanager
def _source(model: onnx.ModelProto) -> Iterator[str | bytes]:
    """What a session reads a model from: its message, or files if that has no room for weights."""
    if not is_large(model):
        yield model.SerializeToString()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(save(model, Path(folder) / "model.onnx")[0])


def run_session(
    session: InferenceSession, outputs: Sequence[str] | None, request: Mapping[str, np.ndarray]
) -> Sequence[Any]:
    """Outputs of a session, in order; all of them if no names are given.

    Raises `ModelError` with ONNX Runtime's words, which name the node, for a request that it does
    not compute, such as an index that no row has.
    """
    try:
        return session.run(None if outputs is None else list(outputs), dict(request))
    except Exception as error:  # as above
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        words = " ".join(str(error).split())
        raise ModelError(f"request: ONNX Runtime does not compute it: {words}") from None


def left_out(session: InferenceSession) -> dict[str, LeftOut]:
    """What stands for the outputs of a session, by name, if its inputs have no values."""
    numpy_names = {"float": "float32", "double": "float64"}
    found = {}
    for each in session.get_outputs():
        name = each.type.removeprefix("tensor(").removesuffix(")")
        shape = [size if isinstance(size, int) else None for size in each.shape]
        found[each.name] = LeftOut(shape, np.dtype(numpy_names.get(name, name)))
    return found


def _takes_int8(model: onnx.ModelProto) -> bool:
    """Whether products take int8, for which ONNX Runtime lacks the precise kernels."""
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return any(
        kinds.get(node.input[2]) == onnx.TensorProto.INT8
        for node in model.graph.node
        if node.op_type in _PRODUCTS
    )


def _apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with int8 constants of each node for itself.

    For the precise kernels ONNX Runtime rewrites them, and fails where two nodes share one.
    """
    constants = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    }
    uses = Counter(name for node in model.graph.node for name in node.input if name in constants)
    if max(uses.values(), default=0) < 2:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for at, node in enumerate(made.graph.node):
        for place, name in enumerate(node.input):
            if uses[name] > 1:
                copy = made.graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name = node.input[place] = f"{name} of node {at} {place}"
    return made


def fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after ONNX Runtime's fusions, before it chooses layouts for its own kernels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fused.onnx"
        open_session(model, precise=False, written=path)
        made = onnx.load(path)
    used = {node.domain for node in made.graph.node} | {""}
    imports = [each for each in made.opset_import if each.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(imports)
    return made


@dataclass(frozen=True)
class Tensor:
    """What is known of a value of a model: its dtype, and its shape if all sizes are known."""

    dtype: np.dtype
    shape: tuple[int, ...] | None


def tensors(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Inputs and all that nodes make, by name, as ONNX Runtime infers them.

    It knows operators of its own, which ONNX does not, but tells of a scalar and of a value whose
    dimensions it does not know alike; ONNX tells them apart. What is no tensor is left out.
    """
    scalars = _scalars(model)
    every = _returning(model, [name for node in model.graph.node for name in node.output if name])
    session = open_session(every, GraphOptimizationLevel.ORT_DISABLE_ALL)
    return {
        argument.name: Tensor(
            DTYPES[argument.type],
            _static(argument.shape) if argument.shape or argument.name in scalars else None,
        )
        for argument in (*session.get_inputs(), *session.get_outputs())
        if argument.type in DTYPES
    }


def _scalars(model: onnx.ModelProto) -> set[str]:
    """Values that are known to have no dimensions."""
    graph = inferred(model).graph
    return {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape") and not value.type.tensor_type.shape.dim
    }


DTYPES = {
    f"tensor({name})": np.dtype(kind)
    for name, kind in {
        "float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_,
        "string": np.object_, **{each: each for each in (
            "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        )},
    }.items()
}  # fmt: skip
"""What ONNX Runtime calls the types that numpy has."""


def _static(shape: Sequence[int | str | None]) -> tuple[int, ...] | None:
    sizes = tuple(size for size in shape if isinstance(size, int))
    return sizes if len(sizes) == len(shape) else None


def _returning(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A model that returns other values of its graph, whose types ONNX Runtime finds itself."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.output[:]
    made.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return made


def part(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[np.dtype, Sequence[int | str]]],
    constant: Callable[[str], onnx.TensorProto],
) -> InferenceSession:  # fmt: skip
    """A session for some nodes of a model that returns what the last makes.

    `inputs` are dtype and shape by name; other operands that no node makes are constant.
    """
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)
        for name, (dtype, shape) in inputs.items()
    ]
    known = {*inputs, *(name for node in nodes for name in node.output)}
    constants = {name for node in nodes for name in node.input if name} - known
    graph = onnx.helper.make_graph(
        nodes, "part", values, [onnx.helper.make_empty_tensor_value_info(nodes[-1].output[0])],
        [constant(name) for name in sorted(constants)],
    )  # fmt: skip
    return open_session(onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    ))  # fmt: skip


@contextmanager
def told() -> Iterator[None]:
    """Makes what ONNX Runtime says of a model that it does not take a `ModelError`."""
    try:
        yield
    except Exception as error:  # its classes share no base of their own
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise ModelError(f"model: ONNX Runtime does not take it: {error}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what tools of ONNX say on the way.

    Handlers are the process's, and so is the state of these tools: one thread at a time.
    """
    root = logging.getLogger()
    with _ALONE:
        before, root.handlers = root.handlers, [logging.NullHandler()]
        onnxruntime.set_default_logger_severity(_SILENT)
        try:
            yield
        finally:
            root.handlers = before
            onnxruntime.set_default_logger_severity(2)


def oracle(model: onnx.ModelProto, outputs: Sequence[str] | None = None) -> InferenceSession:
    """A session whose bits are the reference of a QOperator model.

    Parameters
    ----------
    outputs : values within the model that it returns instead of the model's outputs
    """
    if outputs is None:
        return open_session(model)
    made = {name for node in model.graph.node for name in node.output}
    for name in outputs:
        if name not in made:
            raise ModelError(f"output {name}: no node of the model makes it")
    return open_session(_returning(model, outputs))
