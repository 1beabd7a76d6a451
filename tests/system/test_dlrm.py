"""A recommendation model on several cards: golden bits, whole reports, timelines."""

import dataclasses
import json

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Engine, Opcode
from halfdome.hdl.config import preset
from halfdome.hdl.registers import ACTIVITIES, TRAFFIC
from halfdome.host.bench import dlrm as bench
from halfdome.host.models import dlrm, features, movielens
from halfdome.host.models.dlrm import Architecture, Dlrm
from halfdome.host.models.quantise import longest_bags, quantise, request
from halfdome.host.serving.deploy import deploy
from tests.host.models import synthetic

TINY = preset("tiny")
BATCH = 6


def small_workload(folder, top=(48,), batches=5, interaction="cat", dim=16):
    """Made-up ratings, random weights, the demo's features; the last batch is short."""
    samples = features.build(movielens.load(synthetic.write(folder)), train=0.6, calibration=0.2)
    rng = np.random.default_rng(1)
    joined = Architecture.interaction_width(len(samples.table_rows), dim, interaction)
    architecture = Architecture(
        samples.table_rows, dim, (len(features.DENSE), 8, dim), (joined, *top, 1), interaction
    )
    parameters = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in architecture.shapes().items()
    }
    model = Dlrm(architecture, parameters, {"feature_version": features.VERSION})
    held_out = samples.held_out.take(range(BATCH * batches - 2))
    cut = tuple(held_out.batches(BATCH))
    graph = quantise(model, samples.calibration, BATCH, longest_bags(cut))
    return bench.Workload(model, graph, cut)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return small_workload(tmp_path_factory.mktemp("ratings"))


@pytest.fixture(scope="module")
def timeline(tmp_path_factory):
    """Where `outcome` leaves its timeline."""
    return tmp_path_factory.mktemp("timeline") / "timeline.json"


@pytest.fixture(scope="module")
def outcome(work, timeline):
    told = []
    outcome = bench.run(work, TINY, cards=3, progress=told.append, trace=timeline)
    assert told == [len(batch) for batch in work.batches]
    return outcome


