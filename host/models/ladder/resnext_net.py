"""ResNeXt-101 (Xie et al., arXiv:1611.05431) as a PyTorch module."""

import torch
from torch import nn

from halfdome.host.models.ladder.layers import Unit

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
        stages, channels = [], _STEM
        for place, (count, made) in enumerate(STAGES):
            stride = 2 if place else 1
            taken = [channels, *[made] * (count - 1)]
            stages.append(nn.Sequential(
                *(Block(each, made, 1 if at else stride) for at, each in enumerate(taken))
            ))  # fmt: skip
            channels = made
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, _CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(image)).mean((2, 3)))


class Block(nn.Module):
    """Narrows, looks around in groups, widens, and adds its input or a product of that."""

    def __init__(self, taken: int, made: int, stride: int):
        super().__init__()
        narrow = made // 2
        self.channels = taken
        self.branch = nn.Sequential(
            Unit(taken, narrow, function=nn.ReLU()),
            Unit(narrow, narrow, 3, stride, _GROUPS, nn.ReLU()),
            Unit(narrow, made, closing=True),
        )
        same = stride == 1 and taken == made
        self.straight = nn.Identity() if same else Unit(taken, made, 1, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(image) + self.straight(image))
