"""A point measured on simulated cards: what is counted fits what is known of the work."""

import numpy as np
import pytest

from halfdome.host.explore import measure, study
from halfdome.host.explore.metrics import METRICS
from halfdome.host.explore.study import Recommender
from halfdome.host.explore.workloads import NETS, shape, work
from tests.host.explore.studies import SMALL, of

pytestmark = pytest.mark.slow


def measured(made):
    [values] = made.combinations()
    return measure.measure(made, values)


@pytest.fixture(scope="module")
def row():
    return measured(of(parameters={"cards": 2, "batch": 8}, arrivals={"p99_us": 20}))


def test_cycles_without_hardware_are_those_of_the_rtl(row):
    on_rtl = measured(of(parameters={"cards": 2, "batch": 8}, engine="native"))
    assert (row["engine"], on_rtl["engine"]) == ("timing", "native")
    for name in ("interval_cycles", "latency_cycles", "shares", "energy_uj"):
        assert row[name] == on_rtl[name], name


def test_every_metric_is_measured_and_every_bit_is_right(row):
    assert METRICS.keys() <= row.keys()
    assert row["mismatching_samples"] == 0


def test_products_are_those_of_the_nets(row):
    assert row["macs_per_sample"] == 16 * 16 + (4 * 16) * 16 + 16


def test_rates_follow_from_intervals_and_the_bound_leaves_less(row):
    interval = np.mean(row["interval_cycles"])
    assert row["queries_per_second"] == pytest.approx(400e6 / interval)
    assert row["samples_per_second"] == pytest.approx(8 * row["queries_per_second"])
    assert 0 < row["queries_per_second_at_p99"] < row["queries_per_second"]


def test_what_engines_do_fills_their_cycles(row):
    for shares in row["engines"].values():
        assert sum(shares.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in row["shares"].values())


def test_energy_is_power_over_the_samples_of_a_second(row):
    assert row["power_w"] == pytest.approx(
        row["energy_uj_per_sample"] * 1e-6 * row["samples_per_second"]
    )


def test_a_model_of_a_file_is_measured(tmp_path):
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    from tests.host.frontend import nets

    onnx.save(nets.residual(), tmp_path / "net.onnx")
    images = nets.images(4)
    np.savez(tmp_path / "x.npz", x=np.stack(images))
    (tmp_path / "net.toml").write_text("""
        version = 1
        config = "tiny"
        [workload]
        kind = "model"
        path = "net.onnx"
        requests = "x.npz"
        calibration = "x.npz"
        [parameters]
        cards = 2
        [arrivals]
        p99_us = 1000
    """)
    made = study.checked(study.read(tmp_path / "net.toml"), "net.toml", tmp_path)
    row = measured(made)
    assert METRICS.keys() <= row.keys()
    assert row["macs_per_sample"] > 0
    assert row["samples_per_second"] > 0


@pytest.mark.parametrize("name", NETS)
def test_published_shapes_have_their_published_tables_and_nets(name):
    architecture, pooling = shape(Recommender(kind="recommender", shape=name, rows_scale=1e-4))
    tables, dim, lookups = {"RM1": (8, 32, 80), "RM2": (32, 64, 120), "RM3": (10, 32, 20)}[name]
    assert (len(architecture.table_rows), architecture.dim, pooling) == (tables, dim, lookups)
    assert architecture.bottom[-1] == dim
    assert architecture.top[0] == (tables + 1) * dim


def test_tables_of_4_bits_take_half_the_bytes_and_every_bit_is_right():
    far = SMALL | {"tables": [4000, 2000]}
    rows = [
        measured(of(workload=far, parameters={"cards": 1, "batch": 4, "table_bits": bits}))
        for bits in (8, 4)
    ]
    assert [row["mismatching_samples"] for row in rows] == [0, 0]
    eight, four = (row["dram_bytes"] for row in rows)
    assert eight - four == (4000 + 2000) * ((16 + 8) - (8 + 4))


def test_a_recommender_without_its_tables_is_told_what_it_lacks():
    said = {name: value for name, value in SMALL.items() if name != "pooling"}
    with pytest.raises(ValueError, match="pooling: is missing; give it, or shape"):
        work(Recommender(**said), 4)
