"""Photographs in the wheels of scikit-image and scikit-learn, as models want to see them."""

from pathlib import Path

import numpy as np

from halfdome.host.models.ladder import wheels

TO_CALIBRATE = (
    "motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "hubble_deep_field.jpg", "ihc.png",
    "rocket.jpg",
)  # fmt: skip
TO_ASK = ("astronaut.png", "chelsea.png", "coffee.png")
_OF_SKLEARN = ("china.jpg", "flower.jpg")
_MEANS = np.array([123.7, 116.3, 103.5], np.float32)
_SPREADS = np.array([58.4, 57.1, 57.4], np.float32)
"""Of red, green and blue in ImageNet."""
_BORDER = 8 / 7
"""Of a picture that is cut to its middle: how much longer its sides are before."""


def load(name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """A photograph: uint8[height, width, 3], red first.

    `size` is (height, width), to which it is resized if given. Raises `MissingModel` unless `make
    models` has fetched it, and `ImportError` for one of scikit-learn without that.
    """
    from PIL import Image

    with Image.open(_path(name)) as file:
        image = file.convert("RGB")
    if size is not None:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def middle(image: np.ndarray, side: int) -> np.ndarray:
    """What classifiers look at: the middle of a photograph without its border, as a square."""
    from PIL import Image

    height, width, _ = image.shape
    cut = min(height, width) / _BORDER
    top, left = (height - cut) / 2, (width - cut) / 2
    box = (left, top, left + cut, top + cut)
    made = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box)
    return np.asarray(made)


def normalised(name: str, side: int = 224) -> np.ndarray:
    """A photograph as networks for ImageNet take it: float32[1, 3, side, side]."""
    pixels = load(name, (side, side)).astype(np.float32)
    return np.ascontiguousarray(((pixels - _MEANS) / _SPREADS).transpose(2, 0, 1)[None])


def _path(name: str) -> Path:
    if name not in _OF_SKLEARN:
        return wheels.find(f"skimage/data/{name}")
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / name
