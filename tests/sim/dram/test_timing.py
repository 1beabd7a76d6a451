"""Closed forms of LPDDR4 that the model must reproduce."""

import math

import numpy as np
import pytest

from halfdome.hdl.config import DRAM_BANKS, DRAM_PAGE_POLICIES, DRAM_ROW_BYTES, CardConfig
from halfdome.sim.dram import presets
from halfdome.sim.dram import replay as dram_replay
from halfdome.sim.dram.replay import replay
from tests.sim.dram.driver import operations, play

DRAM_BYTES = 1 << 28


def card(preset="LPDDR4-3200", **changes):
    # A card fast enough that the DRAM is the limit, at a whole number of DRAM clocks per cycle
    # wherever the grade allows.
    base = CardConfig(dram_bytes=DRAM_BYTES, dram_preset=preset, bus_bytes=64, clock_mhz=400)
    return base.replace(**changes)


def line_reads(config, addresses):
    ops = operations(config, len(addresses))
    ops["address"] = addresses
    ops["beats"] = max(1, 64 // config.bus_bytes)
    ops["id"] = np.arange(len(addresses)) % 16  # so that the scheduler may reorder
    return ops


def clocks_taken(config, ops):
    rate = presets.GRADES[config.dram_preset].rate
    return (int(ops["done"].max()) - int(ops["begun"].min())) * rate / 2 / config.clock_mhz


@pytest.mark.parametrize("preset", presets.GRADES)
def test_sequential_reads_reach_98_percent_of_peak(preset):
    config = card(preset)
    ops = line_reads(config, np.arange(40_000) * 64)
    _, counters = play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    assert 8 * len(ops) / clocks_taken(config, ops) >= 0.98
    assert counters["reads"] == len(ops)
    assert counters["row_hits"] > 0.97 * len(ops)


def random_line_clocks(config):
    """Clocks that a line of its own row takes of what is scarcest."""
    t = presets.settings(config)
    # Activate, read and, unless the read does it, precharge.
    command_bus = 4 + 4 + (2 if config.dram_page_policy == "open" else 0)
    activate = max(t.faw / 4, t.rrd)
    # A refresh is one activate more, and holds the command bus for two clocks.
    return max(
        8,
        activate / (1 - activate / t.refi_bank),
        command_bus / (1 - 2 / t.refi_bank),
    )


@pytest.mark.parametrize("preset", presets.GRADES)
def test_random_lines_keep_the_closed_form_behind_the_axi_port(preset):
    config = card(preset)
    lines = np.random.default_rng(1).integers(0, DRAM_BYTES // 64, 20_000)
    ops = line_reads(config, lines * 64)
    play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    bound = random_line_clocks(config)
    assert bound * 0.995 <= clocks_taken(config, ops) / len(ops) <= bound * 1.03


@pytest.mark.parametrize("policy", DRAM_PAGE_POLICIES)
@pytest.mark.parametrize("preset", presets.GRADES)
def test_the_channel_alone_keeps_the_closed_form_of_random_lines(preset, policy):
    config = card(preset, dram_page_policy=policy)
    lines = np.random.default_rng(1).integers(0, DRAM_BYTES // 64, 20_000)
    bound = random_line_clocks(config)
    assert bound * 0.995 <= replay(config, lines * 64).done.max() / len(lines) <= bound * 1.03


@pytest.mark.parametrize("policy", ["open", "adaptive"])
@pytest.mark.parametrize("preset", presets.GRADES)
def test_rows_that_stay_open_give_98_percent_of_peak(preset, policy):
    config = card(preset, dram_page_policy=policy)
    assert 8 * 40_000 / replay(config, np.arange(40_000) * 64).done.max() >= 0.98


def test_closed_rows_give_a_line_a_row_cycle():
    config = card(dram_page_policy="closed")
    t = presets.settings(config)
    cycle = (t.ras + t.rp_bank) / (1 - t.rfc_bank / (DRAM_BANKS * t.refi_bank))
    assert replay(config, np.arange(1000) % 64 * 64).done.max() == pytest.approx(
        1000 * cycle, rel=0.01
    )


def test_cycles_of_a_trace_count_from_its_start_and_meet_its_refreshes():
    config = card()
    t = presets.settings(config)
    assert dram_replay.cycles(config, []) == 0
    assert dram_replay.cycles(config, [0]) == 68 // 4
    # Offered four clocks after a refresh of bank 2 has begun, and another bank's.
    start = t.refi_bank // 4 + 1
    refreshed = [2 * DRAM_ROW_BYTES]
    assert dram_replay.cycles(config, refreshed, start) == math.ceil((t.rfc_bank + 68 - 4) / 4)
    assert dram_replay.cycles(config, [4096], start) == math.ceil((t.rrd + 68 - 4) / 4)


def test_128_byte_rows_recover_the_bus():
    config = card()
    rows = np.random.default_rng(2).integers(0, DRAM_BYTES // 128, 10_000) * 128
    ops = line_reads(config, np.stack([rows, rows + 64], axis=1).ravel())
    play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    assert 8 * len(ops) / clocks_taken(config, ops) > 0.9


def second_read_clocks(config, first, second):
    """Clocks from offering a line to its last data, long after a line of `first` was read and long
    before a refresh."""
    arrival = presets.settings(config).refi_bank // 2
    return int(replay(config, [first, second], arrivals=[0, arrival]).done[1]) - arrival


@pytest.mark.parametrize("policy", DRAM_PAGE_POLICIES)
@pytest.mark.parametrize("preset", presets.GRADES)
def test_idle_latency_is_exact(preset, policy):
    config = card(preset, dram_page_policy=policy)
    t = presets.settings(config)
    row = DRAM_ROW_BYTES
    column = t.read_latency + t.dqsck + presets.BURST_CLOCKS
    assert replay(config, [0]).done[0] == t.rcd + column  # closed
    assert second_read_clocks(config, 0, row) == t.rcd + column  # another bank, closed
    # The row that the first read opened, and another of its bank.
    closed = policy == "closed"
    assert second_read_clocks(config, 0, 64) == column + (t.rcd if closed else 0)
    conflict = second_read_clocks(config, 0, row * DRAM_BANKS)
    assert conflict == t.rcd + column + (0 if closed else t.rp_bank)


def test_3200_closed_bank_takes_68_clocks():
    assert replay(card(), [0]).done[0] == 68


@pytest.mark.parametrize("clock_mhz", [200, 333, 400, 800])
@pytest.mark.parametrize(("address", "clocks"), [(64, 39), (4096, 68), (32768, 97)])
def test_the_axi_port_adds_no_clock_to_the_idle_latency(clock_mhz, address, clocks):
    config = card(clock_mhz=clock_mhz)
    ops = line_reads(config, [0, 128, address])  # by the third, tRAS is long over
    ops["barrier"] = 1
    play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    # The request is in DRAM from the cycle after it was taken; data show in the first cycle that
    # starts after they have arrived.
    begun, first = int(ops["begun"][2]) + 1, int(ops["first"][2])
    start = math.ceil(begun * 1600 / clock_mhz)
    assert first == math.ceil((start + clocks) * clock_mhz / 1600)


def test_random_lines_meet_the_activate_window_at_any_speed():
    seconds = {}
    for preset in ("LPDDR4-1600", "LPDDR4-2400", "LPDDR4-3200"):
        lines = np.random.default_rng(1).integers(0, DRAM_BYTES // 64, 20_000)
        clocks = int(replay(card(preset), lines * 64).done.max())
        seconds[preset] = clocks / (presets.GRADES[preset].rate / 2 * 1e6)
    slowest, fastest = max(seconds.values()), min(seconds.values())
    assert slowest / fastest < 1.03
    assert 64 * 20_000 / slowest == pytest.approx(6.22e9, rel=0.01)


def test_open_rows_meet_the_command_bus_where_the_clock_is_slow():
    lines = np.random.default_rng(1).integers(0, DRAM_BYTES // 64, 20_000)
    clocks = int(replay(card("LPDDR4-1600", dram_page_policy="open"), lines * 64).done.max())
    assert 64 * 20_000 / (clocks / 800e6) == pytest.approx(4.97e9, rel=0.01)


def test_four_activates_bind_where_trrd_does_not():
    config = card()
    lines = np.random.default_rng(1).integers(0, DRAM_BYTES // 64, 10_000)
    ops = line_reads(config, lines * 64)
    timing = presets.settings(config)
    play(config, np.zeros(DRAM_BYTES, np.uint8), ops, timing={"rrd": 4})
    bound = timing.faw / 4 / (1 - timing.faw / 4 / timing.refi_bank)
    assert bound * 0.995 <= clocks_taken(config, ops) / len(ops) <= bound * 1.03


@pytest.mark.parametrize(
    "name",
    ["rcd", "rp_bank", "ras", "rrd", "faw", "read_latency", "write_latency", "wr", "wtr", "rtp",
     "dqsck", "rfc_bank"],
)  # fmt: skip
def test_every_timing_parameter_costs_time(name):
    config = card()
    rng = np.random.default_rng(4)
    count = 4000

    def clocks(timing):
        # Pairs of lines in random rows of two banks, some written, with few requests in flight:
        # every kind of turn-around happens.
        rows = rng.integers(0, 64, count // 2) * DRAM_ROW_BYTES * DRAM_BANKS
        banks = rng.integers(0, 2, count // 2) * DRAM_ROW_BYTES
        pairs = (rows + banks)[:, None] + [0, 64]
        ops = line_reads(config, pairs.ravel())
        ops["write"] = rng.integers(0, 2, count)
        play(config, np.zeros(DRAM_BYTES, np.uint8), ops, outstanding=3, timing=timing)
        return clocks_taken(config, ops)

    base = getattr(presets.settings(config), name)
    rng = np.random.default_rng(4)
    before = clocks({})
    rng = np.random.default_rng(4)
    after = clocks({name: base + 400})
    assert after > 1.005 * before


def test_channels_multiply_bandwidth():
    config = card(bus_bytes=128, dram_channels=4, clock_mhz=800)
    ops = line_reads(config, np.arange(20_000) * 128)
    ops["beats"] = 1
    play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    assert 8 * 2 * len(ops) / clocks_taken(config, ops) > 0.9 * 4


def clocks_per_line(mapping, step, channels=1):
    config = card(dram_mapping=mapping, dram_channels=channels)
    return replay(config, np.arange(4000) * step).done.max() / 4000


def test_the_mapping_decides_what_a_stride_meets():
    # A page apart: one row of each bank in turn, or rows of one bank.
    assert clocks_per_line("row-bank-column-channel", 4096) < 20
    assert clocks_per_line("bank-row-column-channel", 4096) > 90
    # Eight pages apart it is the other way round where lines go round the banks.
    assert clocks_per_line("row-bank-column-channel", 32768) > 90
    assert clocks_per_line("row-column-bank-channel", 64) < 9
    # Channels one after the other, or in turn.
    assert clocks_per_line("channel-row-bank-column", 64, 4) > 8
    assert clocks_per_line("row-bank-column-channel", 64, 4) < 2.3


def test_refreshes_keep_their_rhythm_busy_or_idle():
    config = card()
    ops = line_reads(config, [0, 64, 128])
    ops["barrier"] = 1
    _, idle = play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    assert idle["refreshes"] == 0
    ops = line_reads(config, np.arange(60_000) * 64)
    _, busy = play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    timing = presets.settings(config)
    assert abs(busy["refreshes"] - clocks_taken(config, ops) / timing.refi_bank) < 2


def test_lines_in_their_order_meet_no_refresh():
    """Though the next alone is queued, a bank is refreshed before they come there or behind."""
    t = presets.settings(card())
    arrivals = np.arange(20_000) * (presets.BURST_CLOCKS + 2)
    waited = replay(card(), np.arange(20_000) * 64, arrivals=arrivals).done - arrivals
    column = t.read_latency + t.dqsck + presets.BURST_CLOCKS
    assert waited.max() <= t.rp_bank + t.rcd + column


def test_sequential_single_words_are_combined_into_lines():
    config = card(bus_bytes=16)
    ops = operations(config, 1024)
    ops["address"] = np.arange(1024) * 16
    ops["write"] = 1
    data, counters = play(config, memory := np.zeros(DRAM_BYTES, np.uint8), ops)
    assert counters["writes"] <= 1024 // 4
    assert not memory[: len(data)].any()


def test_mixed_reads_and_writes_keep_most_of_the_bus():
    config = card()
    count = 20_000
    ops = line_reads(config, np.arange(count) % 2 * (DRAM_BYTES // 2) + np.arange(count) // 2 * 64)
    ops["write"] = np.arange(count) % 2
    play(config, np.zeros(DRAM_BYTES, np.uint8), ops)
    assert 8 * count / clocks_taken(config, ops) > 0.85


@pytest.mark.parametrize(("gigabytes", "nanoseconds"), [(1, 90), (2, 140), (4, 190)])
def test_refresh_time_follows_density(gigabytes, nanoseconds):
    settings = presets.settings(card(dram_bytes=gigabytes << 30))
    assert settings.rfc_bank == nanoseconds * 1600 // 1000


def test_density_beyond_the_standard_is_refused():
    with pytest.raises(ValueError, match="use more dram_channels"):
        presets.settings(card(dram_bytes=8 << 30))
