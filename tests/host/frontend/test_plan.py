"""A plan: which requests arrays hold, and what it tells of itself."""

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from halfdome.hdl.commands import RowFormat
from halfdome.host.frontend.bags import Bag, Source
from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.plan import Argument, Plan
from halfdome.host.frontend.prepare import Prepared
from tests.host.frontend import nets

FLOAT = np.dtype(np.float32)


def plan_of(**shapes):
    inputs = tuple(Argument(name, FLOAT, shape) for name, shape in shapes.items())
    return Plan(inputs, (), (), 1, "", {})


def zeros(*shape):
    return np.zeros(shape, np.float32)


def test_an_extra_first_axis_counts_requests():
    plan = plan_of(a=(2, 3), b=(None,))
    made = plan.split("x.npz", {"a": zeros(4, 2, 3), "b": zeros(4, 7)})
    assert [{name: each.shape for name, each in one.items()} for one in made] == [
        {"a": (2, 3), "b": (7,)}
    ] * 4
    [one] = plan.split("x.npz", {"a": zeros(2, 3), "b": zeros(5)})
    assert one["b"].shape == (5,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": zeros(4, 2), "b": zeros(3, 2)}, "x.npz: inputs differ in how many.*a 4, b 3"),
        ({"a": zeros(4, 2), "b": zeros(2)}, "x.npz: inputs differ in how many.*a 4, b 1"),
        ({"a": zeros(4, 3), "b": zeros(4, 2)}, r"x.npz: input a: is float32\[3\]"),
        ({"a": zeros(0, 2), "b": zeros(0, 2)}, "x.npz: holds no request"),
        ({"a": zeros(2)}, "x.npz: input b: missing from the request"),
        ({"a": zeros(2), "b": zeros(2), "c": 1}, "x.npz: input c: unknown; inputs are a, b"),
    ],
)
def test_arrays_that_hold_no_requests_are_refused(arrays, message):
    with pytest.raises(ModelError, match=message):
        plan_of(a=(2,), b=(2,)).split("x.npz", arrays)


def test_the_report_tells_where_why_and_what_crosses_the_links(tmp_path):
    plan = compile(nets.residual(), calibration=[{"x": nets.images(4)}], cards=1, config="tiny")
    report = plan.report
    json.dumps(report)
    nodes = {
        node["node"]: (step["where"], node) for step in report["steps"] for node in step["nodes"]
    }
    assert nodes["Conv_c1_quant"] == (
        "cards", {"node": "Conv_c1_quant", "operator": "QLinearConv"},
    )  # fmt: skip
    assert nodes["MaxPool_p"][0] == "cards"
    [softmax] = [node for _, node in nodes.values() if "Softmax" in node["operator"]]
    assert "cards sum rows in another order" in softmax["why"]
    assert report["nodes_on_cards"] + report["nodes_on_host"] == len(nodes)
    # The cards take 3 planes of 12 x 12; the Softmax takes 5 bytes from them.
    [last] = [step for step in report["steps"] if softmax in step["nodes"]]
    assert (last["link_bytes_in"], last["link_bytes_out"]) == (5, 0)
    on_cards = [step for step in report["steps"] if step["where"] == "cards"]
    assert [step["link_bytes_in"] for step in on_cards] == [3 * 144]
    for side in ("link_bytes_in", "link_bytes_out"):
        assert report[side] == sum(step[side] for step in on_cards)
    plan.save(tmp_path / "net.halfdome")
    assert Plan.load(tmp_path / "net.halfdome").report == report


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: is a folder, must be a file"):
        plan_of().save(tmp_path)
    with pytest.raises(ValueError, match=f"folder {tmp_path / 'none'} does not exist"):
        plan_of().save(tmp_path / "none" / "net.halfdome")


def test_what_is_compiled_is_not_compiled_again(tmp_path):
    with pytest.raises(ModelError, match=r"net.halfdome: is compiled already"):
        compile(tmp_path / "net.halfdome")
    with pytest.raises(ModelError, match="model: is compiled already"):
        compile(plan_of())


def test_a_saved_plan_pools_rows_of_4_bits(tmp_path):
    rest = nets.model([nets.node("Relu", "pooled", "y")], {"pooled": (np.float32, (2, 6))}, ["y"],
                      {})  # fmt: skip
    table = np.zeros((5, RowFormat.INT4.row_bytes(6)), np.uint8)
    bag = Bag("pooled", "rows", table, 2, Source("i"), length=1, row_format=RowFormat.INT4)
    examples = [{"i": np.array([1, 4])}]
    prepared = Prepared("net", rest, None, (bag,), frozenset(), examples, None)
    plan = compile(prepared, cards=1, config="tiny")
    plan.save(tmp_path / "net.halfdome")
    [[made]] = [part.bags for part in Plan.load(tmp_path / "net.halfdome").parts]
    assert (made.row_format, made.dim) == (RowFormat.INT4, 6)


def test_rows_longer_than_cards_pool_are_refused_by_the_name_of_their_table():
    inputs = {"pooled": (np.float32, (2, 300))}
    rest = nets.model([nets.node("Relu", "pooled", "y")], inputs, ["y"], {})
    table = np.zeros((5, 300 + 8), np.uint8)
    bag = Bag("pooled", "users.weight", table, 2, Source("indices"), length=1)
    prepared = Prepared("net", rest, None, (bag,), frozenset(), (), None)
    message = r"users.weight: has rows of 300 elements.*pool 256; .*such as default"
    with pytest.raises(ModelError, match=message):
        compile(prepared, config="tiny")
