"""Windows that ONNX Runtime leaves out, where shapes that are inferred count them.

With `ceil_mode` a last window may begin beyond the image, in what stands behind it. ONNX Runtime,
as PyTorch, leaves it out. ONNX's inference, which ONNX Runtime's own follows, does not.
"""

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import helper

from halfdome.host.frontend.sessions import tensors

_POOLS = ("AveragePool", "LpPool", "MaxPool", "QLinearAveragePool")


def without_windows_beyond(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with static inputs, whose inferred shapes are those that it has in ONNX Runtime.

    Poolings of which a window is left out say so without `ceil_mode`. It is the model itself if
    there are none.
    """
    places = [
        place
        for place, node in enumerate(model.graph.node)
        if node.op_type in _POOLS and _attributes(node).get("ceil_mode", 0)
    ]
    known = tensors(model) if places else {}  # ONNX does not infer operators of ONNX Runtime
    for place in places:
        node = model.graph.node[place]
        found = _written(node, known[node.input[0]].shape or ())
        if found:
            model = _with(model, place, found)
            known = tensors(model)
    return model


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _written(node: onnx.NodeProto, shape: tuple[int, ...]) -> dict[str, Any]:
    """Attributes that say a pooling without `ceil_mode`, if a window is left out; else none."""
    made = _attributes(node)
    sizes, taps = shape[2:], made["kernel_shape"]
    if len(sizes) != len(taps) or not all(sizes) or made.get("auto_pad", b"NOTSET") != b"NOTSET":
        return {}
    ones = [1] * len(taps)
    pads = list(made.get("pads", [0] * 2 * len(taps)))
    after, missing = pads[len(taps) :], False
    for axis, (size, count, step, spread, before) in enumerate(
        zip(
            sizes, taps, made.get("strides", ones), made.get("dilations", ones),
            pads[: len(taps)], strict=True,
        )
    ):  # fmt: skip
        span = (count - 1) * spread + 1
        last = -(-(size + before + after[axis] - span) // step) * step
        if last >= size + before:
            missing = True
        else:  # whole windows, as far as `ceil_mode` has the last one reach
            after[axis] = max(after[axis], last + span - size - before)
    written = [*pads[: len(taps)], *after]
    # More pads would count in a mean over pads, and ONNX Runtime takes none as wide as a kernel.
    counted = made.get("count_include_pad", 0) and written != pads
    if not missing or counted or any(a >= b for a, b in zip(after, taps, strict=True)):
        return {}
    return made | {"pads": written, "ceil_mode": 0}


def _with(model: onnx.ModelProto, place: int, found: Mapping[str, Any]) -> onnx.ModelProto:
    """The model with other attributes of a node, and no shapes that would follow from the old."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    node = made.graph.node[place]
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in found.items())
    del made.graph.value_info[:]
    said = {
        value.name: value.type.tensor_type.shape
        for value in model.graph.output
        if value.type.tensor_type.HasField("shape")
    }
    for value in made.graph.output:
        if value.name in said:
            value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(made, data_prop=True)
    for value in inferred.graph.output:
        if value.name in said and not value.type.tensor_type.HasField("shape"):
            # what ONNX does not infer stays as it was said
            value.type.tensor_type.shape.CopyFrom(said[value.name])
    return inferred
