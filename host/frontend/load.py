"""Reads an ONNX model, checks it and fixes its shapes, so that all that follows is static."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir
from google.protobuf.message import DecodeError
from onnx import checker, external_data_helper
from onnx.helper import tensor_dtype_to_np_dtype
from onnx_ir.passes import common as passes
from onnxscript import optimizer

from halfdome.host.frontend.ceilings import without_windows_beyond
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.net import nodes_within
from halfdome.host.frontend.plain import make_plain
from halfdome.host.frontend.sessions import DTYPES, quiet, tensors
from halfdome.host.frontend.weights import inferred, put_back, set_aside

Shapes = Mapping[str, Sequence[int]]
_NO_SHAPES: Shapes = MappingProxyType({})
_SHAPES_ARE = "must be sizes by the name of an input, like {'x': (1, 3, 224, 224)}"
_KEEP_SHAPES = ("Scaler", "Normalizer", "Imputer")
"""Operators of scikit-learn's models whose output has the shape of their input; it is float32, but
for that of Imputer."""


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input of `NAME=1x3x224x224` strings, as `--shape` has them.

    Raises `ModelError` for a string that is not one, and for a name that comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        parts = sizes.lower().split("x")
        if not name or not all(part.isdecimal() for part in parts):
            raise ModelError(f"--shape {text}: must be like NAME=1x3x224x224")
        if name in shapes:
            raise ModelError(f"--shape {text}: {name} has a shape already")
        shapes[name] = tuple(map(int, parts))
    return shapes


def load(
    source: str | Path | bytes | onnx.ModelProto, shapes: Shapes = _NO_SHAPES
) -> onnx.ModelProto:
    """A model whose shapes are static wherever they can be known, its constants folded.

    Parameters
    ----------
    source : path of an ONNX file, its bytes, or a model, which stays as it is
    shapes : int sizes by input, for inputs that leave sizes open

    Raises `ModelError` for a file that is missing or no ONNX model, external data that are missing,
    an operator that is unknown or makes dictionaries, an input that leaves a size open, and a shape
    that is of no input or contradicts the model's.
    """
    name, model, folder = _read(source)
    if not model.ir_version or not model.graph.output:
        raise ModelError(f"{name}: is no ONNX model, or an empty one")
    _load_external_data(name, model, folder)
    make_plain(model)
    _drop_functions_never_called(model)
    _check_operators(name, model)
    _fix_shapes(model, shapes)
    heavy = set_aside(model)
    model = without_windows_beyond(model)
    if not all(_shaped(value) for value in model.graph.output):
        model = inferred_by_runtime(_inferred(model))
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ModelError(f"{name}: breaks a rule of ONNX: {_first_line(error)}") from None
    made = _folded(model)
    put_back(made, heavy)
    _drop_unused(made, {tensor.name for tensor in heavy})
    return made


def _read(source: str | Path | bytes | onnx.ModelProto) -> tuple[str, onnx.ModelProto, Path | None]:
    """What errors call it, the model, and the folder that its external data are relative to."""
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return "model", model, None
    if isinstance(source, bytes):
        return "model", _parsed("model", source), None
    path = Path(source)
    if path.is_dir():
        raise ModelError(f"{path}: is a folder, must be an ONNX file; name the .onnx file in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{path}: there is no such file; it would be relative to {Path.cwd()}"
        ) from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    return str(path), _parsed(str(path), content), path.parent


def _parsed(name: str, content: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelError(
            f"{name}: is no ONNX model; export one, as torch.onnx.export does"
        ) from None


def _load_external_data(name: str, model: onnx.ModelProto, folder: Path | None) -> None:
    outside = [
        tensor
        for tensor in external_data_helper._get_all_tensors(model)
        if external_data_helper.uses_external_data(tensor)
    ]
    for tensor in outside:
        file = external_data_helper.ExternalDataInfo(tensor).location
        if folder is None:
            raise ModelError(
                f"{name}: {tensor.name} lies outside it, in {file}; give the path of the file, "
                f"or load it by onnx.load, which reads such data"
            )
        if not (folder / file).is_file():
            raise ModelError(
                f"{name}: {tensor.name} lies in {folder / file}, which is missing; "
                f"put that file beside the model"
            )
    if outside:
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except (checker.ValidationError, OSError, ValueError) as error:
            raise ModelError(f"{name}: its external data: {_first_line(error)}") from None


@cache
def _operators_of_runtime() -> frozenset[tuple[str, str]]:
    """(domain, operator) of all that ONNX Runtime knows."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    return frozenset((schema.domain, schema.name) for schema in get_all_operator_schema())


