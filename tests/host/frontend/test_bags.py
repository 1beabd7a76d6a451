"""Bags as nodes of a graph, and the requests they refuse."""

from dataclasses import replace

import numpy as np
import pytest

from halfdome.host.frontend.bags import Bag, Source
from halfdome.host.frontend.errors import ModelError
from halfdome.host.graph.fused_rows import fuse_8bit
from halfdome.host.graph.graph import Graph

ROWS = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
BAG = Bag(
    "pooled_0", "table.weight", fuse_8bit(ROWS), 3, Source("indices"), Source("offsets"),
    weights=Source("weights"),
)  # fmt: skip
REQUEST = {
    "indices": np.array([1, 8, 8, 0]),
    "offsets": np.array([0, 3, 3]),
    "weights": np.array([1, 0.5, -1, 2], np.float32),
}


def test_a_graph_of_its_node_computes_what_the_bag_pools():
    graph = Graph(
        BAG.inputs(5), [BAG.output], [BAG.node(mean_length=3)], {BAG.table_name: BAG.table}
    )
    assert [(value.shape, value.ragged) for value in graph.inputs] == [
        ((15,), True), ((3,), False), ((15,), True)
    ]  # fmt: skip
    pooled = graph.run(BAG.operands(REQUEST))["pooled_0"]
    np.testing.assert_array_equal(pooled, BAG.pool(REQUEST))
    near = ROWS[1] + ROWS[8] / 2 - ROWS[8]
    np.testing.assert_allclose(BAG.pool(REQUEST)[0], near, atol=0.05)
    assert not BAG.pool(REQUEST)[1].any()
    nothing = {"indices": np.zeros(0, int), "offsets": np.zeros(3, int), "weights": np.zeros(0)}
    assert not BAG.pool(nothing).any()


def test_equally_long_bags_need_no_offsets():
    bag = replace(BAG, offsets=None, length=2, weights=None, mode="mean", count=2)
    assert bag.operands(REQUEST)["pooled_0 lengths"].tolist() == [2, 2]
    np.testing.assert_allclose(bag.pool(REQUEST)[1], (ROWS[8] + ROWS[0]) / 2, atol=0.05)
    with pytest.raises(ModelError, match="input indices: has 3 indices, must be in bags of 2"):
        bag.pool({"indices": np.arange(3)})


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_an_index_that_pads_takes_no_row(mode):
    bag = replace(BAG, padding=8, weights=None, mode=mode)
    pooled = bag.pool(REQUEST)
    np.testing.assert_array_equal(pooled, replace(bag, padding=None).pool(
        {"indices": np.array([1, 0]), "offsets": np.array([0, 1, 1])}
    ))  # fmt: skip
    weighted = replace(BAG, padding=8).pool(REQUEST)
    np.testing.assert_allclose(weighted, [ROWS[1], 0 * ROWS[1], 2 * ROWS[0]], atol=0.05)


def test_a_part_of_an_input_is_taken():
    stacked = {"both": np.array([[0, 1], [2, 3]])}
    assert Source("both", (1,)).of(stacked).tolist() == [2, 3]
    assert Source("both").of(stacked).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"indices": np.array([1, 9, 8, 0])}, "index 9 at position 1 is none of the 9 rows of tab"),
        ({"indices": np.array([1, 2, -1, 0])}, "index -1 at position 2"),
        ({"indices": np.array([0.5])}, "input indices: pooled_0 indices: .*must be integers"),
        ({"offsets": np.array([0, 3])}, "pooled_0: the request has 2 bags, must have 3"),
        ({"offsets": np.array([0, 3, 5])}, "input offsets: offsets: must start at 0"),
        ({"weights": np.ones(3, np.float32)}, "input weights: has 3 weights for 4 indices"),
        (
            {"weights": np.array([1, np.nan, 0, np.inf], np.float32)},
            "input weights: weight nan at position 1 is not finite; cards pool by finite weights",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused(changed, said):
    with pytest.raises(ModelError, match=said):
        BAG.pool(REQUEST | changed)


def test_a_bag_that_is_longer_than_its_room_is_refused():
    assert BAG.operands(REQUEST, 3)["pooled_0 lengths"].tolist() == [3, 0, 1]
    said = "input indices: bag 0 has 3 indices, the model has room for 2 in each; compile it with a"
    with pytest.raises(ModelError, match=said):
        BAG.operands(REQUEST, 2)
    assert replace(BAG, padding=8).operands(REQUEST, 1)["pooled_0 indices"].tolist() == [1, 0]


def test_an_input_that_is_missing_is_named():
    with pytest.raises(ModelError, match="input offsets: is missing; there are indices"):
        BAG.pool({"indices": REQUEST["indices"]})
