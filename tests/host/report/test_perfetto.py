"""Timelines: a run drawn whole, agreeing with what cards and links counted; and its corners."""

import json
from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Engine, Opcode, Status
from halfdome.hdl.config import preset
from halfdome.hdl.descriptors import pack
from halfdome.hdl.registers import counter_offset
from halfdome.host.driver.completion import Completion
from halfdome.host.driver.device import Submitted
from halfdome.host.report import link_tracks
from halfdome.host.report.describe import Describer
from halfdome.host.report.link_tracks import bytes_per_interval
from halfdome.host.report.perfetto import check_path, timeline
from halfdome.host.report.recording import CardRecord, Recording
from halfdome.host.report.size import size

DEFAULT = preset("default")
BAR2 = 1 << 40


class Timeline:
    """A timeline by the names of its tracks."""

    def __init__(self, file):
        self.file = json.loads(json.dumps(file))
        self.slices, self.instants, self.counters = (defaultdict(list) for _ in range(3))
        names = {}
        for event in self.file["traceEvents"]:
            if event["ph"] == "M" and event["name"].endswith("_name"):
                names[event["name"], event["pid"], event["tid"]] = event["args"]["name"]
        for event in self.file["traceEvents"]:
            process = names["process_name", event["pid"], 0]
            if event["ph"] == "C":
                (value,) = event["args"].values()
                self.counters[process, event["name"]].append((event["ts"], value))
            elif event["ph"] in "Xi":
                assert event["ts"] >= 0
                track = process, names["thread_name", event["pid"], event["tid"]]
                (self.slices if event["ph"] == "X" else self.instants)[track].append(event)


def drawn(*commands, start=0, stop=1 << 20, links=(), cards=1, config=DEFAULT):
    records = [CardRecord(0x1000_0000 * n, BAR2 * (n + 1), 1 << 33, ()) for n in range(cards)]
    records[0] = CardRecord(0, BAR2, 1 << 33, commands)
    return Timeline(timeline(Recording(config, start, stop, records, links, [])))


def command(descriptor, submitted=0, start=None, end=None, label="", slot=0):
    done = None
    if start is not None:
        done = Completion(7, Status.OK, 1, 0, start & 0xFFFF_FFFF, end & 0xFFFF_FFFF)
    return Submitted(descriptor, label, submitted, slot, done)