def _drop_functions_never_called(model: onnx.ModelProto) -> None:
    """ONNX Runtime takes its own operator wherever a function of the model has the same name."""
    own = _operators_of_runtime()
    called = [each for each in model.functions if (each.domain, each.name) not in own]
    if len(called) < len(model.functions):
        del model.functions[:]
        model.functions.extend(called)


def _check_operators(name: str, model: onnx.ModelProto) -> None:
    known = {(function.domain, function.name) for function in model.functions}
    known |= _operators_of_runtime()
    known |= {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas()}
    domains = {domain for domain, _ in known}
    for node in nodes_within(model.graph):
        if (node.domain, node.op_type) == ("ai.onnx.ml", "ZipMap"):
            raise ModelError(
                f"{name}: node {node.name or node.output[0]}: ZipMap makes dictionaries, outputs "
                'must be tensors; pass options={"zipmap": False} to skl2onnx.to_onnx, zipmap=False '
                f"to onnxmltools, or return {node.input[0]} in its place"
            )
        if (node.domain, node.op_type) in known:
            continue
        where = f"node {node.name or node.output[0]}"
        if node.domain not in domains:
            raise ModelError(
                f"{name}: {where}: operator {node.op_type} is of the unknown domain "
                f"{node.domain}; "
                f"export the model with standard operators"
            )
        raise ModelError(
            f"{name}: {where}: operator {node.op_type} is unknown; is it misspelled, or newer than "
            f"onnx {onnx.__version__}?"
        )


def _fix_shapes(model: onnx.ModelProto, shapes: Shapes) -> None:
    """Writes `shapes` into the inputs, and a size into every place that has the same symbol."""
    if not isinstance(shapes, Mapping):
        raise ModelError(f"shapes={shapes!r}: {_SHAPES_ARE}")
    inputs = {value.name: value for value in model.graph.input}
    symbols: dict[str, int] = {}
    for name, shape in shapes.items():
        if isinstance(shape, str | bytes) or not isinstance(shape, Sequence | np.ndarray):
            raise ModelError(f"shapes[{name!r}]={shape!r}: {_SHAPES_ARE}")
        if name not in inputs:
            raise ModelError(
                f"--shape {name}=...: there is no such input; inputs are {', '.join(inputs)}"
            )
        _fix(name, inputs[name].type.tensor_type, tuple(shape), symbols)
    for name, value in inputs.items():
        if not value.type.HasField("tensor_type"):
            kind = value.type.WhichOneof("value")
            raise ModelError(f"input {name}: is a {kind}, must be a tensor; export it without")
        tensor = value.type.tensor_type
        if tensor.elem_type and tensor_dtype_to_np_dtype(tensor.elem_type) not in DTYPES.values():
            kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            raise ModelError(f"input {name}: is {kind}, which numpy lacks; export it as float32")
        told = [_fixed(dim) or dim.dim_param in symbols for dim in tensor.shape.dim]
        if name not in shapes and not (tensor.HasField("shape") and all(told)):
            sizes = [str(_size(dim)) for dim in tensor.shape.dim]
            hint = "x".join(size if size.isdecimal() else "1" for size in sizes) or "1x..."
            raise ModelError(
                f"input {name}: leaves sizes open, [{', '.join(sizes)}]; "
                f"fix them, as with --shape {name}={hint}"
            )
        for dim in tensor.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = symbols[dim.dim_param]
    for value in (*model.graph.output, *model.graph.value_info):
        # They follow from the inputs' shapes; what stands there may still be of another size.
        if value.type.HasField("tensor_type"):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in symbols:
                    dim.dim_value = symbols[dim.dim_param]


