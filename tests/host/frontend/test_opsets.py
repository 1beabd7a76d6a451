"""Models of old operator sets are quantised as what they are."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper

from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.load import load
from halfdome.host.frontend.quantise import to_qoperator
from halfdome.host.frontend.sessions import open_session, oracle
from tests.host.frontend.nets import images, model, node, typed

[[X]] = images(1)


INPUT = (np.float32, X.shape)


def quantised(made):
    return to_qoperator(load(made), [{value.name: X for value in made.graph.input}])


def computed(nodes, constants, opset):
    """What a model computes in floating point, and in 8 bits."""
    source = load(typed(model(nodes, {"x": INPUT}, ["y"], constants, opset)))
    made = to_qoperator(source, [{"x": X}])
    return (each.run(None, {"x": X})[0] for each in (open_session(source), oracle(made)))


@pytest.mark.parametrize(
    ("opset", "factors"),
    [(7, (2, 2)), (9, (3, 1.5)), (10, (2, 2)), (10, (3, 1.5)), (10, (0.5, 0.4))],
)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_an_image_is_resized_as_it_was(opset, mode, factors):
    scales = [1.0, 1.0, *map(float, factors)]
    resize = {
        7: node("Upsample", "u", "r", mode=mode, scales=scales),
        9: node("Upsample", "u f", "r", mode=mode),
        10: node("Resize", "u f", "r", mode=mode),
    }[opset]
    nodes = [
        node("Unsqueeze", "x", "u", axes=[0]), resize, node("Add", "r r", "s"),
        node("Squeeze", "s", "y", axes=[0]),
    ]  # fmt: skip
    constants = {"f": np.float32(scales)} if "f" in resize.input else {}
    exact, close = computed(nodes, constants, opset)
    assert np.abs(exact - close).max() < 3 * (X.max() - X.min()) / 255


def test_a_model_of_another_domain_alone_needs_no_operators_of_onnx():
    made = model([node("Binarizer", "x", "y", "ai.onnx.ml")], {"x": INPUT}, ["y"], {})
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, X.shape))
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    assert [each.op_type for each in quantised(made).graph.node] == ["Binarizer"]


def test_what_onnx_does_not_convert_is_refused():
    made = typed(model([node("Less", "x x", "y")], {"x": INPUT}, ["y"], {}, 6), TensorProto.BOOL)
    with pytest.raises(ModelError, match=r"set 6 cannot be brought to 11 \(No Adapter .* Less\)"):
        quantised(made)
