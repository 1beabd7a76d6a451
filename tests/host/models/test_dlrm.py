"""The fp32 model computes what its definition says, and files are read whole or refused."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from halfdome.host.models import dlrm, features
from halfdome.host.models.dlrm import Architecture, Dlrm, WeightsError
from halfdome.host.models.features import Bags


def test_forward_is_the_definition_sample_by_sample(model, samples):
    batch = samples.held_out.take(range(20))
    p = {name: tensor.astype(np.float64) for name, tensor in model.parameters.items()}
    logits, probability = model.logits(batch), model.forward(batch)
    start = [np.cumsum(bags.lengths) - bags.lengths for bags in batch.sparse]
    for n in range(len(batch)):
        x = batch.dense[n].astype(np.float64)
        for layer in ("bot_l.0", "bot_l.2"):
            x = np.maximum(p[f"{layer}.weight"] @ x + p[f"{layer}.bias"], 0)
        segments = [x]
        for table, bags in enumerate(batch.sparse):
            first = start[table][n]
            rows = bags.indices[first : first + bags.lengths[n]]
            segments.append(sum((p[f"emb_l.{table}.weight"][row] for row in rows), np.zeros(32)))
        x = np.concatenate(segments)
        for layer in ("top_l.0", "top_l.2"):
            x = np.maximum(p[f"{layer}.weight"] @ x + p[f"{layer}.bias"], 0)
        logit = p["top_l.4.weight"] @ x + p["top_l.4.bias"]
        assert logits[n] == pytest.approx(logit[0], abs=1e-5)
        assert probability[n] == pytest.approx(1 / (1 + np.exp(-logit[0])), abs=1e-6)


@pytest.mark.parametrize("interaction", ["cat", "dot"])
def test_forward_is_that_of_torch(request, samples, interaction):
    torch = pytest.importorskip("torch")
    model = request.getfixturevalue("model" if interaction == "cat" else "dot_model")
    batch = samples.held_out
    p = {name: torch.from_numpy(tensor) for name, tensor in model.parameters.items()}
    linear, relu = torch.nn.functional.linear, torch.relu
    x = torch.from_numpy(batch.dense)
    for layer in ("bot_l.0", "bot_l.2"):
        x = relu(linear(x, p[f"{layer}.weight"], p[f"{layer}.bias"]))
    segments = [x]
    for table, bags in enumerate(batch.sparse):
        offsets = torch.from_numpy(np.cumsum(bags.lengths) - bags.lengths)
        segments.append(
            torch.nn.functional.embedding_bag(
                torch.from_numpy(bags.indices).long(), p[f"emb_l.{table}.weight"], offsets,
                mode="sum",
            )
        )  # fmt: skip
    if interaction == "dot":
        pairs = [(segments[i] * segments[j]).sum(1) for i in range(len(segments)) for j in range(i)]
        segments[1:] = [torch.stack(pairs, 1)]
    x = torch.cat(segments, 1)
    for layer in ("top_l.0", "top_l.2"):
        x = relu(linear(x, p[f"{layer}.weight"], p[f"{layer}.bias"]))
    x = linear(x, p["top_l.4.weight"], p["top_l.4.bias"])[:, 0]
    np.testing.assert_allclose(model.logits(batch), x.numpy(), atol=1e-5)


@pytest.mark.parametrize("interaction", ["cat", "dot"])
def test_columns_of_the_top_input_follow_their_segments(interaction):
    rng = np.random.default_rng(2)
    segments = rng.normal(size=(5, 4, 3)).astype(np.float32)
    width = Architecture.interaction_width(3, 3, interaction)
    architecture = Architecture((1, 1, 1), 3, (2, 3), (width, 1), interaction)
    order = [0, 3, 1, 2]
    expected = dlrm.interact(segments, interaction)[:, architecture.top_columns(order)]
    moved = dlrm.interact(segments[:, order], interaction)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_an_interaction_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="interaction='sum': must be 'cat' or 'dot'"):
        Architecture((1,), 3, (2, 3), (6, 1), "sum")


def test_an_empty_bag_pools_to_zeros():
    bags = Bags(np.array([1, 1, 0], np.int32), np.array([0, 2, 0, 1, 0], np.int32))
    table = np.array([[1, 2], [10, 20]], np.float32)
    pooled = dlrm.embedding_bag(table, bags)
    assert pooled.tolist() == [[0, 0], [20, 40], [0, 0], [1, 2], [0, 0]]
    nothing = Bags(np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert dlrm.embedding_bag(table, nothing).shape == (0, 2)


def test_sigmoid_does_not_overflow():
    x = np.array([-1e4, -100, -1, 0, 1, 100, 1e4], np.float32)
    y = dlrm.sigmoid(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x.astype(np.float64).clip(-700))), atol=1e-7)


def test_parameters_have_the_names_and_shapes_of_dlrm():
    assert Architecture((5, 7), 4, (3, 6, 4), (12, 8, 1)).shapes() == {
        "emb_l.0.weight": (5, 4), "emb_l.1.weight": (7, 4),
        "bot_l.0.weight": (6, 3), "bot_l.0.bias": (6,),
        "bot_l.2.weight": (4, 6), "bot_l.2.bias": (4,),
        "top_l.0.weight": (8, 12), "top_l.0.bias": (8,),
        "top_l.2.weight": (1, 8), "top_l.2.bias": (1,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((5,), 4, (3, 5), (8, 1)), r"bottom=\(3, 5\): must be two widths or more, the last dim=4"),
        (((5,), 4, (4,), (8, 1)), r"bottom=\(4,\): must be two widths or more, the last dim=4"),
        (((5,), 4, (3, 4), (9, 1)), r"top=\(9, 1\): must lead from 8 to 1"),
        (((5,), 4, (3, 4), (8, 2)), r"top=\(8, 2\): must lead from 8 to 1"),
        (((0,), 4, (3, 4), (8, 1)), "every size must be a positive int"),
        (((5.0,), 4, (3, 4), (8, 1)), "every size must be a positive int"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Architecture(*sizes)


def test_a_saved_model_comes_back_the_same_and_in_the_same_bytes(model, tmp_path):
    dlrm.save(model, tmp_path / "new" / "a")
    again = dlrm.load(tmp_path / "new" / "a")
    assert again.architecture == model.architecture
    assert again.metadata == model.metadata
    assert again.parameters.keys() == model.parameters.keys()
    for name, tensor in model.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], tensor)
    dlrm.save(again, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "new" / "a").read_bytes()


@pytest.fixture
def saved(model, tmp_path):
    dlrm.save(model, tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_truncated_file_is_refused(saved, kept):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(WeightsError, match=r"weights: truncated or not a safetensors file"):
        dlrm.load(saved)


def about(model):
    sizes = dataclasses.asdict(model.architecture)
    return {"dlrm": json.dumps({"architecture": sizes, **model.metadata})}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("top_l.2.bias"), "weights: tensor top_l.2.bias is missing"),
        (
            lambda t: t.update({"bot_l.0.weight": t["bot_l.0.weight"][:, 1:].copy()}),
            r"weights: tensor bot_l.0.weight is \(64, 10\), must be \(64, 11\)",
        ),
        (
            lambda t: t.update({"emb_l.3.weight": t["emb_l.3.weight"].astype(np.float16)}),
            "weights: tensor emb_l.3.weight is float16, must be float32",
        ),
        (
            lambda t: t["top_l.0.bias"].__setitem__(5, np.nan),
            "weights: tensor top_l.0.bias holds values that are not finite",
        ),
        (
            lambda t: t.update({"v_W_l.0": np.zeros(3, np.float32)}),
            "weights: tensor v_W_l.0 is not part of the architecture",
        ),
    ],
)
def test_a_damaged_tensor_is_named(model, saved, change, message):
    tensors = load_file(saved)
    change(tensors)
    save_file(tensors, saved, metadata=about(model))
    with pytest.raises(WeightsError, match=message):
        dlrm.load(saved)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "has no `dlrm` entry"),
        ({"dlrm": "{"}, "`dlrm` entry of its header"),
        ({"dlrm": "[]"}, "`dlrm` entry of its header"),
        ({"dlrm": "{}"}, "`dlrm` entry of its header: 'architecture'"),
        ({"dlrm": '{"architecture": {"dim": 4}}'}, "`dlrm` entry of its header: .*missing"),
    ],
)
def test_a_file_that_does_not_tell_its_architecture_is_refused(saved, header, message):
    save_file(load_file(saved), saved, metadata=header)
    with pytest.raises(WeightsError, match=message):
        dlrm.load(saved)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(
        WeightsError, match=r"none: no such file; .*python -m halfdome.host.models.train"
    ):
        dlrm.load(tmp_path / "none")


def test_weights_for_other_data_or_features_are_refused(model, samples):
    model.check_tables(samples.table_rows)
    with pytest.raises(WeightsError, match=r"the data needs \(1, 2\); train on this data"):
        model.check_tables((1, 2))
    older = Dlrm(model.architecture, model.parameters, {"feature_version": features.VERSION - 1})
    with pytest.raises(WeightsError, match="feature_version=0: the features are version 1"):
        older.check_tables(samples.table_rows)
