"""Models of the ladder: what they are, and what ONNX Runtime says of the photographs."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from halfdome.host.models import metrics, movielens  # noqa: E402
from halfdome.host.models.dlrm import Architecture, Dlrm, interact, sigmoid  # noqa: E402
from halfdome.host.models.features import Bags, Batch  # noqa: E402
from halfdome.host.models.ladder import dlrm, photographs, resnet50  # noqa: E402
from halfdome.host.models.ladder.digits import digits  # noqa: E402
from halfdome.host.models.ladder.mtcnn import p_net  # noqa: E402
from halfdome.host.models.ladder.open_nsfw import open_nsfw  # noqa: E402
from tests.host.models.ladder.fetched import needs  # noqa: E402

needs_models = needs("facenet_pytorch/data/pnet.pt")


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def answers(rung, requests):
    """What a model answers to each request: its outputs."""
    session = session_of(rung.model)
    return [session.run(None, dict(request)) for request in requests]


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def test_the_perceptron_reads_digits_it_has_not_seen():
    pytest.importorskip("skl2onnx")
    rung = digits(batch=32)
    labels = np.concatenate([answer[0] for answer in answers(rung, rung.inputs)])
    assert len(labels) == len(rung.labels) == 576
    assert (labels == rung.labels).mean() > 0.95
    seen, asked = (
        {image.tobytes() for request in requests for image in request["pixels"]}
        for requests in (rung.calibration, rung.inputs)
    )
    assert len(seen) >= 250
    assert not seen & asked
    assert operators(rung.model) >= Counter(MatMul=3, Add=3, Relu=2, Scaler=1, ArgMax=1)


def test_8_bits_leave_the_perceptron_its_digits():
    pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxscript")
    from halfdome.host.frontend.load import load
    from halfdome.host.frontend.quantise import to_qoperator

    rung = digits(batch=64)
    made = to_qoperator(load(rung.model), rung.calibration)
    assert operators(made)["QGemm"] == 3
    labels = np.concatenate(
        [answer[0] for answer in answers(replace(rung, model=made), rung.inputs)]
    )
    assert (labels == rung.labels).mean() > 0.95


@pytest.mark.parametrize("batch", [0, 257])
def test_a_batch_of_digits_must_fit_what_there_is(batch):
    with pytest.raises(ValueError, match=f"batch={batch}: must be 1 to 256"):
        digits(batch)


@pytest.mark.slow
@needs_models
def test_p_net_finds_the_face():
    pytest.importorskip("onnxscript")
    rung = p_net(64, 64)
    assert operators(rung.model) == Counter(Conv=5, PRelu=3, MaxPool=1, Softmax=1)
    boxes, faces = answers(rung, rung.inputs[:1])[0]
    assert photographs.TO_ASK[0] == "astronaut.png"
    assert (boxes.shape, faces.shape) == ((1, 4, 27, 27), (1, 2, 27, 27))
    row, column = np.unravel_index(faces[0, 1].argmax(), (27, 27))
    assert faces[0, 1, row, column] > 0.99
    # Where the place begins, of 64 pixels: the face is in the upper half, left of the middle.
    assert 6 <= 2 * row <= 18
    assert 14 <= 2 * column <= 28


@pytest.mark.slow
@needs_models
def test_nothing_in_the_photographs_is_unfit_for_work():
    rung = open_nsfw()
    assert operators(rung.model)["Conv"] == 53
    for [answer] in answers(rung, [*rung.inputs, *rung.calibration]):
        assert answer.shape == (1, 2)
        assert answer[0, 1] < 0.2


@pytest.mark.slow
@needs_models
def test_resnet50_answers_differently_to_different_photographs():
    rung = resnet50.resnet50()
    assert operators(rung.model)["Add"] == 16
    assert not operators(rung.model)["ConstantOfShape"]
    [one], [other] = answers(rung, rung.inputs[:2])
    assert one.shape == (1, 1000)
    assert np.abs(one - other).max() > 0.01


SMALL = Architecture((7, 5, 9), 4, (3, 6, 4), (4 + 6, 8, 1), "dot")


def test_a_recommender_from_pytorch_answers_as_the_one_in_numpy():
    pytest.importorskip("onnxscript")
    from halfdome.host.models.ladder.torch_dlrm import TorchDlrm, arguments, torch

    rng = np.random.default_rng(2)
    parameters = {
        name: rng.standard_normal(shape).astype(np.float32) / 2
        for name, shape in SMALL.shapes().items()
    }
    model = Dlrm(SMALL, parameters)
    lengths = np.array([2, 0, 3], np.int32)
    batch = Batch(
        rng.standard_normal((3, 3)).astype(np.float32),
        tuple(Bags(rng.integers(0, rows, 5, np.int32), lengths) for rows in (7, 5, 9)),
        np.zeros(3, np.float32),
    )
    with torch.no_grad():
        answer = TorchDlrm.of(model)(*arguments(batch))
    np.testing.assert_allclose(answer[:, 0], model.forward(batch), atol=1e-6)


def test_a_random_recommender_has_a_bag_for_each_table_and_requests_of_any_length():
    pytest.importorskip("onnxscript")
    rung = dlrm.random_dlrm(batch=5, architecture=SMALL, count=2)
    assert [bag.table.shape for bag in rung.model.bags] == [(7, 12), (5, 12), (9, 12)]
    assert operators(rung.model.rest) >= Counter(Gemm=4, MatMul=1, Concat=2, Gather=1, Sigmoid=1)
    assert len({len(request["indices_0"]) for request in rung.inputs}) == 2
    session = session_of(rung.model.rest)
    request = rung.inputs[1]
    [answer] = session.run(None, rung.model.rest_inputs(request))
    assert (answer.shape, answer.dtype) == ((5, 1), np.float32)
    assert len(rung.calibration) == 2
    pooled = list(rung.model.pool(request).values())
    held = {
        each.name: onnx.numpy_helper.to_array(each) for each in rung.model.rest.graph.initializer
    }
    x = request["dense"]
    for layer in (0, 2):
        x = np.maximum(x @ held[f"bot_l.{layer}.weight"].T + held[f"bot_l.{layer}.bias"], 0)
    x = interact(np.stack([x, *pooled], 1), "dot")
    x = np.maximum(x @ held["top_l.0.weight"].T + held["top_l.0.bias"], 0)
    expected = sigmoid(x @ held["top_l.2.weight"].T + held["top_l.2.bias"])
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def installed() -> bool:
    try:
        movielens.find()
    except movielens.DataError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="`pip install --no-deps recbole==1.2.1`")
def test_the_trained_recommender_ranks_as_well_as_where_it_was_trained():
    pytest.importorskip("onnxscript")
    rung = dlrm.trained_dlrm(batch=500)
    session = session_of(rung.model.rest)
    scores = [session.run(None, rung.model.rest_inputs(each))[0][:, 0] for each in rung.inputs]
    auc = metrics.roc_auc(rung.labels.astype(np.float32), np.concatenate(scores))
    assert auc == pytest.approx(0.761, abs=0.002)
