"""What networks of images are made of, in PyTorch, and random weights for them."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

_CLOSING = 0.5
"""Scale of what is added to a block's input, so that sums do not grow much."""


class Unit(nn.Sequential):
    """A convolution that keeps the size but for its stride, normalisation, and a function.

    One that is `closing` ends what is added to a block's input.
    """

    def __init__(
        self, taken: int, made: int, window: int = 1, stride: int = 1, groups: int = 1,
        function: nn.Module | None = None, closing: bool = False,
    ):  # fmt: skip
        convolution = nn.Conv2d(taken, made, window, stride, window // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(made), *([function] if function else []))
        self.closing = closing


class Residual(nn.Module):
    """What a branch makes of an image and, if that has another size, a product of the image, else
    the image itself, added up."""

    def __init__(self, branch: nn.Module, taken: int, made: int, stride: int):
        super().__init__()
        self.channels = taken
        self.branch = branch
        same = stride == 1 and taken == made
        self.straight = nn.Identity() if same else Unit(taken, made, 1, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(image) + self.straight(image))


def stages(
    block: Callable[[int, int, int], nn.Module], taken: int,
    table: Sequence[tuple[int, int]], strides: Sequence[int],
) -> nn.Sequential:  # fmt: skip
    """For each row of the table so many blocks that make so many channels; `block` says one by the
    channels that it takes and makes, and its stride, which is 1 but for the first's."""
    made = []
    for (count, channels), stride in zip(table, strides, strict=True):
        before = [taken, *[channels] * (count - 1)]
        made.append(nn.Sequential(
            *(block(each, channels, 1 if at else stride) for at, each in enumerate(before))
        ))  # fmt: skip
        taken = channels
    return nn.Sequential(*made)


class Squeeze(nn.Module):
    """Weighs channels by what two small products make of their means (arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int, function: nn.Module, gate: nn.Module):
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), function, nn.Conv2d(squeezed, channels, 1), gate
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.weigh(image.mean((2, 3), keepdim=True))


def filled(module: nn.Module, seed: int, seen: torch.Tensor) -> nn.Module:
    """The module, which may be without memory yet, with weights of the spread of He et al.

    It normalises by what images `seen` show, and is ready to be asked.
    """
    module = module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.Linear):
            spread = (2 / each.weight[0].numel()) ** 0.5
            nn.init.normal_(each.weight, 0, spread, generator)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
        if isinstance(each, nn.BatchNorm2d):
            each.reset_parameters()
            each.momentum = 1.0
    for each in module.modules():
        if isinstance(each, Unit) and each.closing:
            nn.init.constant_(each[1].weight, _CLOSING)  # type: ignore[arg-type]
    with torch.no_grad():
        module.train()(seen)
    return module.eval()
