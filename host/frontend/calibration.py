"""Requests in files, and those that show a model's ranges, checked against what it takes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import onnx

from halfdome.host import arguments
from halfdome.host.frontend.errors import ModelError

Calibration = Sequence[Mapping[str, np.ndarray]] | Mapping[str, np.ndarray]


def read_requests(path: str | Path, option: str) -> list[dict[str, np.ndarray]]:
    """Arrays of a file of numpy, or of a folder of them in the order of their names.

    `option` is what errors call it, like `--calibrate`.

    Raises `ModelError` for what is missing or no such file.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise ModelError(f"{option} {path}: no .npz file is in this folder")
        return [_read(file, option) for file in files]
    if not path.exists():
        raise ModelError(
            f"{option} {path}: there is no such file; numpy.savez makes one, its keys the "
            f"names of the inputs"
        )
    return [_read(path, option)]


def _read(path: Path, option: str) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.lib.npyio.NpzFile):
            with archive:
                return dict(archive)
    except (BadZipFile, ValueError, OSError, EOFError):
        pass
    raise ModelError(f"{option} {path}: is no .npz file of arrays; numpy.savez makes one")


def given(name: str, value: object, dtype: np.dtype) -> np.ndarray:
    """The array of a request; text becomes the objects that a model of strings takes.

    Raises `ModelError` for what is no array.
    """
    try:
        array = arguments.plain(name, value)
    except ValueError as error:
        raise ModelError(str(error)) from None
    return array.astype(object) if dtype.kind == "O" and array.dtype.kind == "U" else array


def written(array: np.ndarray) -> np.ndarray:
    """An array as a file of requests holds it: objects are text."""
    return array.astype(str) if array.dtype.kind == "O" else array


def entries(calibration: Calibration) -> list[Mapping[str, np.ndarray]]:
    """Calibration as a list; a mapping alone is one entry.

    Raises `ModelError` for what is neither a mapping nor an iterable of them.
    """
    remedy = "must be a list of requests, arrays by the name of an input, like [{'x': x}]"
    if isinstance(calibration, Mapping):
        return [calibration]
    if isinstance(calibration, str | bytes) or not isinstance(calibration, Iterable):
        raise ModelError(f"calibration: is of type {type(calibration).__name__}, {remedy}")
    found = list(calibration)
    for place, arrays in enumerate(found):
        if not isinstance(arrays, Mapping):
            kind = type(arrays).__name__
            raise ModelError(f"calibration[{place}]: is of type {kind}; calibration {remedy}")
    return found


def requests_of(model: onnx.ModelProto, calibration: Calibration) -> list[dict[str, np.ndarray]]:
    """Requests that the model takes: an extra first axis counts them.

    Raises `ModelError` for an input that is missing, of another shape or dtype, or holds a NaN,
    what is no request, and for none at all.
    """
    requests = [
        request
        for place, arrays in enumerate(entries(calibration))
        for request in _split(model, f"calibration[{place}]", arrays)
    ]
    if not requests:
        raise ModelError("calibration: is empty; give a request or more")
    return requests


def _split(
    model: onnx.ModelProto, where: str, arrays: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    if unknown := set(arrays) - set(inputs):
        raise ModelError(
            f"{where}: {min(unknown, key=str)}: there is no such input; "
            f"inputs are {', '.join(inputs)}"
        )
    found, counts = {}, set()
    for name, tensor in inputs.items():
        if name not in arrays:
            raise ModelError(f"{where}: input {name} is missing; give an array of this name")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        array = given(f"{where}: input {name}", arrays[name], dtype)
        shape = tuple(dim.dim_value for dim in tensor.shape.dim)
        if array.dtype != dtype or shape not in (array.shape, array.shape[1:]):
            sizes = ", ".join(map(str, shape))
            raise ModelError(
                f"{where}: input {name}: is {arguments.described(array)}, must be {dtype}"
                f"[{sizes}], or many of them along an extra first axis"
            )
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ModelError(f"{where}: input {name}: holds a NaN; leave it out")
        many = array.ndim > len(shape)
        found[name] = array if many else array[None]
        counts.add(len(found[name]))
    if len(counts) > 1:
        sizes = ", ".join(f"{name} {len(array)}" for name, array in found.items())
        raise ModelError(f"{where}: inputs differ in how many requests they hold: {sizes}")
    for place in range(counts.pop() if counts else 0):
        yield {name: np.asarray(array[place]) for name, array in found.items()}
