"""FBNetV3-G (Dai et al., arXiv:2006.02049) as a PyTorch module."""

import torch
from torch import nn

from halfdome.host.models.ladder.layers import Squeeze, Unit

STAGES = (
    ((3, 0, 3, 1, 0, 24),),
    ((1, 96, 5, 2, 0, 40), (4, 80, 5, 1, 0, 40)),
    ((1, 160, 5, 2, 16, 56), (4, 168, 5, 1, 16, 56)),
    ((1, 280, 5, 2, 0, 104), (4, 312, 3, 1, 0, 104)),
    ((1, 520, 3, 1, 32, 160), (8, 480, 5, 1, 40, 160)),
    ((1, 960, 3, 2, 40, 264), (6, 1320, 5, 1, 64, 264), (1, 1584, 5, 1, 64, 288),
     (1, 1728, 5, 1, 72, 288)),
)  # fmt: skip
"""Of each, by alike blocks: their number, channels within, window, stride, channels of the means'
products, channels made. 0: as many within as taken, no weighing."""
_STEM, _WIDE, _HEAD, _CLASSES = 32, 1728, 1984, 1000


class FBNet(nn.Module):
    """float32[n, 3, h, w] to scores float32[n, 1000]."""

    def __init__(self):
        super().__init__()
        self.stem = Unit(3, _STEM, 3, 2, function=nn.Hardswish())
        stages, channels = [], _STEM
        for rows in STAGES:
            blocks = []
            for count, within, window, stride, squeezed, made in rows:
                for _ in range(count):
                    blocks.append(Block(channels, within, window, stride, squeezed, made))
                    channels = made
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.wide = Unit(channels, _WIDE, function=nn.Hardswish())
        self.top = nn.Sequential(nn.Conv2d(_WIDE, _HEAD, 1, bias=False), nn.Hardswish())
        self.head = nn.Linear(_HEAD, _CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        means = self.wide(self.stages(self.stem(image))).mean((2, 3), keepdim=True)
        return self.head(self.top(means).flatten(1))


class Block(nn.Module):
    """Widens, looks around in each channel, weighs by means, narrows; adds its input if it may."""

    def __init__(self, taken: int, within: int, window: int, stride: int, squeezed: int, made: int):
        super().__init__()
        self.channels = taken
        wide = within or taken
        layers = [Unit(taken, wide, function=nn.Hardswish())] if within else []
        layers.append(Unit(wide, wide, window, stride, wide, nn.Hardswish()))
        if squeezed:
            layers.append(Squeeze(wide, squeezed, nn.Hardswish(), nn.Hardsigmoid()))
        self.adds = stride == 1 and taken == made
        self.branch = nn.Sequential(*layers, Unit(wide, made, closing=self.adds))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.branch(image)
        return made + image if self.adds else made
