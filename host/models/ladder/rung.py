"""A step of the ladder: a trained model with inputs from the world."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

    from halfdome.host.frontend.torch_export import TorchModel

Request = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Rung:
    """A model in fp32 whose shapes are fixed, and what to ask it.

    Attributes
    ----------
    name : str
    model : onnx.ModelProto, or TorchModel of a module with embedding bags
    inputs : requests that no calibration has seen, each array by the name of its input
    calibration : requests that show which ranges activations have
    labels : int64[n] or None; the classes of the inputs' samples, in their order
    """

    name: str
    model: "ModelProto | TorchModel"
    inputs: Sequence[Request]
    calibration: Sequence[Request]
    labels: np.ndarray | None = None
