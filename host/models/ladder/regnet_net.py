"""RegNetY-128GF (Radosavovic et al., arXiv:2003.13678) as a PyTorch module."""

import torch
from torch import nn

from halfdome.host.models.ladder.layers import Squeeze, Unit

STAGES = ((2, 528), (7, 1056), (17, 2904), (1, 7392))
"""Of each: blocks, channels."""
_GROUP = 264
_STEM, _CLASSES = 32, 1000


class RegNetY(nn.Module):
    """float32[n, 3, h, w] to scores float32[n, 1000]: groups of 264 channels, weighed by means."""

    def __init__(self):
        super().__init__()
        self.stem = Unit(3, _STEM, 3, 2, function=nn.ReLU())
        stages, channels = [], _STEM
        for count, made in STAGES:
            taken = [channels, *[made] * (count - 1)]
            stages.append(nn.Sequential(
                *(Block(each, made, 1 if at else 2) for at, each in enumerate(taken))
            ))  # fmt: skip
            channels = made
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, _CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(image)).mean((2, 3)))


class Block(nn.Module):
    """A product, a look around in groups, weights by means, a product; adds its input."""

    def __init__(self, taken: int, made: int, stride: int):
        super().__init__()
        self.channels = taken
        self.branch = nn.Sequential(
            Unit(taken, made, function=nn.ReLU()),
            Unit(made, made, 3, stride, made // _GROUP, nn.ReLU()),
            Squeeze(made, taken // 4, nn.ReLU(), nn.Sigmoid()),
            Unit(made, made, closing=True),
        )
        same = stride == 1 and taken == made
        self.straight = nn.Identity() if same else Unit(taken, made, 1, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(image) + self.straight(image))
