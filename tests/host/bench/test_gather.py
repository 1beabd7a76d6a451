"""The gather bench: its points, its bounds, and what it reports of a card."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import preset
from halfdome.hdl.registers import GATHER_WAITS
from halfdome.host.bench import gather, gather_run, gather_study
from halfdome.host.bench.gather import Bags, Point
from halfdome.sim.golden.operators import Reference

TINY = preset("tiny")
DEFAULT = preset("default")


def test_the_sweep_has_every_combination():
    points = gather.sweep()
    assert len(points) == len(set(points)) == 200
    assert len({dataclasses.astuple(point) for point in points}) == 200


def test_a_part_of_the_sweep_draws_the_same_lookups():
    (alone,) = gather.sweep([64], [8], [32], ["production"], ["packed"])
    assert alone in gather.sweep()
    first, again = (gather.draw(alone, DEFAULT, 3)[0] for _ in range(2))
    np.testing.assert_array_equal(first.indices, again.indices)
    other = gather.draw(alone, DEFAULT, 4)[0]
    assert not np.array_equal(first.indices, other.indices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": [2]}, "bits=2: unknown; known are 8, 4"),
        ({"reuses": ["zipf"]}, "reuse=zipf: unknown; known are uniform, production"),
        ({"strides": ["line"]}, "stride=line: unknown; known are packed, padded"),
        ({"dims": [0]}, "dim=0: must be at least 1"),
        ({"poolings": [-1]}, "pooling=-1: must be at least 1"),
    ],
)
def test_a_value_that_nobody_knows_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        gather.sweep(**arguments)


def test_recommenders_are_one_cards_share_under_every_trace():
    points = gather.shapes(["RM2"])
    assert [point.reuse for point in points] == ["uniform", "production"]
    assert {(p.dim, p.pooling, p.tables, p.rows, p.name) for p in points} == {
        (64, 120, 6, 500_000, "RM2")
    }
    with pytest.raises(ValueError, match="shape=RM4: unknown; known are RM1, RM2, RM3"):
        gather.shapes(["RM4"])


@pytest.mark.parametrize("config", [TINY, DEFAULT], ids=["tiny", "default"])
def test_operands_fit_the_scratchpad_and_tables_half_of_dram(config):
    for point in [*gather.sweep(), *gather.shapes(gather.SHAPES)]:
        lookups = gather.draw(point, config, 0)
        assert len(lookups) == point.tables
        sizes = [
            -(-size // 64) * 64
            for table in lookups
            for size in (
                -(-table.lengths.nbytes // 32) * 32 + table.indices.nbytes,
                table.bags * -(-4 * point.dim // config.bus_bytes) * config.bus_bytes,
            )
        ]
        assert sum(sizes) <= config.scratchpad_bytes
        assert all(table.lengths.sum() == len(table.indices) for table in lookups)
        rows = point.table_rows(config)
        assert point.tables * rows * point.row_stride <= config.dram_bytes // 2
        assert max(table.indices.max() for table in lookups) < rows


def test_a_bag_larger_than_the_scratchpad_is_refused():
    config = TINY.replace(scratchpad_bytes=4096, max_dim=1024)
    with pytest.raises(ValueError, match=r"scratchpad_bytes=4096: a bag of D1024 8b P1 takes"):
        gather.draw(Point(1024, 8, 1), config, 0)


@given(
    starts=st.lists(st.integers(0, 1000), max_size=20),
    row_bytes=st.integers(1, 300),
    unit=st.sampled_from([16, 64]),
)
def test_lines_of_rows_are_those_they_touch(starts, row_bytes, unit):
    found = gather.row_lines(np.array(starts, np.int64), row_bytes, unit)
    expected = [
        line for s in starts for line in sorted({b // unit * unit for b in range(s, s + row_bytes)})
    ]
    assert found.tolist() == expected


def test_bounds_count_what_must_happen():
    point = Point(dim=20, bits=8, pooling=2, stride="packed")  # rows of 28 bytes
    lookups = [Bags(np.array([0, 1, 2, 3], np.int32), 2), Bags(np.array([5, 5], np.int32), 1)]
    assert gather.bounds(point, TINY, lookups, [0, 1000]) == {
        "lanes": 6 * 5,
        "index": 1 + 1,
        "output": 3 * 5,
        # Rows at 0, 28, 56, 84 and twice at 1000 + 140, in words of 16 bytes.
        "bus": 2 + 3 + 3 + 2 + 2 * 2,
    }


@pytest.fixture(scope="module")
def measured():
    points = gather.sweep([12, 64], [8, 4], [1, 9], ["production"], ["packed"])
    points += gather.shapes(["RM3"])
    return points, gather_run.measure(points, TINY, cards=3, seed=5, lookups=40)


def test_no_point_beats_its_tightest_bound(measured):
    points, result = measured
    assert [row["point"] for row in result["rows"]] == [point.name for point in points]
    for row in result["rows"]:
        limits = {
            name: row[f"{name}_bound_cycles"]
            for name in ("dram", "lanes", "index", "output", "bus")
        }
        assert limits[row["tightest_bound"]] == max(limits.values()) > 0
        assert 0 < row["gather_efficiency"] == max(limits.values()) / row["cycles"] < 1
        assert row["mismatching_values"] == 0
        assert row["lookups"] == row["bags"] * row["pooling"] >= 40


def test_counts_of_a_point_are_its_own(measured):
    points, result = measured
    for point, row in zip(points, result["rows"], strict=True):
        active = row["busy_cycles"] + row["starved_cycles"] + row["blocked_cycles"]
        assert active == sum(row[f"gather_{wait}_cycles"] for wait in GATHER_WAITS)
        # Between the commands of several tables the unit is idle for a moment.
        assert row["cycles"] - 20 * point.tables <= active <= row["cycles"] + 20 * point.tables
        # Every line of every row is read, and nothing else.
        least = row["lookups"] * row["row_bytes"] / 64
        assert least <= row["dram_reads"] <= row["lookups"] * (row["row_bytes"] // 64 + 2)
        assert row["dram_writes"] == 0


def test_a_result_can_be_made_again(measured):
    points, result = measured
    assert {"config_hash", "halfdome_version", "seed", "engine", "operands"} <= set(result)
    assert gather_run.measure(points, TINY, cards=3, seed=5, lookups=40) == result


def test_the_summary_tells_least_median_and_the_worst(measured):
    _, result = measured
    efficiency = [row["gather_efficiency"] for row in result["rows"]]
    summary = result["summary"]
    assert summary["efficiency"]["all"]["least"] == min(efficiency)
    assert summary["efficiency"]["all"]["median"] == pytest.approx(np.median(efficiency))
    assert summary["efficiency"]["pooling 1"]["points"] == 4
    assert len(summary["worst"]) == 5
    assert f"{min(efficiency):.3f} of the" in summary["worst"][0]["why"]
    row = result["rows"][0]
    assert f"; memory {row['gather_memory_cycles'] / row['cycles']:.0%}, lanes" in gather.why(row)


@pytest.mark.parametrize(
    ("memory", "lanes", "indices", "output", "bound"),
    [
        (10, 85, 4, 1, "memory"),
        (2, 50, 1, 47, "output"),
        (2, 97, 0, 1, "lanes"),
        (1, 40, 59, 0, "indices"),
    ],
)
def test_counters_name_the_bound(memory, lanes, indices, output, bound):
    waits = {"memory": memory, "lanes": lanes, "indices": indices, "output": output}
    row = {f"gather_{name}_cycles": count for name, count in waits.items()}
    assert gather.counted_bound(row | {"cycles": 100}) == bound


def test_a_wrong_answer_is_counted(monkeypatch):
    right = Reference.embedding_bag
    monkeypatch.setattr(Reference, "embedding_bag", lambda *a, **k: right(*a, **k) + 1)
    (row,) = gather_run.measure(gather.sweep([8], [8], [3], ["uniform"], ["packed"]), TINY,
                                lookups=30)["rows"]  # fmt: skip
    assert row["mismatching_values"] == 8 * row["bags"]


def test_popular_rows_first_are_the_same_lookups_in_other_places():
    (point,) = gather.sweep([16], [8], [10], ["production"], ["packed"])
    (plain,) = gather.draw(point, TINY, 0)
    (popular,) = gather.draw(dataclasses.replace(point, order="popular"), TINY, 0)
    _, plain_rows = np.unique(plain.indices, return_inverse=True)
    _, popular_rows = np.unique(popular.indices, return_inverse=True)
    # One to one.
    pairs = set(zip(plain_rows, popular_rows, strict=True))
    assert len(pairs) == len(set(plain.indices)) == len(set(popular.indices))
    hottest = np.bincount(popular.indices).argmax()
    assert hottest * point.row_stride < 4096


def test_a_study_holds_every_variant_to_the_first():
    points = gather.sweep([16, 32], [8], [4], ["production"], ["packed"])
    result = gather_study.compare("placement", points, TINY, cards=2, lookups=60)
    assert [row["variant"] for row in result["rows"]] == ["plain"] * 2 + ["popular"] * 2
    plain, popular = result["rows"][:2], result["rows"][2:]
    for before, after in zip(plain, popular, strict=True):
        assert before["speed_up"] == 1
        assert after["speed_up"] == before["cycles"] / after["cycles"]
        assert before["unique_rows"] == after["unique_rows"]
        assert before["mismatching_values"] == after["mismatching_values"] == 0
    sizes = [c.gather_cache_bytes for _, c, _ in gather_study.variants("cache", DEFAULT)]
    assert sizes[0] == 0 < sizes[1] < sizes[2]
    (point,) = gather.sweep([32], [8], [32], ["production"], ["packed"])
    designs = [design for _, design, _ in gather_study.variants("channels", DEFAULT)]
    assert [design.dram_channels for design in designs] == [1, 1, 2, 2, 4, 4]
    assert len({gather.draw(point, design, 0)[0].bags for design in designs}) == 1
    with pytest.raises(
        ValueError, match="study=reuse: unknown; known are cache, placement, channels"
    ):
        gather_study.variants("reuse", TINY)
