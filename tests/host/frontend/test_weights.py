"""Models that are larger than a message, by a limit that is lower."""

import zipfile

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import shape_inference  # noqa: E402
from onnxruntime import GraphOptimizationLevel as Level  # noqa: E402

import halfdome  # noqa: E402
from halfdome.host.frontend import sessions, weights  # noqa: E402
from tests.host.frontend.nets import model, node, typed  # noqa: E402

X = np.random.default_rng(1).standard_normal((2, 3))


@pytest.fixture
def net():
    """What the host computes as a whole, since it is of float64."""
    constants = {"w": np.random.default_rng(2).standard_normal((3, 300))}
    nodes = [node("MatMul", "x w", "h"), node("Softmax", "h", "y")]
    return typed(model(nodes, {"x": (np.float64, (2, 3))}, ["y"], constants), 11)


@pytest.fixture
def sources(monkeypatch):
    """What sessions were opened from, while 100 bytes are many."""
    found = []

    class Session(sessions.InferenceSession):
        def __init__(self, source, *others, **more):
            found.append(source)
            super().__init__(source, *others, **more)

    monkeypatch.setattr(weights, "_MESSAGE", 100)
    monkeypatch.setattr(weights, "_HEAVY", 100)
    monkeypatch.setattr(sessions, "InferenceSession", Session)
    return found


def test_a_tensor_that_has_no_room_in_a_message_is_large():
    made = onnx.ModelProto()
    assert not weights.is_large(made)
    made.graph.initializer.add(data_type=onnx.TensorProto.FLOAT, dims=[600_000, 1024])
    assert weights.is_large(made)


def test_a_plan_keeps_large_weights_of_the_host_beside_its_models(net, sources, tmp_path):
    [right] = sessions.InferenceSession(net.SerializeToString()).run(None, {"x": X})
    sources.clear()
    path = tmp_path / "net.halfdome"
    plan = halfdome.compile(net, calibration=[{"x": X}], cards=1, config="tiny")
    plan.save(path)
    with zipfile.ZipFile(path) as archive:
        sizes = {each.filename: each.file_size for each in archive.infolist()}
    assert sizes["0.onnx"] < 1000 < 3 * 300 * 8 <= sizes["0.data"]
    for each in (plan, path):
        with halfdome.InferenceSession(each, config="tiny") as session:
            np.testing.assert_array_equal(session.run(None, {"x": X})[0], right)
    assert sources
    assert all(isinstance(each, str) for each in sources)
    assert len(net.graph.initializer[0].raw_data) == 3 * 300 * 8  # as it was


def test_shapes_of_a_large_model_are_inferred_without_its_weights(net, sources, monkeypatch):
    right = shape_inference.infer_shapes(net, data_prop=True)

    def without(made, **how):
        assert not made.graph.initializer
        return right_of(made, **how)

    right_of = shape_inference.infer_shapes
    monkeypatch.setattr(shape_inference, "infer_shapes", without)
    assert weights.inferred(net) == right
    assert sessions.tensors(net)["h"] == sessions.Tensor(np.dtype(np.float64), (2, 300))
    assert all(isinstance(each, str) for each in sources)


def test_what_onnx_runtime_makes_of_a_large_model_is_read_again(net, sources, tmp_path):
    path = tmp_path / "made.onnx"
    sessions.open_session(net, Level.ORT_ENABLE_BASIC, written=path)
    assert {each.name for each in tmp_path.iterdir()} == {"made.onnx", "weights.data"}
    [right], [same] = (
        sessions.open_session(each).run(None, {"x": X}) for each in (net, onnx.load(path))
    )
    np.testing.assert_array_equal(same, right)
