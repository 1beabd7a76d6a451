"""Letters on photographs and lines on pages, for models that find text."""

from collections.abc import Sequence

import numpy as np

from halfdome.host.models.ladder import photographs

_SIZES = (36, 60)
"""Pixels from one line to the next of the smallest and largest letters."""
_LINES = (16, 34)
"""The same of lines on a page."""


def lettered(photograph: str, letters: str, seed: int, size: tuple[int, int]) -> np.ndarray:
    """A photograph of `size` with letters anywhere on it, each in one colour and one size.

    uint8[height, width, 3], red first. Letters do not meet: each has a column for itself.
    """
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    image = Image.fromarray(photographs.load(photograph, size))
    draw = ImageDraw.Draw(image)
    height, width = size
    column = width // max(1, len(letters))
    for place, letter in enumerate(letters):
        font = ImageFont.load_default(int(rng.integers(*_SIZES)))
        at = (place * column + column // 8, int(rng.integers(0, height - 2 * _SIZES[1] + 1)))
        colour = tuple(rng.integers(0, 256, 3).tolist())
        draw.text(at, letter, colour, font, stroke_width=2)
    return np.asarray(image)


def page(lines: Sequence[str], seed: int, size: tuple[int, int]) -> np.ndarray:
    """Dark lines of text on bright paper of `size`: uint8[height, width, 3], red first."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size[::-1], tuple(rng.integers(190, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    top = 8
    for line in lines:
        pixels = int(rng.integers(*_LINES))
        at, ink = (int(rng.integers(5, 60)), top), tuple(rng.integers(0, 90, 3).tolist())
        draw.text(at, line, ink, ImageFont.load_default(pixels))
        top += pixels + int(rng.integers(8, 16))
    return np.asarray(image)
