"""What a model in floating point says of its tensors."""

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from halfdome.host.frontend.net import used


class Known:
    """Types and constants of a graph whose shapes are inferred, and how often each tensor is used.

    Attributes
    ----------
    types, constants : of tensors, by name
    uses : Counter of nodes, and of outputs of the graph, by the tensor that they use
    """

    def __init__(self, graph: onnx.GraphProto):
        values = (*graph.input, *graph.value_info, *graph.output)
        self.types = {value.name: value.type.tensor_type for value in values}
        self.uses = Counter(name for node in graph.node for name in used(node))
        self.uses.update(value.name for value in graph.output)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def constant(self, name: str) -> np.ndarray | None:
        """The array of a constant."""
        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; () if it is not known."""
        if name not in self.types or not self.types[name].HasField("shape"):
            return ()
        sizes = [dim.dim_value for dim in self.types[name].shape.dim]
        return tuple(sizes) if all(sizes) else ()

    def is_float(self, name: str) -> bool:
        """Whether a tensor is known to be float32."""
        return name in self.types and self.types[name].elem_type == onnx.TensorProto.FLOAT