@pytest.fixture(scope="module")
def commands(outcome, timeline):
    """Card and label of every command that ran, in order of their starts."""
    events = json.loads(timeline.read_text())["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    ran = [event for event in events if "start_cycle" in event.get("args", {})]
    ran.sort(key=lambda event: event["ts"])
    return [(names[e["pid"]], e["args"]["for"]) for e in ran if "for" in e["args"]]


def test_every_sample_has_the_bits_of_the_golden_model(work, outcome):
    assert outcome.mismatches == outcome.report["mismatching_samples"] == 0
    assert outcome.report["samples"] == work.samples == 28
    assert 0 <= outcome.report["auc_cards"] <= 1


def test_answers_differ_from_sample_to_sample(work):
    """Else equal bits would say little."""
    answers = np.concatenate([bench.golden(work.graph, batch) for batch in work.batches])
    assert len(np.unique(answers)) > 5


@pytest.mark.parametrize("cards", [1, 2])
def test_the_number_of_cards_does_not_change_the_answers(work, outcome, cards):
    fewer = bench.run(work, TINY, cards=cards)
    assert fewer.mismatches == 0
    assert fewer.report["auc_cards"] == outcome.report["auc_cards"]


def test_two_runs_take_the_same_cycles(work, outcome):
    assert bench.run(work, TINY, cards=3).report == outcome.report


def test_a_top_net_of_one_layer_waits_for_its_peers(tmp_path):
    assert bench.run(small_workload(tmp_path, top=(), batches=3), TINY, cards=2).mismatches == 0


def test_the_report_tells_cycles_bytes_and_latencies(work, outcome):
    report = outcome.report
    assert report["config_hash"] == TINY.hash
    assert report["config"]["array_rows"] == TINY.array_rows
    assert report["seed"] == bench.SEED
    assert len(report["latency_cycles"]) == len(report["latency_us"]) == len(work.batches)
    for cycles, microseconds in zip(report["latency_cycles"], report["latency_us"], strict=True):
        assert 0 < cycles <= report["total_cycles"]
        assert microseconds == cycles / TINY.clock_mhz
    assert {card for cards in report["placement_cards_of_table"] for card in cards} == {0, 1, 2}
    assert len(report["per_card"]) == 3
    for card in report["per_card"]:
        assert all(card[name] >= 0 for name in TRAFFIC)  # what fits stays in the scratchpad
        assert card["pcie_read_bytes"] > 0
        for engine in Engine:
            spent = [card[f"{engine.name.lower()}_{what}_cycles"] for what in ACTIVITIES]
            assert sum(spent) == card["cycles"]
            assert card[f"{engine.name.lower()}_busy_cycles"] > 0
    assert json.loads(json.dumps(report)) == report


def test_engines_work_on_several_batches_at_once(outcome, timeline):
    """While a card multiplies for one batch, each of its other engines works for another."""
    spans = {engine: [] for engine in Engine}
    for event in json.loads(timeline.read_text())["traceEvents"]:
        args = event.get("args", {})
        if "start_cycle" in args and args.get("for", "").startswith("batch"):
            start, batch = args["start_cycle"], args["for"].split()[1]
            span = event["pid"], batch, start, start + args["cycles"]
            spans[Opcode[event["cat"]].engine].append(span)
    for engine in set(Engine) - {Engine.MATMUL}:
        assert any(
            card == other_card and batch != other_batch and start < other_end and other_start < end
            for card, batch, start, end in spans[Engine.MATMUL]
            for other_card, other_batch, other_start, other_end in spans[engine]
        ), f"{engine.name} waits while the array works"


def test_every_card_answers_its_share_of_every_batch(work, commands):
    answered = {(card, label) for card, label in commands if label.endswith("answers")}
    batches = range(len(work.batches))
    assert answered == {(f"card {c}", f"batch {i} answers") for c in range(3) for i in batches}


def test_pooled_rows_go_from_card_to_card(commands):
    sent = {(card, label.partition(" to ")[2]) for card, label in commands if " to card " in label}
    assert sent == {(f"card {a}", f"card {b}") for a in range(3) for b in range(3) if a != b}


@pytest.mark.parametrize("cards", [1, 3])
def test_dot_products_as_interaction(tmp_path, cards):
    work = small_workload(tmp_path, interaction="dot")
    assert bench.run(work, TINY, cards=cards).mismatches == 0
    answers = np.concatenate([bench.golden(work.graph, batch) for batch in work.batches])
    assert len(np.unique(answers)) > 5


def test_batches_of_fewer_samples_than_cards(work):
    small = tuple(work.batches[0].take(range(k)) for k in (1, 2))
    assert bench.run(dataclasses.replace(work, batches=small), TINY, cards=3).mismatches == 0


def test_more_requests_than_can_be_in_flight(work, runtime):
    served = deploy(runtime, work.graph)
    many = [work.batches[k % len(work.batches)] for k in range(2 * served.program.slots + 1)]
    answers = served.run([request(batch) for batch in many])
    served.release()
    expected = [bench.golden(work.graph, batch) for batch in many]
    assert bench.differing(answers, expected) == 0


def test_a_wrong_answer_is_counted(work, monkeypatch):
    from halfdome.sim.golden import matmul

    right = matmul.requantise
    monkeypatch.setattr(matmul, "requantise", lambda *operands: right(*operands) ^ 1)
    assert bench.run(work, TINY, cards=3).mismatches > 0


def free_bytes(runtime):
    cards = [(card.dram.free_bytes, card.scratchpad.free_bytes) for card in runtime.cards]
    return runtime.platform._host_memory.free_bytes, cards


def test_a_deployment_answers_again_without_more_memory(work, runtime):
    before = free_bytes(runtime)
    served = deploy(runtime, work.graph)
    requests = [request(batch) for batch in work.batches]
    first = served.run(requests)
    free = free_bytes(runtime)
    again = served.run(requests)
    assert [answer.outputs["probability"].tolist() for answer in again] == [
        answer.outputs["probability"].tolist() for answer in first
    ]
    assert served.run([]) == []
    assert free_bytes(runtime) == free
    served.release()
    assert free_bytes(runtime) == before


def test_a_failed_request_leaves_nothing_behind(work, runtime):
    served = deploy(runtime, work.graph)
    requests = [request(batch) for batch in work.batches]
    expected = [answer.outputs["probability"].tolist() for answer in served.run(requests)]
    bad = requests[1] | {"indices 0": requests[1]["indices 0"] + 1_000_000}
    free = free_bytes(runtime)
    with pytest.raises(
        halfdome.CommandError, match="BAD_INDEX: the index at position 0 is outside"
    ):
        served.run([requests[0], bad, *requests[2:]])
    assert free_bytes(runtime) == free
    assert [answer.outputs["probability"].tolist() for answer in served.run(requests)] == expected
    assert served.incidents == []
    served.release()


def test_requests_larger_than_the_program_was_made_for_are_refused(work, runtime):
    graph = quantise(work.model, work.batches[0], BATCH - 1, longest_bags(work.batches))
    served = deploy(runtime, graph)
    with pytest.raises(ValueError, match=r"input dense: is float32\[6, \d+\], must have at most 5"):
        served.run([request(batch) for batch in work.batches])
    served.release()


@pytest.mark.parametrize("interaction", ["cat", "dot"])
def test_rows_that_are_no_whole_bus_words_have_the_golden_bits(tmp_path, interaction):
    work = small_workload(tmp_path, batches=2, interaction=interaction, dim=12)
    assert bench.run(work, TINY, cards=3).mismatches == 0


@pytest.mark.slow
def test_the_trained_model_answers_movielens():
    try:
        movielens.find()
    except movielens.DataError as error:
        pytest.skip(str(error))
    work = bench.workload(None, dlrm.WEIGHTS, 96, 32)
    outcome = bench.run(work, TINY, cards=3)
    assert outcome.mismatches == 0
    assert abs(outcome.report["auc_difference"]) < 0.05
