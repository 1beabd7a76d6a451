"""What a quantiser calibrates by: the least and the greatest value of each tensor."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import calibrate, registry

from halfdome.host.frontend.net import used

Requests = Sequence[Mapping[str, np.ndarray]]
_UNLIKE = 16
"""How much larger than another a feature is of which one scale leaves that less than four bits."""
_MIXING = ("MatMul", "Gemm", "Concat")
"""Operators that want one scale for all features."""


def write_ranges(
    model: onnx.ModelProto, path: Path, requests: Requests, cache: Path, *, outside: bool
) -> list[str]:
    """Writes the ranges that requests show into a `cache`, as `quantize_static` reads them.

    Parameters
    ----------
    path : where `model` lies, its weights `outside` of the message or not

    Returns names of nodes that have to stay in floating point: a tensor of theirs, such as a mask
    of infinities, has no finite range, so no scale says it in 8 bits. The cache leaves it out.
    """
    calibrator = calibrate.create_calibrator(
        path, [*registry.QLinearOpsRegistry, *registry.QDQRegistry],
        augmented_model_path=str(path.with_suffix(".augmented.onnx")),
        use_external_data_format=outside,
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # all may be NaN
        calibrator.collect_data(_Reader(requests))
    found = dict(calibrator.compute_data().items())
    boundless = {
        name for name, each in found.items() if not np.isfinite(each.range_value).all()
    }  # fmt: skip
    finite = {name: each.range_value for name, each in found.items() if name not in boundless}
    calibrate.save_tensors_data(
        calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, finite), cache
    )
    return [
        node.name
        for node in model.graph.node
        if boundless.intersection((*used(node), *node.output))
    ]


def before_products(model: onnx.ModelProto, requests: Requests) -> list[str]:
    """Names of nodes that stay in floating point: between features of unlike size and products.

    Features are columns of an input with two dimensions. What scales each of them, as a
    preprocessor does, must see more of the smallest than one scale for all of them says.
    """
    unlike = {
        value.name
        for value in model.graph.input
        if len(value.type.tensor_type.shape.dim) == 2
        and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        and _are_unlike(np.concatenate([request[value.name] for request in requests]))
    }
    kept = []
    for node in model.graph.node:
        if unlike.intersection(node.input) and node.op_type not in _MIXING:
            unlike.update(node.output)
            kept.append(node.name)
    return kept


def _are_unlike(features: np.ndarray) -> bool:
    """Whether a feature of float32[samples, features] has much less of a range than all have."""
    if not features.size:
        return False
    spans = np.ptp(features, axis=0)
    return bool(((spans > 0) & (spans * _UNLIKE < np.ptp(features))).any())


class _Reader(calibrate.CalibrationDataReader):
    def __init__(self, requests: Requests):
        self._requests: Iterator[Mapping[str, np.ndarray]] = iter(requests)

    def get_next(self) -> dict[str, np.ndarray]:
        return dict(next(self._requests, {}))
