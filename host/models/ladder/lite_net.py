"""EfficientNet-Lite0 as a PyTorch module; its parameters have the names of the trained ones."""

import torch
from torch import nn
from torch.nn import functional

_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
"""Of each: blocks, window, stride of the first block, widening, channels."""
_STEM, _HEAD, _CLASSES = 32, 1280, 1000


class LiteNet(nn.Module):
    """float32[n, 3, h, w] to the scores of ImageNet's classes, float32[n, 1000]."""

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = _Same(3, _STEM, 3, 2), _norm(_STEM)
        blocks, channels = [], _STEM
        for count, window, stride, widening, made in _STAGES:
            for place in range(count):
                step = 1 if place else stride
                blocks.append(_Block(channels, made, window, step, widening))
                channels = made
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _Same(channels, _HEAD), _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, _CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(image)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


class _Block(nn.Module):
    """Widens, looks around in each channel, narrows; adds its input if that is of a size."""

    def __init__(self, taken: int, made: int, window: int, stride: int, widening: int):
        super().__init__()
        wide = taken * widening
        self.widens, self.adds = widening > 1, stride == 1 and taken == made
        if self.widens:
            self._expand_conv, self._bn0 = _Same(taken, wide), _norm(wide)
        self._depthwise_conv = _Same(wide, wide, window, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = _Same(wide, made), _norm(made)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image
        if self.widens:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + image if self.adds else x


class _Same(nn.Conv2d):
    """A convolution whose output is as large as its input over its stride, padded as TensorFlow
    does: with the odd row and column below and at the right."""

    def __init__(self, taken: int, made: int, window: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(taken, made, window, stride, groups=groups, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for size, window, stride in zip(
            image.shape[:1:-1], self.kernel_size, self.stride, strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + window - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(image, pads) if any(pads) else image)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
