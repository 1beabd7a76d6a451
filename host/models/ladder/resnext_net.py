"""ResNeXt-101 (Xie et al., arXiv:1611.05431) as a PyTorch module."""

import torch
from torch import nn

from halfdome.host.models.ladder.layers import Residual, Unit, stages

STAGES = ((3, 256), (4, 512), (23, 1024), (3, 2048))
"""Of each: blocks, channels."""
_GROUPS = 32
_STEM, _CLASSES = 64, 1000


class ResNeXt(nn.Module):
    """float32[n, 3, h, w] to scores float32[n, 1000]: groups of 4, 8, 16 and 32 channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            Unit(3, _STEM, 7, 2, function=nn.ReLU()), nn.MaxPool2d(3, 2, padding=1)
        )
        self.stages = stages(Block, _STEM, STAGES, (1, 2, 2, 2))
        self.head = nn.Linear(STAGES[-1][1], _CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(image)).mean((2, 3)))


class Block(Residual):
    """Narrows, looks around in groups, widens, and adds its input or a product of that."""

    def __init__(self, taken: int, made: int, stride: int):
        narrow = made // 2
        branch = nn.Sequential(
            Unit(taken, narrow, function=nn.ReLU()),
            Unit(narrow, narrow, 3, stride, _GROUPS, nn.ReLU()),
            Unit(narrow, made, closing=True),
        )
        super().__init__(branch, taken, made, stride)
