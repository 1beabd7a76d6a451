"""What cores are worth, on known shapes: graphs that mean something, rows that add up."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.config import PRESETS
from halfdome.host.bench import cores, shapes
from halfdome.host.bench.answers import span_cycles
from halfdome.host.compiler import costs
from halfdome.host.serving.deploy import deploy

SMALL = shapes.Recommender((16, 32), (32, 1), 3, 16, 5)
GROUPED = shapes.Bottleneck(6, 32, 16, groups=4)


@pytest.mark.parametrize(
    "made", [shapes.recommender(SMALL, 8, 50), shapes.bottlenecks(GROUPED, images=2)]
)
def test_random_weights_answer_neither_always_alike_nor_at_the_ends(made):
    graph, draw = made
    [answer] = [graph.run(draw())[name] for name in graph.outputs]
    assert len(np.unique(answer)) > 4
    if answer.dtype == np.uint8:
        assert np.isin(answer, (0, 255)).mean() < 0.5


def test_blocks_are_those_of_the_stages():
    assert {name: block.image for name, block in shapes.BLOCKS.items()} == {
        f"{net} stage {stage}": 56 >> stage - 2
        for net in ("resnet50", "resnext50")
        for stage in range(2, 6)
    }


@pytest.mark.parametrize(
    ("workloads", "counts", "message"),
    [
        (["RM4"], [1], "--workload RM4: unknown; known are demo, RM1"),
        (["RM1"], [1, 5], "--cores 5: must be 1 to 4"),
        (["RM1"], [0], "--cores 0: must be 1 to 4"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_built(workloads, counts, message):
    with pytest.raises(ValueError, match=message):
        cores.measure(PRESETS["quad"], workloads, counts)


def test_six_cards_pool_about_as_much_each():
    """The bar of a recommender whose tables lie on six cards."""
    for name in ("RM1", "RM2", "RM3"):
        graph, _ = shapes.recommender(shapes.RECOMMENDERS[name], 48, 64)
        assert 1.0 <= cores.imbalance(graph, PRESETS["quad"]) <= 1.15


@pytest.fixture
def small(monkeypatch):
    """A card of two cores and a recommender that it soon answers."""
    monkeypatch.setitem(shapes.RECOMMENDERS, "RM1", SMALL)
    monkeypatch.setattr(shapes, "BATCH", 32)
    monkeypatch.setattr(shapes, "TABLE_ROWS", 50)
    return PRESETS["tiny"].replace(cores=2)


def test_each_number_of_cores_has_a_row_with_right_answers(small):
    rows = cores.measure(small, ["RM1"], (1, 2), requests=4)["rows"]
    assert [row["cores"] for row in rows] == [1, 2]
    assert rows[0]["speedup"] == 1.0
    assert rows[1]["speedup"] > 1.7
    assert [row["cores_bind"] for row in rows] == [["matmul"], ["matmul"] * 2]
    assert all(row["mismatching_values"] == 0 for row in rows)
    assert all(0 < row["of_bound"] == row[f"{row['binds']}_share"] <= 1 for row in rows)


def test_what_each_core_does_adds_up(small):
    graph, draw = shapes.named("RM1", 1)
    with halfdome.open(cards=1, config=small, engine="timing") as runtime:
        served, card = deploy(runtime, graph, cores=[1]), runtime.cards[0]
        before = card.counters()
        served.run(draw)
        after = card.counters()
    spent = {name: after[name] - before[name] for name in after}
    activities = ("idle", "busy", "starved", "blocked")
    totals = {
        (core, engine): sum(spent[f"core{core}_{engine}_{each}_cycles"] for each in activities)
        for core in range(2)
        for engine in cores.ENGINES
    }
    assert set(totals.values()) == {spent["cycles"]}
    assert all(spent[f"core0_{engine}_idle_cycles"] == spent["cycles"] for engine in cores.ENGINES)
    assert all(spent[f"core1_{engine}_busy_cycles"] > 0 for engine in cores.ENGINES)


def test_cycles_are_known_without_values(small):
    with_values, without = (
        cores.measure(small, ["RM1"], (2,), requests=2, values=values)["rows"][0]
        for values in (True, False)
    )
    assert with_values.pop("mismatching_values") == 0
    assert without.pop("mismatching_values") is None
    assert without == with_values


def test_more_requests_take_as_long_each(small):
    few, many = (
        cores.measure(small, ["RM1"], (2,), requests=count)["rows"][0]["cycles_per_request"]
        for count in (4, 12)
    )
    assert many == pytest.approx(few, rel=0.05)


def test_cores_that_pool_in_far_memory_find_rows_of_dram_open():
    """Of four tables at a time each closes the others' rows: 0.66 of the peak. What all cores take
    of DRAM is expected, whatever each of them has to do."""
    config, dear = PRESETS["quad"], shapes.Recommender((16, 32), (32, 1), 4, 64, 60)
    graph, draw = shapes.recommender(dear, 64, 4096)
    requests = [draw() for _ in range(3)]
    with halfdome.open(cards=1, config=config, engine="timing", values=False) as runtime:
        served, card = deploy(runtime, graph, cores=range(4)), runtime.cards[0]
        before = card.counters()
        cycles = span_cycles(served.run(requests))
        read = card.counters()["dram_read_bytes"] - before["dram_read_bytes"]
        more = span_cycles(served.run(requests * 2)) - cycles
    assert served.program.about["interval_cycles"] == pytest.approx(more / 3, rel=0.05)
    assert read > 0.8 * costs.dram_bytes_per_cycle(config) * cycles


@pytest.mark.parametrize(
    ("count", "packed_cycles", "binds", "share"),
    [(2, 51_768, "gather", 0.89), (4, 36_855, "dram", 0.90)],
)
def test_rows_that_lie_apart_leave_dram_time(count, packed_cycles, binds, share):
    """RM1 takes fewer cycles than DRAM alone needs for rows that lie one behind the other. Then
    gather units of two cores are as busy as DRAM is beside four."""
    [row] = cores.measure(PRESETS["quad"], ["RM1"], (count,), values=False)["rows"]
    assert row["cycles_per_request"] < packed_cycles
    assert row["binds"] == binds
    assert row["of_bound"] >= share


@pytest.mark.long
def test_cores_share_a_card_as_hardware_does_when_it_is_timed_without(small):
    native, timing = (
        cores.measure(small, ["RM1"], (1, 2), requests=2, engine=engine)["rows"]
        for engine in ("native", "timing")
    )
    assert timing == native
