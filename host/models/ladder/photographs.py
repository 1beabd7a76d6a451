"""Photographs that scikit-image carries in its wheel, as models want to see them."""

import numpy as np

from halfdome.host.models.ladder import wheels

TO_CALIBRATE = (
    "motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "hubble_deep_field.jpg", "ihc.png",
    "rocket.jpg",
)  # fmt: skip
TO_ASK = ("astronaut.png", "chelsea.png", "coffee.png")


def load(name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """A photograph: uint8[height, width, 3], red first.

    `size` is (height, width), to which it is resized if given. Raises `MissingModel` unless `make
    models` has fetched it.
    """
    from PIL import Image

    with Image.open(wheels.find(f"skimage/data/{name}")) as file:
        image = file.convert("RGB")
    if size is not None:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)
