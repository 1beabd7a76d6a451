"""What a quantiser calibrates by: the least and the greatest value of each tensor."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import calibrate, registry

from halfdome.host.frontend.net import used

Requests = Sequence[Mapping[str, np.ndarray]]


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


class _Reader(calibrate.CalibrationDataReader):
    def __init__(self, requests: Requests):
        self._requests: Iterator[Mapping[str, np.ndarray]] = iter(requests)

    def get_next(self) -> dict[str, np.ndarray]:
        return dict(next(self._requests, {}))
