"""Training learns, repeats itself, and says what it lacks."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from halfdome.host.models import dlrm, train
from halfdome.host.models.metrics import roc_auc
from halfdome.host.models.train import Recipe
from tests.host.models import synthetic

QUICK = Recipe(epochs=3, batch=32, validation=0.3)


@pytest.mark.slow
def test_training_learns_and_repeats_itself(samples):
    pytest.importorskip("torch")
    lines = []
    first = train.train(samples, QUICK, lines.append)
    second = train.train(samples, QUICK)
    assert first.metadata == second.metadata
    for name, tensor in first.parameters.items():
        np.testing.assert_array_equal(tensor, second.parameters[name])
    assert roc_auc(samples.train.label, first.logits(samples.train)) > 0.7
    assert lines[0].startswith("epoch 1: loss 0.")
    other = train.train(samples, Recipe(seed=1, epochs=1))
    assert (other.parameters["top_l.0.weight"] != first.parameters["top_l.0.weight"]).any()


def test_the_best_epoch_is_kept_and_described(samples):
    pytest.importorskip("torch")
    lines = []
    model = train.train(samples, QUICK, lines.append)
    best = max(float(line.rpartition(" ")[2]) for line in lines)
    fitted = int(len(samples.train) * 0.7)
    validation = samples.train.take(range(fitted, len(samples.train)))
    assert roc_auc(validation.label, model.logits(validation)) == pytest.approx(best, abs=1e-4)
    held_out = roc_auc(samples.held_out.label, model.logits(samples.held_out))
    assert model.metadata["held_out_auc"] == pytest.approx(held_out, abs=1e-6)
    assert model.metadata["validation_auc"] == pytest.approx(best, abs=1e-4)
    assert model.metadata["recipe"]["seed"] == 0
    model.check_tables(samples.table_rows)


def test_users_and_items_never_met_are_the_unknown_one(samples):
    pytest.importorskip("torch")
    model = train.train(samples, Recipe(epochs=1, validation=0.9))
    met = samples.train.take(range(int(len(samples.train) * 0.1)))
    for table in (0, 1):
        weight = model.tables[table]
        known = set(met.sparse[table].indices.tolist())
        unknown = [row for row in range(len(weight)) if row not in known]
        assert len(unknown) > 1
        assert (weight[unknown] == weight[0]).all()
        assert (weight[list(known)] != weight[0]).any(axis=1).all()


def test_training_leaves_the_samples_alone(samples):
    pytest.importorskip("torch")
    before = [bags.indices.copy() for bags in samples.train.sparse]
    train.train(samples, Recipe(epochs=1))
    for bags, indices in zip(samples.train.sparse, before, strict=True):
        np.testing.assert_array_equal(bags.indices, indices)


def test_the_command_writes_weights_that_load(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    synthetic.write(tmp_path, ratings=900)
    output = tmp_path / "weights" / "w.safetensors"
    monkeypatch.setattr(
        sys, "argv", ["train", "--data", str(tmp_path), "--output", str(output), "--seed", "3"]
    )
    train.main()
    assert dlrm.load(output).metadata["recipe"]["seed"] == 3
    assert "held-out AUC" in capsys.readouterr().out


def test_without_torch_it_says_what_to_install(samples, monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(RuntimeError, match=r"pip install 'halfdome\[torch\]'"):
        train.train(samples)


def test_the_command_says_what_is_wrong_and_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 1
    assert "ml-100k.user: no such file" in capsys.readouterr().err


def test_running_a_model_does_not_load_torch():
    code = (
        "import sys, halfdome.host.models.train, halfdome.host.models.quantise;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "must be at least 1"),
        ({"batch": 0}, "must be at least 1"),
        ({"validation": 1.0}, "validation=1.0: must be between 0 and 1"),
    ],
)
def test_an_impossible_recipe_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)