GATHER = pack(Opcode.GATHER, bags=128, index_count=1574, dim=32, row_stride=40, rows=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two cards at work: the timeline, and what was counted meanwhile."""
    path = tmp_path_factory.mktemp("trace") / "timeline.json"
    with halfdome.open(cards=2, config="tiny") as runtime:
        first, second = runtime.cards
        before = [card.counters() for card in runtime.cards]
        traffic = runtime.platform.traffic()
        with runtime.trace(path):
            first.linear(np.ones((4, 8), np.uint8), np.ones((4, 8), np.int8), 0.5)
            table = np.zeros((50, 24), np.uint8)
            second.embedding_bag(table, np.arange(12), np.array([0, 5, 5]))
            with pytest.raises(halfdome.CommandError):
                second.embedding_bag(table, np.array([50]), np.array([0]))
            runtime.platform.run(100)
            moved = runtime.platform.traffic()
        after = [card.counters() for card in runtime.cards]
    spent = [{k: b[k] - a[k] for k in a} for a, b in zip(before, after, strict=True)]
    return Timeline(json.loads(path.read_text())), spent, traffic, moved


def test_slices_of_a_track_never_overlap(run):
    timeline, *_ = run
    assert len(timeline.slices) > 12
    for slices in timeline.slices.values():
        for event, following in pairwise(slices):
            assert event["dur"] >= 0
            assert event["ts"] + event["dur"] <= following["ts"] + 1e-9


def test_engines_are_drawn_for_the_cycles_that_they_counted(run):
    timeline, spent, *_ = run
    for card, counted in enumerate(spent):
        for engine in Engine:
            name = engine.name.lower()
            slices = timeline.slices[f"card {card}", name]
            with_a_command = ("busy", "starved", "blocked")
            worked = sum(counted[f"core0_{name}_{activity}_cycles"] for activity in with_a_command)
            assert sum(event["args"]["cycles"] for event in slices) == worked
            assert sum(event["dur"] for event in slices) == pytest.approx(worked / 400)


def test_links_carry_the_bytes_that_they_counted(run):
    timeline, _, before, after = run
    ways = [("uplink", "to_cards", "host to switch"), ("uplink", "to_host", "switch to host")]
    for card in range(2):
        ways += [(card, "to_card", f"switch to card {card}"),
                 (card, "from_card", f"card {card} to switch")]  # fmt: skip
    for where, prefix, name in ways:
        a, b = (t["uplink"] if where == "uplink" else t["cards"][where] for t in (before, after))
        slices = timeline.slices["fabric", name]
        assert len(slices) == b[f"{prefix}_tlps"] - a[f"{prefix}_tlps"] > 0
        for what in ("payload_bytes", "wire_bytes"):
            counted = b[f"{prefix}_{what}"] - a[f"{prefix}_{what}"]
            assert sum(event["args"][what] for event in slices) == counted


def test_packets_have_names_sizes_and_ends(run):
    timeline, *_ = run
    reads = [e for e in timeline.slices["fabric", "card 1 to switch"] if e["cat"] == "MRd"]
    load = next(e for e in reads if e["args"]["read_bytes"] == 48)
    assert load["name"] == "MRd 48 B"
    assert (load["args"]["source"], load["args"]["destination"]) == ("card 1", "host")
    assert load["dur"] == pytest.approx(24 / 3.938e3, rel=1e-3)  # 3.938 GB/s: Gen3 x4


def test_commands_have_names_and_sizes(run):
    timeline, *_ = run
    (matmul,) = timeline.slices["card 0", "matmul"]
    assert matmul["name"] == "MATMUL 4x8x4"
    assert matmul["args"]["macs"] == 128
    gather, failed = timeline.slices["card 1", "gather"]
    assert gather["name"] == "GATHER 3 bags x 4 rows of 16, 288 B"
    assert (gather["args"]["status"], failed["args"]["status"]) == ("OK", "BAD_INDEX")
    stored = timeline.slices["card 0", "store"][0]
    assert stored["name"] == "STORE 64 B card 0 scratchpad to host"
    assert stored["args"]["bytes"] == 64


def test_a_command_waits_in_the_ring_then_in_its_queue_then_runs(run):
    timeline, *_ = run
    (matmul,) = timeline.slices["card 0", "matmul"]
    (waiting,) = timeline.slices["card 0", "matmul queue"]
    assert waiting["name"] == "MATMUL 4x8x4: waiting"
    assert waiting["ts"] + waiting["dur"] == pytest.approx(matmul["ts"])
    submitted_us = matmul["args"]["submitted_cycle"] / 400
    fetch = next(
        event for event in timeline.slices["card 0", "command fetch"] if event["ts"] > submitted_us
    )
    assert fetch["name"] == "2 commands"  # the result is stored behind it
    assert waiting["ts"] == pytest.approx(fetch["ts"] + fetch["dur"], abs=0.0025)
    assert any(e["ts"] == submitted_us for e in timeline.instants["host", "doorbells of card 0"])
    assert [value for _, value in timeline.counters["card 0", "matmul queue"]] == [1, 0]
    assert timeline.counters["card 0", "submission ring"][-1][1] == 0


def test_counters_end_at_nothing_and_never_fall_below(run):
    timeline, *_ = run
    for values in timeline.counters.values():
        assert all(value >= 0 for _, value in values)
        assert values[-1][1] == 0
    reads = timeline.counters["card 0", "PCIe reads in flight"]
    assert max(value for _, value in reads) >= 1


def test_interrupts_are_drawn(run):
    timeline, *_ = run
    assert {e["name"] for e in timeline.instants["host", "interrupts"]} == {"card 0", "card 1"}


def test_recording_changes_no_cycle(tmp_path):
    def cycles(trace):
        with halfdome.open(cards=1, config="tiny") as runtime:
            if trace:
                with runtime.trace(tmp_path / "timeline.json"):
                    runtime.cards[0].linear(np.ones((4, 8), np.uint8), np.ones((4, 8), np.int8), 1)
            else:
                runtime.cards[0].linear(np.ones((4, 8), np.uint8), np.ones((4, 8), np.int8), 1)
            return runtime.cycles

    assert cycles(True) == cycles(False)


def test_a_trace_is_written_when_something_fails_and_only_one_at_a_time(tmp_path):
    path = tmp_path / "timeline.json"
    with halfdome.open(cards=1, config="tiny") as runtime:
        with pytest.raises(RuntimeError, match=r"trace: .*other.json: another is being recorded"):
            nested(runtime, path, tmp_path / "other.json")
        assert json.loads(path.read_text())["traceEvents"]
        assert list(tmp_path.iterdir()) == [path]
        with pytest.raises(ValueError, match=r"trace: .*x.json: folder .*none does not exist"):
            nested(runtime, tmp_path / "none" / "x.json", path)


def test_a_trace_ends_where_the_platform_is_closed(tmp_path):
    path = tmp_path / "timeline.json"
    with halfdome.open(cards=1, config="tiny", engine="timing") as runtime:
        with runtime.trace(path):
            runtime.close()
    assert json.loads(path.read_text())["traceEvents"]


def nested(runtime, outer, inner):
    with runtime.trace(outer), runtime.trace(inner):
        pass


def test_cycles_become_microseconds_of_the_card_clock():
    (event,) = drawn(command(GATHER, 3990, 4000, 4800, "batch 0")).slices["card 0", "gather"]
    assert (event["ts"], event["dur"]) == (10.0, 2.0)
    assert event["name"] == "GATHER 128 bags x 12.3 rows of 32, 61.5 KiB (batch 0)"
    assert event["args"]["for"] == "batch 0"


def test_cycles_go_on_where_the_cards_count_wraps():
    late = command(GATHER, 2**32 - 200, 2**32 - 100, 2**32 + 300)
    (event,) = drawn(late).slices["card 0", "gather"]
    assert (event["ts"], event["dur"]) == ((2**32 - 100) / 400, 1.0)


def test_only_the_head_of_a_queue_waits_in_sight():
    first, second = command(GATHER, 0, 100, 200), command(GATHER, 0, 210, 300)
    a, b = drawn(first, second).slices["card 0", "gather queue"]
    assert (a["ts"], a["dur"]) == (0, 0.25)
    assert (b["ts"], b["dur"]) == (0.5, 0.025)
    assert (b["args"]["in_queue_cycles"], b["args"]["at_head_cycles"]) == (210, 10)


def test_a_command_that_did_not_complete_is_drawn_to_the_end():
    events = drawn(command(GATHER, 400), stop=4000).slices
    assert not events["card 0", "gather"]
    (event,) = events["card 0", "gather queue"]
    assert event["name"].endswith(": not completed")
    assert event["ts"] + event["dur"] == 10.0


@pytest.mark.parametrize(
    ("opcode", "fields", "title"),
    [
        (Opcode.LOAD, {"rows": 3, "row_bytes": 512, "source": 1 << 33},
         "LOAD 1.5 KiB host to card 0 DRAM"),
        (Opcode.COPY, {"rows": 1, "row_bytes": 100, "destination": DEFAULT.scratchpad_base},
         "COPY 100 B card 0 DRAM to card 0 scratchpad"),
        (Opcode.TRANSPOSE, {"batches": 2, "rows": 9, "columns": 5, "element_bytes": 1},
         "TRANSPOSE 2x9x5 card 0 DRAM to card 0 DRAM"),
        (Opcode.STORE, {"rows": 1024, "row_bytes": 1024, "destination": 2 * BAR2},
         "STORE 1 MiB card 0 DRAM to card 1 DRAM"),
        (Opcode.SIGNAL, {"address": 0x1000_0000 + counter_offset(5), "value": 9},
         "SIGNAL card 1 counter 5 (card 0) = 9"),
        (Opcode.AFFINE, {"rows": 128, "columns": 64, "a_format": 3},
         "AFFINE 128x64 FLOAT32 to UINT8"),
        (Opcode.ADD, {"rows": 2, "columns": 9, "function": 4, "flags": 1, "a_format": 99},
         "ADD EXP SUM 2x9 99 to UINT8"),
        (Opcode.QUANTISE, {"rows": 2, "columns": 9, "a_format": 3, "y_format": 1},
         "QUANTISE 2x9 FLOAT32 to INT8"),
        (Opcode.MATMUL, {"m": 128, "k": 512, "n": 256}, "MATMUL 128x512x256"),
        (Opcode.GATHER, {"format": 77, "dim": 4}, "GATHER 0 bags x 0 rows of 4, 0 B"),
        (Opcode.FENCE_LOAD, {"wait_counter": 2, "wait_value": 4}, "FENCE_LOAD"),
    ],
)  # fmt: skip
def test_every_command_is_told_in_words(opcode, fields, title):
    (event,) = drawn(command(pack(opcode, **fields), 0, 1, 2), cards=2).slices[
        "card 0", opcode.engine.name.lower()
    ]
    assert event["name"] == title
    if opcode is Opcode.FENCE_LOAD:
        assert event["args"]["waits_for"] == "counter 2 (gather) >= 4"


def test_a_bad_opcode_or_core_is_drawn_where_the_card_queues_it():
    unknown = bytes([0x7F]) + GATHER[1:]
    elsewhere = pack(Opcode.GATHER, core=9)
    slices = drawn(command(unknown, 0, 1, 2), command(elsewhere, 0, 3, 4)).slices
    assert slices["card 0", "load"][0]["name"] == "opcode 0x7f"
    assert len(slices["card 0", "gather"]) == 1


def test_cores_have_tracks_of_their_own():
    config = DEFAULT.replace(cores=2)
    slices = drawn(command(pack(Opcode.MATMUL, core=1), 0, 1, 2), config=config).slices
    assert len(slices["card 0", "core 1 matmul"]) == 1


def link(starts, ends, sizes):
    records = np.array(
        list(zip(starts, ends, sizes, strict=True)),
        [("start_fs", np.int64), ("end_fs", np.int64), ("wire_bytes", np.uint32)],
    )
    return SimpleNamespace(
        name="card 0 to switch", card=0, down=False, records=records, left_out=3, packets=list
    )


def test_bytes_of_an_interval_add_up():
    rng = np.random.default_rng(0)
    edges = np.sort(rng.choice(10**10, 2000, replace=False))
    sizes = rng.integers(20, 300, 1000)
    steps = list(bytes_per_interval(link(edges[::2], edges[1::2], sizes), 0.0, 10.0, 0.5))
    assert sum(v for _, v in steps) == pytest.approx(sizes.sum())
    assert len(steps) == 21


def test_a_packet_counts_in_each_interval_for_its_time_there():
    steps = list(bytes_per_interval(link([750_000_000], [1_250_000_000], [100]), 0.0, 3.0, 1.0))
    assert steps == [(0.0, 50.0), (2.0, 0.0)]
    assert list(bytes_per_interval(link([], [], []), 0.0, 3.0, 1.0)) == []


def test_a_busy_link_is_drawn_as_bytes_alone_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(link_tracks, "MOST_SLICES", 1)
    busy = drawn(links=[link([0, 5], [4, 9], [1, 1])])
    names = [e["args"]["name"] for e in busy.file["traceEvents"] if e["name"] == "thread_name"]
    assert "card 0 to switch, 2 packets, see its counter, first 2 of 5 packets" in names
    assert not busy.slices["fabric", "card 0 to switch"]
    assert any(name.startswith("card 0 to switch, bytes per") for _, name in busy.counters)


def test_nothing_is_an_empty_timeline():
    assert not drawn().slices


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1500, "1.46 KiB"), (65536, "64 KiB"),
     (3 << 20, "3 MiB"), (5 << 40, "5120 GiB")],
)  # fmt: skip
def test_sizes_are_for_people(nbytes, text):
    assert size(nbytes) == text


def test_local_places_name_the_core():
    recording = Recording(DEFAULT.replace(cores=2), 0, 1, [CardRecord(0, BAR2, 0, ())], [], [])
    place = DEFAULT.replace(cores=2).scratchpad_address(1)
    assert Describer(recording).local(0, place) == "card 0 scratchpad 1"


def test_a_file_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is a folder, must be a file"):
        check_path(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        check_path(tmp_path / "none" / "x.json")
    monkeypatch.setattr("pathlib.Path.open", _denied)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"):
        check_path(tmp_path / "x.json")


def _denied(*_):
    raise PermissionError(13, "Permission denied")
