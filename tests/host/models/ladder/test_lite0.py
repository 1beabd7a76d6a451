"""EfficientNet-Lite0: what it calls six photographs, in fp32, in 8 bits and on the cards."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.plan import CardPart
from halfdome.host.frontend.prepare import prepare
from halfdome.host.frontend.sessions import oracle
from halfdome.host.frontend.steps import HostStep
from halfdome.host.models.ladder import efficientnet
from halfdome.host.models.ladder.lite_net import LiteNet, torch
from tests.host.models.ladder.fetched import needs
from tests.host.models.ladder.golden import answered

needs_models = needs(efficientnet.WEIGHTS)
IMAGENET = [282, 967, 657, 665, 698, 985]


@pytest.fixture(scope="module")
def rung():
    return efficientnet.lite0()


@pytest.fixture(scope="module")
def prepared(rung):
    return prepare(rung.model, calibration=rung.calibration)


def named(model, requests):
    session = oracle(model)
    return [int(session.run(None, request)[0].argmax()) for request in requests]


def test_an_image_of_odd_size_is_padded_more_below_and_at_the_right():
    network = LiteNet().eval()
    image = torch.rand(1, 3, 8, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        [one] = network._conv_stem(image)
        weight = network._conv_stem.weight
        # Windows begin at pixel 0 of 8 rows, and a column before those of 7 columns.
        first = (image[0, :, :3, :2] * weight[:, :, :, 1:]).sum((1, 2, 3))
        last = (image[0, :, 6:, 5:] * weight[:, :, :2, :2]).sum((1, 2, 3))
    assert one.shape == (32, 4, 4)
    torch.testing.assert_close(one[:, 0, 0], first)
    torch.testing.assert_close(one[:, 3, 3], last)


@pytest.mark.slow
@needs_models
def test_six_photographs_are_named_right_in_fp32_and_in_8_bits(rung, prepared):
    assert rung.labels.tolist() == IMAGENET
    assert [name for _, name in efficientnet.SHOWN.values()] == [
        "tiger cat", "espresso", "missile", "moped", "palace", "daisy",
    ]  # fmt: skip
    assert named(prepared.floating, rung.inputs) == IMAGENET
    assert named(prepared.model, rung.inputs) == IMAGENET
    asked, seen = (
        {request[efficientnet.INPUT].tobytes() for request in requests}
        for requests in (rung.inputs, rung.calibration)
    )
    assert not asked & seen


@pytest.mark.slow
@needs_models
def test_all_but_the_ends_is_on_cards_with_the_bits_of_onnx_runtime(rung, prepared):
    plan = compile(prepared, cards=1, every=True)
    first, whole, last = plan.steps
    assert isinstance(whole, CardPart)
    for end, kind in ((first, "QuantizeLinear"), (last, "DequantizeLinear")):
        assert isinstance(end, HostStep)
        assert [node.op_type for node in end.model.graph.node] == [kind]
    request = rung.inputs[0]
    made = answered(plan, request)
    names = [port.tensor for port in whole.outputs]
    assert len(names) > 50
    expected = oracle(prepared.model, names).run(names, request)
    for name, array in zip(names, expected, strict=True):
        np.testing.assert_array_equal(made[name], array, err_msg=name)
