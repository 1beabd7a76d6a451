"""ResNeXt-101, RegNetY-128GF and FBNetV3-G: their sizes, and a block of each of their stages."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

import torch
from torch.utils.flop_counter import FlopCounterMode

from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.prepare import prepare
from halfdome.host.frontend.sessions import oracle
from halfdome.host.frontend.steps import CardStep, HostStep
from halfdome.host.models.ladder.fbnet_net import FBNet
from halfdome.host.models.ladder.layers import filled
from halfdome.host.models.ladder.regnet_net import RegNetY
from halfdome.host.models.ladder.resnext_net import ResNeXt
from tests.host.frontend.test_partition import answer


def network(kind):
    """One without memory."""
    with torch.device("meta"):
        return kind().eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "parameters", "products"),
    [(ResNeXt, 44_177_704, 7.970), (RegNetY, 644_812_894, 127.518), (FBNet, 16_623_888, 1.045)],
)
def test_networks_are_as_large_as_their_authors_say(kind, parameters, products):
    module = network(kind)
    assert sum(each.numel() for each in module.parameters()) == parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made = module(torch.empty(1, 3, 224, 224, device="meta"))
    assert made.shape == (1, 1000)
    assert counter.get_total_flops() / 2e9 == pytest.approx(products, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        *((kind, stage) for kind, count in ((ResNeXt, 4), (RegNetY, 3), (FBNet, 6))
          for stage in range(count)),
        pytest.param(RegNetY, 3, marks=pytest.mark.long),  # 7,392 channels
    ],
)  # fmt: skip
def test_a_block_of_each_stage_is_on_cards_with_the_bits_of_onnx_runtime(kind, stage):
    block = network(kind).stages[stage][0]
    rng = np.random.default_rng(stage)
    side = 6 if block.channels < 1000 else 4
    images = rng.standard_normal((3, 1, block.channels, side, side)).astype(np.float32)
    block = filled(block, stage, torch.from_numpy(images[:, 0]))
    prepared = prepare(block, (torch.from_numpy(images[0]),), calibration=[{"image": images[1]}])
    found = steps(prepared.model)
    first, whole, last = found
    assert isinstance(whole, CardStep)
    for end, operator in ((first, "QuantizeLinear"), (last, "DequantizeLinear")):
        assert isinstance(end, HostStep)
        assert [node.op_type for node in end.model.graph.node] == [operator]
    request = {"image": images[2]}
    made = answer(found, request)
    for value, expected in zip(
        prepared.model.graph.output, oracle(prepared.model).run(None, request), strict=True
    ):
        np.testing.assert_array_equal(made[value.name], expected)
