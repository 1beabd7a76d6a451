"""The ladder's table: rows of rungs that are there, and of those that are not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from halfdome.hdl.config import preset
from halfdome.host.bench import ladder
from halfdome.host.models.ladder.boxes import Boxes
from halfdome.host.models.ladder.rung import Rung
from halfdome.host.models.ladder.wheels import MissingModel
from tests.host.frontend import nets


@pytest.fixture
def rungs(monkeypatch):
    """A small one, and one whose files are missing."""

    def build():
        requests = [{"x": image} for image in nets.images(3, seed=8)]
        return Rung("a net", nets.residual(), requests, [{"x": nets.images(4)}])

    def missing():
        raise MissingModel("net.pt: no such file; fetch it with `make models`")

    known = {"small": ladder.Step(build, "y", -1), "absent": ladder.Step(missing, "y")}
    monkeypatch.setattr(ladder, "RUNGS", known)
    return known


def test_a_rung_is_held_against_onnx_runtime(rungs):
    told = []
    result = ladder.measure(
        preset("tiny"), ["absent", "small"], cards=2, requests=2,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert result["config_hash"] == preset("tiny").hash
    absent, small = result["rows"]
    assert absent == {
        "rung": "absent", "missing": "net.pt: no such file; fetch it with `make models`",
    }  # fmt: skip
    assert small["equal"]
    assert (small["samples"], small["top1_as_int8"], small["top1_as_fp32"]) == (2, 2, 2)
    assert small["operators"]["QLinearConv"] == 2
    assert small["nodes_on_cards"] > 3
    assert small["cycles_per_request"] > 0
    assert small["moved_bytes"] >= small["least_bytes"] > 0
    assert 0 < small["useful_mac_share"] < 1
    assert 0 < small["uplink_share"] < small["link_share"] < 1
    assert small["cycles"] < 2 * small["cycles_per_request"]
    assert sum(each["macs"] for step in small["layers"].values() for each in step["layers"]) > 0
    assert sum(done for rung, done, _ in told if rung == "small") == told[-1][2]


def test_layers_apart_share_no_cycle(rungs):
    [row] = ladder.measure(preset("tiny"), ["small"], cards=1, apart=True)["rows"]
    together, alone = ([each for step in row[name].values() for each in step["layers"]]
                       for name in ("layers", "apart"))  # fmt: skip
    assert [each["name"] for each in alone] == [each["name"] for each in together]
    assert not any(each["shared_cycles"] for each in alone)
    [step] = row["apart"].values()
    assert sum(each["ran_cycles"] for each in alone) <= step["latency_cycles"]


def test_a_wrong_answer_makes_the_row_unequal(rungs, monkeypatch):
    right = ladder.InferenceSession.tensors

    def tensors(self, requests, progress):
        made = right(self, requests, progress)
        made[0]["y"] = np.flip(made[0]["y"]).copy()
        return made

    monkeypatch.setattr(ladder.InferenceSession, "tensors", tensors)
    [row] = ladder.measure(preset("tiny"), ["small"], cards=1)["rows"]
    assert not row["equal"]
    assert row["worst_sqnr_db"] < 20
    assert row["first_difference"] is not None


def test_what_is_not_on_the_ladder_is_refused(rungs):
    with pytest.raises(ValueError, match="--rung big: unknown; known are small, absent"):
        ladder.measure(preset("tiny"), ["big"])
    with pytest.raises(ValueError, match="--requests 4: must be 1 to 3 for small"):
        ladder.measure(preset("tiny"), ["small"], requests=4)


def test_classes_are_the_largest_the_label_or_the_likelier_of_two():
    scores = np.array([[[0.1, 0.9], [0.6, 0.4]], [[0.9, 0.1], [0.4, 0.6]]])
    step = ladder.Step(SimpleNamespace, "y", 1)
    assert step.classes({"y": scores}).tolist() == [1, 0, 0, 1]
    step = ladder.Step(SimpleNamespace, "y")
    assert step.classes({"y": np.array([3, 1])}).tolist() == [3, 1]
    assert step.classes({"y": np.array([[0.4], [0.5]])}).tolist() == [False, True]


def test_what_is_found_is_counted_by_boxes_that_are_mostly_the_same():
    def boxes(edges):
        return Boxes(edges, np.ones(len(edges)))

    step = ladder.Step(SimpleNamespace, "y", boxes=boxes)
    mine = {"y": np.array([[0, 0, 10, 10], [20, 0, 30, 10]])}
    others = {"y": np.array([[0, 0, 10, 9], [26, 0, 36, 10], [50, 0, 60, 10]])}
    assert (step.samples(mine), step.agreeing(mine, mine), step.agreeing(mine, others)) == (2, 2, 1)
    assert step.agreeing(mine, {"y": np.zeros((0, 4))}) == 0


def test_what_is_heavy_is_measured_only_if_it_is_named(rungs, monkeypatch):
    assert ladder.usual() == ["small", "absent"]
    monkeypatch.setitem(rungs, "small", replace(rungs["small"], heavy=True))
    assert ladder.usual() == ["absent"]
    ladder.check_rungs(["small"])
