"""Rung 2: P-Net of MTCNN (Zhang et al., arXiv:1604.02878), which proposes where faces are.

The weights are those of facenet-pytorch, whose parameters have the names of the layers here.
"""

import numpy as np

from halfdome.host.models.ladder import photographs, wheels
from halfdome.host.models.ladder.rung import Rung

INPUT = "image"
OUTPUTS = ("boxes", "faces")


def p_net(height: int = 64, width: int = 64) -> Rung:
    """P-Net on photographs of one size: `boxes` float32[1, 4, h, w], `faces` float32[1, 2, h, w].

    h and w are about half of the input's; a place sees 12 × 12 pixels. `faces` holds the
    probabilities of no face and of a face, `boxes` how far its edges are from the place. Raises
    `ImportError` without PyTorch, `MissingModel` without `make models`, `ValueError` for
    photographs below 12 × 12.
    """
    if min(height, width) < 12:
        raise ValueError(f"height={height}, width={width}: must be at least 12 each")
    from halfdome.host.frontend.torch_export import from_torch
    from halfdome.host.models.ladder.p_net import PNet, torch

    weights = torch.load(wheels.find("facenet_pytorch/data/pnet.pt"), weights_only=True)
    network = PNet()
    network.load_state_dict(weights)
    size = (height, width)
    asked = [_request(name, size) for name in photographs.TO_ASK]
    seen = [_request(name, size) for name in photographs.TO_CALIBRATE]
    exported = from_torch(network.eval(), (torch.from_numpy(asked[0][INPUT]),), outputs=OUTPUTS)
    return Rung("P-Net", exported.rest, asked, seen)


def _request(name: str, size: tuple[int, int]) -> dict[str, np.ndarray]:
    pixels = photographs.load(name, size).astype(np.float32)
    return {INPUT: np.ascontiguousarray(((pixels - 127.5) / 128).transpose(2, 0, 1)[None])}
