"""RegNetY-128GF (Radosavovic et al., arXiv:2003.13678) as a PyTorch module."""

import torch
from torch import nn

from halfdome.host.models.ladder.layers import Residual, Squeeze, Unit, stages

STAGES = ((2, 528), (7, 1056), (17, 2904), (1, 7392))
"""Of each: blocks, channels."""
_GROUP = 264
_STEM, _CLASSES = 32, 1000


class RegNetY(nn.Module):
    """float32[n, 3, h, w] to scores float32[n, 1000]: groups of 264 channels, weighed by means."""

    def __init__(self):
        super().__init__()
        self.stem = Unit(3, _STEM, 3, 2, function=nn.ReLU())
        self.stages = stages(Block, _STEM, STAGES, (2, 2, 2, 2))
        self.head = nn.Linear(STAGES[-1][1], _CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(image)).mean((2, 3)))


class Block(Residual):
    """A product, a look around in groups, weights by means, a product; adds its input."""

    def __init__(self, taken: int, made: int, stride: int):
        branch = nn.Sequential(
            Unit(taken, made, function=nn.ReLU()),
            Unit(made, made, 3, stride, made // _GROUP, nn.ReLU()),
            Squeeze(made, taken // 4, nn.ReLU(), nn.Sigmoid()),
            Unit(made, made, closing=True),
        )
        super().__init__(branch, taken, made, stride)
