"""Rung 8: PP-OCRv4's detection (Liao et al., arXiv:1911.08947), which finds lines of text."""

import numpy as np

from halfdome.host.models.ladder import lettering, photographs, wheels
from halfdome.host.models.ladder.boxes import Boxes
from halfdome.host.models.ladder.rung import Rung

INPUT = "x"
OUTPUT = "sigmoid_0.tmp_0"
FILE = "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
"""By its path inside its wheel."""
_OPSET = 17
_SIZE = (192, 384)
_PAGE = "page.png"
_THRESHOLD, _LEAST_SCORE = 0.3, 0.5
_GROWN = 1.6
"""What was trained are the inner parts of lines, this much smaller."""
_LEAST_SIDE = 3
_TEXT_OF_PAGES = (
    "Region-based segmentation", "Let us first determine", "markers of the coins",
    "and the background.", "These markers are pixels", "that we can label",
    "unambiguously as either", "object or background", "The quick brown fox",
    "jumps over the lazy dog", "1234567890", "Espresso 2.50",
)  # fmt: skip
_LINES = 4
_CALIBRATED = 8


def pp_ocr() -> Rung:
    """PP-OCRv4's detection: `x` float32[1, 3, 192, 384] to how likely each pixel is of text.

    `lines` makes boxes of that. Raises `ImportError` without onnx, `MissingModel` without `make
    models`.
    """
    try:
        import onnx
        from onnx import version_converter
    except ImportError as error:
        raise ImportError(f"rung 8: {error}; `pip install 'halfdome[models]'`") from None

    model = version_converter.convert_version(onnx.load(wheels.find(FILE)), _OPSET)
    for value, channels in ((model.graph.input[0], 3), (model.graph.output[0], 1)):
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, channels, *_SIZE), strict=True):
            dim.dim_value = size
    asked, seen = (
        [_page(seed) for seed in seeds] for seeds in (range(100, 102), range(_CALIBRATED))
    )
    asked.append(photographs.load(_PAGE, _SIZE))
    return Rung("PP-OCR", model, [*map(_request, asked)], [*map(_request, seen)])


def lines(output: np.ndarray) -> Boxes:
    """The lines of text that an output shows, from top to bottom."""
    likely = output.reshape(output.shape[-2:])
    edges, scores = [], []
    for rows, columns in _islands(likely > _THRESHOLD):
        low, high = (np.array([f(columns), f(rows)]) for f in (np.min, np.max))
        size = high + 1 - low
        score = likely[low[1] : high[1] + 1, low[0] : high[0] + 1].mean()
        if min(size) < _LEAST_SIDE or score < _LEAST_SCORE:
            continue
        border = size.prod() * _GROWN / (2 * size.sum())
        edges.append(np.concatenate([low - border, high + 1 + border]))
        scores.append(score)
    return Boxes(np.array(edges).reshape(-1, 4), np.array(scores))


def _islands(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of the pixels of each part that hangs together, by edges and corners."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    found = []
    for start in map(tuple, np.argwhere(mask).tolist()):
        if start not in left:
            continue
        left.discard(start)
        island, waiting = [start], [start]
        while waiting:
            row, column = waiting.pop()
            for other in ((row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)):
                if other in left:
                    left.discard(other)
                    island.append(other)
                    waiting.append(other)
        rows, columns = np.array(island).T
        found.append((rows, columns))
    return found


def _page(seed: int) -> np.ndarray:
    places = np.random.default_rng(seed).permutation(len(_TEXT_OF_PAGES))[:_LINES]
    return lettering.page([_TEXT_OF_PAGES[place] for place in places], seed, _SIZE)


def _request(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Blue first, from -1 to 1."""
    scaled = pixels[:, :, ::-1].astype(np.float32) / np.float32(127.5) - 1
    return {INPUT: np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])}
