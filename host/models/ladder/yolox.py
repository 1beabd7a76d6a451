"""Rung 8: YOLOX (Ge et al., arXiv:2107.08430), trained by ddddocr to find letters in pictures."""

import numpy as np

from halfdome.host.models.ladder import wheels
from halfdome.host.models.ladder.boxes import Boxes, suppressed
from halfdome.host.models.ladder.lettering import lettered
from halfdome.host.models.ladder.rung import Rung

INPUT = "images"
OUTPUT = "output"
FILE = "ddddocr/common_det.onnx"
"""By its path inside its wheel."""
_OPSET = 17
_SIDE = 416
_STRIDES = (8, 16, 32)
_LEAST_SCORE = 0.2
_MOST_OVERLAP = 0.45
_ASKED = (("coffee.png", "AB7K"), ("chelsea.png", "XYQ"), ("rocket.jpg", "R2D"))
_SEEN = (
    ("astronaut.png", "G5N3"), ("motorcycle_left.png", "KLM9"), ("retina.jpg", "4TUV"),
    ("hubble_deep_field.jpg", "ZW8E"), ("ihc.png", "CHF6"), ("motorcycle_right.png", "SOJ2"),
)  # fmt: skip


def yolox() -> Rung:
    """YOLOX: `images` float32[1, 3, 416, 416], blue first, to `output` float32[1, 3549, 6].

    A row holds the middle of a box, its logarithmic size, how sure it is that something is there
    and that this is a letter; `boxes` reads them. Raises `ImportError` without onnx,
    `MissingModel` without `make models`.
    """
    try:
        import onnx
        from onnx import version_converter
    except ImportError as error:
        raise ImportError(f"rung 8: {error}; `pip install 'halfdome[models]'`") from None

    model = version_converter.convert_version(onnx.load(wheels.find(FILE)), _OPSET)
    asked, seen = (
        [_request(name, letters, place) for place, (name, letters) in enumerate(pictures)]
        for pictures in (_ASKED, _SEEN)
    )
    return Rung("YOLOX", model, asked, seen)


def boxes(output: np.ndarray) -> Boxes:
    """The letters that an output shows, the surest first."""
    rows = output.reshape(-1, output.shape[-1])
    sides = [_SIDE // stride for stride in _STRIDES]
    corners = np.concatenate([np.indices((side, side))[::-1].reshape(2, -1).T for side in sides])
    strides = np.repeat(_STRIDES, np.square(sides))[:, None]
    middle = (rows[:, :2] + corners) * strides
    half = np.exp(rows[:, 2:4]) * strides / 2
    found = Boxes(np.concatenate([middle - half, middle + half], 1), rows[:, 4] * rows[:, 5])
    return suppressed(found, _LEAST_SCORE, _MOST_OVERLAP)


def _request(photograph: str, letters: str, seed: int) -> dict[str, np.ndarray]:
    pixels = lettered(photograph, letters, seed, (_SIDE, _SIDE))[:, :, ::-1]
    return {INPUT: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)}
