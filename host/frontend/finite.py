"""Refuses tables and weights with a NaN or an infinity, which calibration need not see."""

import numpy as np
import onnx
from onnx import numpy_helper

from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.net import MOVES, nodes_within
from halfdome.host.frontend.quantisable import FLOATS

_LOOKUPS = {"Gather", "GatherElements", "GatherND"}
_WEIGHING = {
    "MatMul", "Gemm", "Conv", "ConvTranspose", "BatchNormalization", "LSTM", "GRU", "RNN",
}  # fmt: skip
"""Operators whose constants are weights; those of others, as of Add and Where, may be masks."""
_KEEPING = {*MOVES, "Cast"}


def check_finite(model: onnx.ModelProto) -> None:
    """Refuses a model whose tables or weights are not finite.

    Calibration sees a row of a table only if a request takes it, and what a Relu makes of an
    infinity only by chance. 8 bits then say a number where floating point says none.

    Raises `ModelError` that names the tensor, and where in it the first such number is.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes_within(model.graph):
        taken = constants.keys() & node.input
        looks_up = node.op_type in _LOOKUPS and node.input[1] not in constants
        if looks_up or node.op_type in _WEIGHING:
            for tensor in (constants[name] for name in sorted(taken)):
                if tensor.data_type in FLOATS:
                    check_array(tensor.name, numpy_helper.to_array(tensor))
        elif node.op_type in _KEEPING and node.input[0] in taken:
            constants |= dict.fromkeys(node.output, constants[node.input[0]])


def check_array(name: str, array: np.ndarray) -> None:
    """Raises `ModelError` for an array that is not finite, which it calls `name`."""
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        first = tuple(wrong[0])
        raise ModelError(
            f"{name}: holds {array[first]} at {list(map(int, first))}, {len(wrong)} of its "
            f"{array.size} numbers are not finite; 8 bits say finite ones alone, give it some, "
            "as numpy.nan_to_num and torch.nan_to_num do"
        )
