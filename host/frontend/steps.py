"""What a model is made of once it is parted: steps of the host and of the cards, in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from halfdome.host.frontend.errors import ModelError
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value


@dataclass(frozen=True)
class HostStep:
    """A part of the model that ONNX Runtime computes.

    Attributes
    ----------
    model : what to open a session on
    inputs, outputs : names of tensors of the whole model, and of this part alike
    reasons : why each node is on the host, in words, by the node's label
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Taps:
    """Windows along an axis of pixels: `count` of so many taps. The axis has as many pixels more
    `before` and `after` as are said."""

    count: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int


@dataclass(frozen=True)
class Windows:
    """Pixels of an image laid out as a convolution reads them, window after window.

    A stem of few channels so has a row of its kernel, or all of it, along the channels. `axes` are
    the last ones of pixels; `fill` is the element that stands outside the image.
    """

    axes: tuple[Taps, ...]
    fill: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """[..., width, channels] as [..., count, taps * channels], or with two axes
        [..., height, width, channels] as [..., counts, taps * taps * channels]."""
        lead = image.ndim - 1 - len(self.axes)
        edges = [(each.before, each.after) for each in self.axes]
        taken = np.pad(image, [(0, 0)] * lead + [*edges, (0, 0)], constant_values=self.fill)
        for number, each in enumerate(self.axes):  # each becomes two
            firsts = np.arange(each.count)[:, None] * each.stride
            places = firsts + np.arange(each.taps) * each.dilation
            taken = taken.take(places, axis=lead + 2 * number)
        counts = tuple(lead + 2 * number for number in range(len(self.axes)))
        taps = tuple(axis + 1 for axis in counts)
        turned = taken.transpose(*range(lead), *counts, *taps, taken.ndim - 1)
        return turned.reshape(*turned.shape[: lead + len(counts)], -1)


@dataclass(frozen=True)
class Port:
    """How a tensor of the model and a value of a graph become each other.

    Attributes
    ----------
    tensor, value : their names
    dtype : of both
    shape : the tensor's, of one request
    order : the tensor's axes as they lie in the value
    dims : the value's shape, of one sample
    windows : Windows of an image, or None
    """

    tensor: str
    value: str
    dtype: np.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]
    dims: tuple[int, ...]
    windows: Windows | None = None

    def pack(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The value, [samples, *dims], of one tensor for each request.

        Raises `ModelError` for a tensor of another dtype or shape.
        """
        for array in arrays:
            if array.dtype != self.dtype or array.shape != self.shape:
                raise ModelError(
                    f"{self.tensor}: is {array.dtype}{list(array.shape)}, "
                    f"must be {self.dtype}{list(self.shape)}"
                )
        axes = (0, *(axis + 1 for axis in self.order))
        stacked = np.stack(arrays).transpose(axes)
        if self.windows is not None:
            stacked = self.windows.of(stacked)
        return np.ascontiguousarray(stacked).reshape(-1, *self.dims)

    def unpack(self, array: np.ndarray) -> list[np.ndarray]:
        """One tensor for each request of a value, [samples, *dims]."""
        moved = array.reshape(-1, *(self.shape[axis] for axis in self.order))
        back = np.argsort(self.order)
        made = np.ascontiguousarray(moved.transpose(0, *(axis + 1 for axis in back)))
        return [made[place, ...] for place in range(len(made))]  # a scalar stays an array


@dataclass(frozen=True)
class CardStep:
    """A part of the model that cards compute.

    Attributes
    ----------
    inputs, outputs : ports, in order; two may be of one tensor
    samples : samples of a request: its rows if all operators work on rows alone, else 1
    values : the graph's inputs for one sample
    nodes, constants : of the graph, whatever the number of samples
    made : names of graph values that stand for an ONNX node, by the node's label; none for a node
        that only names elements anew
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    samples: int
    values: tuple[Value, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    made: Mapping[str, tuple[str, ...]]

    def graph(self, requests: int) -> Graph:
        """The graph that computes so many requests at a time, stacked along its first axis."""
        count = requests * self.samples
        inputs = [
            Value(
                value.name, (count, *value.shape[1:]), value.format, value.scale, value.zero_point
            )
            for value in self.values
        ]
        outputs = list(dict.fromkeys(port.value for port in self.outputs))
        return Graph(inputs, outputs, self.nodes, self.constants)

    def run(self, request: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one request by tensor, as the golden operators compute them."""
        values = {port.value: port.pack([request[port.tensor]]) for port in self.inputs}
        made = self.graph(1).run(values)
        return {port.tensor: port.unpack(made[port.value])[0] for port in self.outputs}
