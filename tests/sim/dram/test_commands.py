"""Every command the model issues, against the standard's rules and against what was asked."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.config import DRAM_BANKS, DRAM_PAGE_POLICIES, DRAM_ROW_BYTES, CardConfig
from halfdome.sim.dram import presets
from halfdome.sim.dram.replay import COMMAND, COMMANDS, replay
from tests.sim.dram.driver import commands
from tests.sim.dram.rules import violations

BASE = CardConfig(dram_bytes=1 << 28)
NO_REFRESH = {"refi_bank": 1 << 40}


def traffic(seed: int, count: int, *, rows=16, banks=8, columns=64, writes=0.4, gap=6.0):
    """Addresses, arrival clocks and write flags; `gap` is the mean of clocks between arrivals."""
    rng = np.random.default_rng(seed)
    row = rng.integers(0, rows, count) * DRAM_BANKS
    page = row + rng.integers(0, banks, count)
    address = page * DRAM_ROW_BYTES + rng.integers(0, columns, count) * 64
    # Mostly bursts, sometimes a pause in which the channel falls idle.
    gaps = rng.exponential(gap, count) * (1 + 100 * (rng.random(count) < 0.02))
    return address, np.cumsum(gaps).astype(np.int64), rng.random(count) < writes


def commands_of(log, *names):
    return log[np.isin(log["kind"], [COMMANDS.index(name) for name in names])]


@given(
    preset=st.sampled_from(list(presets.GRADES)),
    policy=st.sampled_from(DRAM_PAGE_POLICIES),
    seed=st.integers(0, 1 << 30),
    rows=st.sampled_from([1, 2, 4096]),
    banks=st.sampled_from([1, 2, 8]),
    writes=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    gap=st.sampled_from([0.0, 5.0, 40.0]),
)
def test_every_command_keeps_every_rule(preset, policy, seed, rows, banks, writes, gap):
    config = BASE.replace(dram_preset=preset, dram_page_policy=policy)
    address, arrival, write = traffic(seed, 1500, rows=rows, banks=banks, writes=writes, gap=gap)
    timing = presets.settings(config)
    (log,) = replay(config, address, arrivals=arrival, writes=write, log=True).commands
    assert violations(log, timing) == []


def violations_if_faster(config, name):
    """What the rules say of a channel for which `name` is one clock less than it should be."""
    timing = presets.settings(config)
    # The four-activate window shows where tRRD does not bind, the rest where it does.
    more = {"rrd": timing.rrd - 2} if name == "faw" else {}
    for key, value in more.items():
        setattr(timing, key, value)
    faster = {name: getattr(timing, name) - 1, **more}
    found = []
    for seed in range(4):
        for gap, rows, banks in ((0.0, 4096, 8), (4.0, 4096, 1), (30.0, 2, 2)):
            address, arrival, write = traffic(seed, 3000, rows=rows, banks=banks, gap=gap)
            (log,) = replay(
                config, address, arrivals=arrival, writes=write, log=True, timing=faster
            ).commands
            found += violations(log, timing)
    return found


@pytest.mark.parametrize(
    ("name", "rule"),
    {
        "rcd": "tRCD", "rp_bank": "tRPpb", "ras": "tRAS", "rrd": "tRRD",
        "faw": "tFAW", "read_latency": "read to write", "write_latency": "tWTR", "wr": "tWR",
        "wtr": "tWTR", "rtp": "tRTP", "dqsck": "read to write", "refi_bank": "tREFI",
        "rfc_bank": "tRFCpb", "ppd": "tPPD",
    }.items(),
)  # fmt: skip
def test_a_channel_one_clock_too_fast_breaks_the_rule(name, rule):
    found = violations_if_faster(BASE.replace(dram_page_policy="open"), name)
    assert any(rule in text for text in found)


@pytest.mark.parametrize("name", ["rp_bank", "ras", "rtp", "wr"])
def test_a_bank_that_closes_itself_one_clock_too_soon_breaks_the_rule(name):
    found = violations_if_faster(BASE.replace(dram_page_policy="closed"), name)
    assert any("auto-precharge" in text for text in found)


def test_commands_that_overlap_on_the_bus_are_found():
    timing = presets.settings(BASE)
    for kind, clocks in (("ACTIVATE", 4), ("READ", 4), ("WRITE", 4), ("PRECHARGE", 2)):
        for gap in (clocks - 1, clocks):
            log = np.zeros(2, COMMAND)
            log["clock"] = 0, gap
            log["kind"] = COMMANDS.index(kind), COMMANDS.index("ACTIVATE")
            log["bank"] = 0, 1
            overlap = any("command bus" in text for text in violations(log, timing))
            assert overlap == (gap < clocks)


@pytest.mark.parametrize(
    ("later", "clocks", "bank", "rule"),
    [
        ("ACTIVATE", "rrd", 1, "tRRD"),
        ("ACTIVATE", "rfc_bank", 0, "tRFCpb"),
        ("REFRESH", "rfc_bank", 1, "tRFCpb"),
        ("REFRESH", "refi_bank", 1, "tREFI"),
    ],
)
def test_what_follows_a_refresh_too_soon_is_found(later, clocks, bank, rule):
    timing = presets.settings(BASE)
    gap = getattr(timing, clocks)
    log = np.zeros(2, COMMAND)
    log["kind"] = COMMANDS.index("REFRESH"), COMMANDS.index(later)
    log["bank"] = 0, bank
    for clocks_less in (0, 1):
        log["clock"] = timing.refi_bank, timing.refi_bank + gap - clocks_less
        found = any(rule in text for text in violations(log, timing))
        assert found == bool(clocks_less)


def test_refreshes_of_open_or_of_the_same_banks_are_found():
    timing = presets.settings(BASE)
    log = np.zeros(2, COMMAND)
    log["clock"] = timing.refi_bank * np.array([1, 2])
    log["kind"] = COMMANDS.index("REFRESH")
    assert [text for text in violations(log, timing) if "refreshed twice" in text]
    log["kind"] = COMMANDS.index("ACTIVATE"), COMMANDS.index("REFRESH")
    assert [text for text in violations(log, timing) if "REFRESH of open bank 0" in text]


def test_a_channel_that_was_idle_has_missed_no_refresh():
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.integers(0, 60_000, 40))
    address = rng.integers(0, 1 << 22, 40) * 64
    noted, skipped = (replay(BASE, address, arrivals=arrival, log=log) for log in (True, False))
    assert noted.done.tolist() == skipped.done.tolist()
    assert violations(noted.commands[0], presets.settings(BASE)) == []
    due = int(arrival[-1]) // presets.settings(BASE).refi_bank
    assert 0 <= due - len(commands_of(noted.commands[0], "REFRESH")) <= 1


@given(
    seed=st.integers(0, 1 << 30),
    policy=st.sampled_from(DRAM_PAGE_POLICIES),
    cut=st.integers(1, 599),
    gap=st.sampled_from([0.5, 5.0, 40.0]),
)
def test_what_arrives_later_changes_nothing_before(seed, policy, cut, gap):
    config = BASE.replace(dram_page_policy=policy)
    address, arrival, write = traffic(seed, 600, gap=gap)
    logs = []
    for count in (cut, 600):
        (log,) = replay(
            config, address[:count], arrivals=arrival[:count], writes=write[:count], log=True
        ).commands
        # An idle channel notes its refreshes when it is needed again.
        log = commands_of(log, "ACTIVATE", "PRECHARGE", "READ", "WRITE")
        logs.append(log[log["clock"] < arrival[cut]].tolist())
    assert logs[0] == logs[1]


@given(
    seed=st.integers(0, 1 << 30),
    policy=st.sampled_from(DRAM_PAGE_POLICIES),
    preset=st.sampled_from(list(presets.GRADES)),
    gap=st.sampled_from([2.0, 8.0, 40.0]),
)
def test_commands_do_not_depend_on_when_the_channel_is_run(seed, policy, preset, gap):
    config = BASE.replace(dram_preset=preset, dram_page_policy=policy)
    address, arrival, write = traffic(seed, 1500, gap=gap)
    seldom, often = (
        commands(config, address, arrival, write, every_clock=every) for every in (False, True)
    )
    assert len(often) > 500
    assert seldom.tolist() == often.tolist()


def test_a_write_that_starts_a_drain_starts_it_when_it_comes():
    # Two reads of one bank wait for each other, so that the channel has time; 63 writes lie in the
    # queue, and one more sets it going.
    bank = np.array([0, 0, *(1 + np.arange(64) % 7)])
    address = (np.arange(66) * DRAM_BANKS + bank) * DRAM_ROW_BYTES
    arrival = np.array([0] * 2 + [1] * 63 + [60])
    (log,) = replay(BASE, address, arrivals=arrival, writes=np.arange(66) >= 2, log=True).commands
    drained = log[log["bank"] > 0]
    assert drained["clock"].min() == 60


def test_open_rows_are_closed_by_precharges_only():
    address, arrival, write = traffic(1, 3000)
    config = BASE.replace(dram_page_policy="open")
    (log,) = replay(config, address, arrivals=arrival, writes=write, log=True).commands
    assert not log["auto_precharge"].any()
    assert len(commands_of(log, "PRECHARGE")) > 1000


def test_closed_rows_take_one_access_and_no_precharge():
    address, arrival, _ = traffic(1, 3000)
    config = BASE.replace(dram_page_policy="closed")
    for write in (False, True):
        (log,) = replay(
            config, address, arrivals=arrival, writes=write, log=True, timing=NO_REFRESH
        ).commands
        assert commands_of(log, "READ", "WRITE")["auto_precharge"].all()
        assert len(commands_of(log, "PRECHARGE")) == 0


@given(
    seed=st.integers(0, 1 << 30),
    rows=st.sampled_from([2, 4, 64]),
    banks=st.sampled_from([1, 8]),
)
@example(seed=0, rows=2, banks=1)  # rows that are closed for an older request, hits or no hits
def test_adaptive_closes_a_row_with_its_last_access_if_another_row_waits(seed, rows, banks):
    # All are in the queue at once, so every row is known to be wanted again or not.
    address, _, _ = traffic(seed, 48, rows=rows, banks=banks)
    config = BASE.replace(dram_page_policy="adaptive")
    (log,) = replay(config, address, log=True, timing=NO_REFRESH).commands
    assert len(commands_of(log, "PRECHARGE")) == 0
    for bank in range(DRAM_BANKS):
        mine = commands_of(log[log["bank"] == bank], "ACTIVATE", "READ")
        closes, nexts = mine["auto_precharge"][:-1], mine["kind"][1:] == COMMANDS.index("ACTIVATE")
        assert closes.tolist() == nexts.tolist()
        assert not mine["auto_precharge"][-1:].any()
        opened = mine["row"][mine["kind"] == COMMANDS.index("ACTIVATE")]
        assert (opened[1:] != opened[:-1]).all()


@given(
    seed=st.integers(0, 1 << 30),
    channels=st.sampled_from([1, 2, 4]),
    mapping=st.permutations(["row", "bank", "column", "channel"]),
)
def test_every_line_is_read_once_where_the_mapping_says(seed, channels, mapping):
    config = BASE.replace(dram_channels=channels, dram_mapping="-".join(mapping))
    address, arrival, _ = traffic(seed, 800, rows=4096 // channels)
    result = replay(config, address, arrivals=arrival, log=True)
    timing = presets.settings(config)

    sizes = {"channel": channels, "bank": 8, "column": 64, "row": (1 << 28) // 32768 // channels}
    fields = {}
    rest = address // 64
    for name in reversed(mapping):
        rest, fields[name] = np.divmod(rest, sizes[name])
    for channel, log in enumerate(result.commands):
        assert violations(log, timing) == []
        reads = log[log["kind"] == COMMANDS.index("READ")]
        mine = fields["channel"] == channel
        asked = zip(
            *(fields[name][mine].tolist() for name in ("bank", "row", "column")), strict=True
        )
        assert Counter(asked) == Counter(
            zip(*(reads[name].tolist() for name in ("bank", "row", "column")), strict=True)
        )
        data = timing.read_latency + timing.dqsck + presets.BURST_CLOCKS
        assert sorted(result.done[mine]) == (reads["clock"] + data).tolist()


def test_reads_pass_writes_that_never_end():
    # Writes come faster than they can be served: the queue never falls below its low mark.
    count = 6000
    address = np.arange(count) * 4096
    write = np.ones(count, bool)
    write[1000] = False
    clock = np.arange(count)
    result = replay(BASE, address, arrivals=clock, writes=write)
    assert result.done[1000] - result.done[999] < 1200


def test_writes_are_served_while_reads_never_end():
    count = 6000
    write = np.arange(count) % 40 == 0
    result = replay(BASE, np.arange(count) * 4096, writes=write, log=True)
    (log,) = result.commands
    served = np.flatnonzero(log["kind"] == COMMANDS.index("WRITE"))
    assert len(served) == write.sum()
    # In turns all along, not only once the reads are over.
    assert np.diff(log["clock"][served]).max() < 60_000


def test_row_hits_do_not_hold_up_an_older_request_for_ever():
    # One read of another row among a long run of hits to the open row of its bank.
    address = np.arange(4000) % 64 * 64
    address[100] = 4096 * DRAM_BANKS
    done = replay(BASE, address).done
    # Its bank is held by those before it in the queue and by a few that pass it.
    assert done[100] - done[99] < 400


def test_a_bank_that_everybody_wants_does_not_stop_the_others():
    # Of every 8 reads one is of a hot row and one of a random row of its bank: a row cycle each
    # takes its turn, the hits between are free, and the other six find other banks.
    rng = np.random.default_rng(1)
    count = 8000
    bank = np.where(np.arange(count) % 4 == 0, 0, rng.integers(1, 8, count))
    row = np.where(np.arange(count) % 8 == 0, 7, rng.integers(8, 2000, count))
    order = rng.permutation(count)
    address = ((row * 8 + bank) * 4096)[order]
    timing = presets.settings(BASE)
    row_cycles = (
        count / 8 * (timing.ras + timing.rp_bank) / (1 - timing.rfc_bank / 8 / timing.refi_bank)
    )
    assert row_cycles * 0.9 < replay(BASE, address).done.max() < row_cycles * 1.3


def test_no_trace_takes_no_time():
    result = replay(BASE, [], log=True)
    assert result.done.size == 0
    assert [len(log) for log in result.commands] == [0]


def test_an_address_outside_dram_is_refused():
    with pytest.raises(ValueError, match=r"addresses: must be 0 to dram_bytes=268435456"):
        replay(BASE, [0, 1 << 28])
