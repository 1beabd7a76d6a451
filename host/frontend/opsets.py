"""The operator set of a model, brought to one that ONNX Runtime's quantiser takes."""

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.weights import inferred

_LEAST = 11
"""The first that the quantiser writes operators of 8 bits into."""


def of_today(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with folded constants in ONNX's operator set 11 or newer; a newer one stays as it is.

    Raises `ModelError` for an operator that ONNX does not convert.
    """
    version = next((each.version for each in model.opset_import if not each.domain), None)
    if version is not None and version >= _LEAST:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if version is None:  # of operators of other domains alone
        made.opset_import.append(helper.make_opsetid("", _LEAST))
        return made
    try:
        made = version_converter.convert_version(made, _LEAST)
    except (RuntimeError, version_converter.ConvertError) as error:
        why = str(error).split(": ")[-1].strip()
        raise ModelError(
            f"model: its operator set {version} cannot be brought to {_LEAST} ({why}); export it "
            f"with opset_version={_LEAST} or newer"
        ) from None
    _tell_pixels(made.graph)
    return inferred(made)


def _tell_pixels(graph: onnx.GraphProto) -> None:
    """Has each Resize say which pixels it takes, as Upsample and Resize took them before 11.

    The converter leaves what is the default now. ONNX Runtime rounded up where images shrink.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"
    }
    for node in graph.node:
        if node.op_type == "Resize":
            factors = constants.get(node.input[2])
            shrinks = factors is not None and np.min(numpy_helper.to_array(factors)) < 1
            told = {
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "ceil" if shrinks else "floor",
            }
            node.attribute.extend(helper.make_attribute(*each) for each in told.items())
