"""Layer by layer beside ONNX Runtime: what counts as equal, and which node is the first."""

import json
import warnings

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.prepare import prepare
from halfdome.host.frontend.sessions import oracle
from halfdome.host.serving.compare import _against, compare, differences
from tests.host.frontend import nets

REQUESTS = [{"x": image} for image in nets.images(2, seed=8)]
CALIBRATION = [{"x": nets.images(4)}]


@pytest.fixture(scope="module")
def prepared():
    return prepare(nets.residual(), calibration=CALIBRATION)


@pytest.fixture(scope="module")
def plan(prepared):
    return compile(prepared, cards=1, config="tiny", every=True)


@pytest.fixture
def tensors(prepared, plan):
    """What right cards hand back."""
    names = [port.tensor for part in plan.parts for port in part.outputs] + ["y"]
    judge = oracle(prepared.model, names)
    return [dict(zip(names, judge.run(names, request), strict=True)) for request in REQUESTS]


def found(prepared, plan, tensors, **options):
    return differences(prepared, plan, REQUESTS, tensors, engine="native", **options)


def row(comparison, tensor):
    return next(each for each in comparison.tensors if each.tensor == tensor)


def test_what_onnx_runtime_computes_is_equal(prepared, plan, tensors):
    comparison = found(prepared, plan, tensors)
    assert comparison.first is None
    assert comparison.differing == 0
    assert {each.tensor for each in comparison.tensors} == set(tensors[0])
    assert all(each.largest_difference == 0 for each in comparison.tensors)
    assert row(comparison, "y").where == "host"
    assert row(comparison, "c2_quantized").where == "cards"
    json.dumps(comparison.as_dict())


def test_the_first_node_is_first_in_the_model_and_says_how_far_it_is(prepared, plan, tensors):
    for name, steps in (("l_quantized", 1), ("c2_quantized", 3)):
        made = tensors[1][name].copy()
        made.reshape(-1)[0] ^= steps
        right = tensors[1][name].reshape(-1)[0]
        distance = abs(int(made.reshape(-1)[0]) - int(right))
        tensors[1][name] = made
    comparison = found(prepared, plan, tensors)
    assert comparison.first == "Conv_c2_quant"
    assert comparison.differing == 2
    wrong = row(comparison, "c2_quantized")
    assert wrong.differing == 1
    assert wrong.largest_difference == distance
    right = np.stack([each["c2_quantized"] for each in tensors]).astype(float)
    right[1].reshape(-1)[0] += distance if right[1].reshape(-1)[0] < 128 else 0
    assert wrong.sqnr_db == pytest.approx(
        10 * np.log10(np.square(right).sum() / distance**2), abs=0.1
    )


def test_a_sign_of_zero_is_a_difference(prepared, plan, tensors):
    place = int(np.flatnonzero(tensors[0]["y"].reshape(-1) == 0)[0])
    tensors[0]["y"] = tensors[0]["y"].copy()
    tensors[0]["y"].reshape(-1)[place] = -0.0
    comparison = found(prepared, plan, tensors)
    assert comparison.first == "y_DequantizeLinear"
    assert row(comparison, "y").differing == 1
    assert row(comparison, "y").largest_difference == 0


def test_fp32_is_what_a_tensor_was_before_quantising(prepared, plan, tensors):
    comparison = found(prepared, plan, tensors)
    assert row(comparison, "c2_quantized").fp32_tensor == "c2"
    # 8 bits end at zero, where a Relu follows that is no node of its own any more.
    assert row(comparison, "c1_quantized").fp32_tensor == "r1"
    for each in comparison.tensors:
        if each.fp32_tensor:
            assert each.fp32_sqnr_db > 25
            assert each.fp32_largest_difference > 0
    quantised = prepare(prepared.model)
    assert quantised.floating is None
    bare = found(quantised, plan, tensors)
    assert all(each.fp32_tensor is None for each in bare.tensors)


def test_tensors_are_written_for_each_request(prepared, plan, tensors, tmp_path):
    found(prepared, plan, tensors, dump=tmp_path / "new" / "folder")
    with np.load(tmp_path / "new" / "folder" / "1.npz") as archive:
        np.testing.assert_array_equal(archive["cards/c1_quantized"], tensors[1]["c1_quantized"])
        np.testing.assert_array_equal(archive["int8/c1_quantized"], tensors[1]["c1_quantized"])
        assert archive["fp32/r1"].dtype == np.float32


def test_a_model_is_compared_on_cards():
    told = []
    comparison = compare(
        nets.residual(), [{"x": nets.images(3)}], calibration=CALIBRATION, cards=2,
        config="tiny", progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert comparison.requests == 3
    assert comparison.first is None
    assert {"c1_quantized", "c2_quantized", "a_quantized"} <= {
        each.tensor for each in comparison.tensors
    }
    assert sum(done for done, _ in told) == told[0][1]


def test_what_cannot_be_compared_is_refused(plan):
    with pytest.raises(ModelError, match="is compiled, and holds no more"):
        compare(plan, REQUESTS)
    with pytest.raises(ModelError, match="is compiled, and holds no more"):
        compare("net.halfdome", REQUESTS)
    with pytest.raises(ModelError, match="requests: are none"):
        compare(nets.residual(), [], calibration=CALIBRATION, config="tiny")
    with pytest.raises(ModelError, match=r"requests\[0\]: input z: unknown"):
        compare(nets.residual(), [{"z": 1}], calibration=CALIBRATION, config="tiny")


def test_infinite_values_are_compared_in_silence():
    right = np.array([np.inf, -np.inf, 1.0, 3e38], np.float32)
    found_ = np.array([np.inf, 1.0, 1.5, -3e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _against(found_, right)[0] == 3


def test_a_dump_that_cannot_be_written_is_refused_at_once(tmp_path):
    file = tmp_path / "file"
    file.touch()
    told = []
    with pytest.raises(ValueError, match=f"{file / 'dump'}: is no folder to write to"):
        compare(nets.residual(), REQUESTS, dump=file / "dump", say=told.append)
    assert not told