def _fix(
    name: str, tensor: onnx.TypeProto.Tensor, shape: tuple[int, ...], symbols: dict[str, int]
) -> None:
    given = f"--shape {name}={'x'.join(map(str, shape))}"
    if not all(_is_size(size) for size in shape):
        raise ModelError(f"{given}: sizes must be whole numbers, 0 or more")
    if not tensor.HasField("shape"):
        for size in shape:
            tensor.shape.dim.add().dim_value = int(size)
    own = ", ".join(str(_size(dim)) for dim in tensor.shape.dim)
    if len(shape) != len(tensor.shape.dim):
        raise ModelError(f"{given}: contradicts the model, where {name} is [{own}]")
    for dim, size in zip(tensor.shape.dim, map(int, shape), strict=True):
        fixed = dim.dim_value if _fixed(dim) else symbols.get(dim.dim_param, size)
        if fixed != size:
            raise ModelError(f"{given}: contradicts the model, where {name} is [{own}]")
        if dim.dim_param.isidentifier():  # some exporters write ? for every size that is open
            symbols[dim.dim_param] = size
        dim.dim_value = size


def _is_size(size: object) -> bool:
    return isinstance(size, int | np.integer) and not isinstance(size, bool) and int(size) >= 0


def _shaped(value: onnx.ValueInfoProto) -> bool:
    """Whether it is known to be a tensor of so many dimensions, or no tensor."""
    kind = value.type.WhichOneof("value")
    return value.type.tensor_type.HasField("shape") if kind in (None, "tensor_type") else True


def _fixed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Some exporters write 0 or -1 for a size that is open; one of 0 is told by `shapes`."""
    return dim.HasField("dim_value") and dim.dim_value > 0


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    return dim.dim_value if _fixed(dim) else dim.dim_param or "?"


def _drop_unused(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Drops those of some constants that nothing uses."""
    used = {name for node in nodes_within(model.graph) for name in node.input}
    used |= {value.name for value in model.graph.output}
    constants = model.graph.initializer
    for place in reversed(range(len(constants))):
        if constants[place].name in names and constants[place].name not in used:
            del constants[place]


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded and shapes inferred.

    Equal constants stay apart: ONNX Runtime fails where it rewrites one that two nodes share.
    """
    model = _inferred(model)
    made = _inlined(model)
    try:
        with quiet():
            optimizer.fold_constants(made, onnx_shape_inference=True)
    except Exception:  # whatever an operator's evaluator raises; what is unfolded computes the same
        made = _inlined(model)
    optimizer.remove_unused_nodes(made)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(made)
    return _inferred(onnx_ir.to_proto(made))


def _inlined(model: onnx.ModelProto) -> onnx_ir.Model:
    """The model without functions.

    Functions may tell another operator set than the model. The checker has found their operators
    to be alike in both, so they get the model's, without which they are not inlined.
    """
    versions = {each.domain: each.version for each in model.opset_import}
    for function in model.functions:
        for each in function.opset_import:
            each.version = versions.get(each.domain, each.version)
    made = onnx_ir.from_proto(model)
    optimizer.inline(made)
    return made


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Types and shapes inferred, behind operators of which ONNX does not infer them, too."""
    made = inferred(model)
    values = (*made.graph.input, *made.graph.value_info, *made.graph.output)
    known = {each.name: each.type for each in values if each.type.tensor_type.HasField("shape")}
    told = False
    for node in made.graph.node:
        keeps = node.op_type in _KEEP_SHAPES and node.domain == "ai.onnx.ml"
        if keeps and node.input[0] in known and node.output[0] not in known:
            tensor = known[node.input[0]].tensor_type
            shape = [dim.dim_value for dim in tensor.shape.dim]
            kind = tensor.elem_type if node.op_type == "Imputer" else onnx.TensorProto.FLOAT
            value = onnx.helper.make_tensor_value_info(node.output[0], kind, shape)
            made.graph.value_info.append(value)
            known[value.name] = value.type
            told = True
    return inferred(made) if told else made


def inferred_by_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with types and shapes of what only ONNX Runtime infers, such as its own operators.

    It is the model itself if nothing is untold.
    """
    told = {value.name for value in model.graph.value_info if value.type.WhichOneof("value")}
    told |= {value.name for value in model.graph.output if _shaped(value)}
    untold = {name for node in model.graph.node for name in node.output if name} - told
    if not untold:
        return model
    outputs = {value.name: value for value in model.graph.output}
    for name, tensor in tensors(model).items():
        if name in untold:
            kind = onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
            value = onnx.helper.make_tensor_value_info(name, kind, tensor.shape)
            (outputs[name] if name in outputs else model.graph.value_info.add()).CopyFrom(value)
    return inferred(model)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
