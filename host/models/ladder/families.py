"""Rungs 5 to 7: ResNeXt-101, RegNetY-128GF and FBNetV3-G at their real shapes, random weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from halfdome.host.models.ladder import photographs
from halfdome.host.models.ladder.rung import Rung

if TYPE_CHECKING:
    from torch import nn

INPUT = "image"
OUTPUT = "scores"


def resnext101() -> Rung:
    """ResNeXt-101 32x4d: `image` float32[1, 3, 224, 224] to `scores` float32[1, 1000].

    Raises `ImportError` without PyTorch, `MissingModel` without `make models`, as all of these do.
    """
    from halfdome.host.models.ladder.resnext_net import ResNeXt

    return _rung("ResNeXt-101", ResNeXt)


def regnety_128gf() -> Rung:
    """RegNetY-128GF: 644.8 million weights, `image` and `scores` as of ResNeXt-101."""
    from halfdome.host.models.ladder.regnet_net import RegNetY

    return _rung("RegNetY-128GF", RegNetY)


def fbnetv3_g() -> Rung:
    """FBNetV3-G: `image` and `scores` as of ResNeXt-101."""
    from halfdome.host.models.ladder.fbnet_net import FBNet

    return _rung("FBNetV3-G", FBNet)


def _rung(name: str, network: "Callable[[], nn.Module]") -> Rung:
    import torch

    from halfdome.host.frontend.torch_export import from_torch
    from halfdome.host.models.ladder.layers import filled

    asked, seen = (
        [{INPUT: photographs.normalised(photograph)} for photograph in names]
        for names in (photographs.TO_ASK, photographs.TO_CALIBRATE)
    )
    with torch.device("meta"):
        module = network()
    images = [torch.from_numpy(each[INPUT]) for each in seen]
    module = filled(module, 0, torch.cat(images))
    exported = from_torch(module, (images[0],), outputs=(OUTPUT,))
    return Rung(name, exported.rest, asked, seen)
