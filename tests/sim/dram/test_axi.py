"""The DRAM model as an AXI4 subordinate: data, order, and refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import CardConfig
from tests.sim.dram.driver import operations, play

BYTES = 1 << 16


def card(bus_bytes=32, **changes):
    return CardConfig(dram_bytes=BYTES, bus_bytes=bus_bytes, array_rows=4, array_columns=4, lanes=4,
                      **changes)  # fmt: skip


@given(
    bus_log2=st.integers(4, 7),
    channels=st.sampled_from([1, 2, 4]),
    clock=st.sampled_from([100, 333, 400, 2000]),
    seed=st.integers(0, 1 << 30),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    early_data=st.booleans(),
    span=st.sampled_from([512, BYTES]),
)
def test_reads_see_every_acknowledged_write(
    bus_log2, channels, clock, seed, stall, early_data, span
):
    config = card(1 << bus_log2, dram_channels=channels, clock_mhz=clock)
    rng = np.random.default_rng(seed)
    count = 200
    bus = config.bus_bytes
    ops = operations(config, count)
    ops["beats"] = rng.integers(1, 17, count)
    words = span // bus
    start = rng.integers(0, words, count)
    page = 4096 // bus  # bursts do not cross 4 KiB
    room = np.minimum(words - start, page - start % page)
    ops["beats"] = np.minimum(ops["beats"], room)
    ops["address"] = start * bus
    ops["id"] = rng.integers(0, 4, count)
    ops["write"] = rng.integers(0, 2, count)
    # A read or write waits for what came before it whenever the kind changes, so that the
    # outcome is that of one after another; runs of one kind overlap.
    ops["barrier"][1:] = ops["write"][1:] != ops["write"][:-1]
    total = int(ops["beats"].sum()) * bus
    data = rng.integers(0, 256, total, np.uint8)
    strobes = (rng.random(total) < rng.choice([0.3, 1.0])).astype(np.uint8)
    sent = data.copy()
    memory = rng.integers(0, 256, BYTES, np.uint8)
    expected = memory.copy()

    play(config, memory, ops, data=data, strobes=strobes, stall=stall, seed=seed,
         early_data=early_data, outstanding=int(rng.integers(1, 40)))  # fmt: skip

    for op in ops:
        a, n, d = int(op["address"]), int(op["beats"]) * bus, int(op["data"])
        if op["write"]:
            mask = strobes[d : d + n].astype(bool)
            expected[a : a + n][mask] = sent[d : d + n][mask]
        else:
            np.testing.assert_array_equal(data[d : d + n], expected[a : a + n])
    np.testing.assert_array_equal(memory, expected)
    assert not ops["response"].any()


def test_unaligned_address_means_its_word():
    config = card()
    memory = np.arange(BYTES, dtype=np.uint32).astype(np.uint8)
    ops = operations(config, 1)
    ops["address"] = 37
    data, _ = play(config, memory, ops)
    np.testing.assert_array_equal(data, memory[32:64])


@given(seed=st.integers(0, 1 << 30))
def test_refused_data_stay_while_the_word_is_written(seed):
    config = card()
    rng = np.random.default_rng(seed)
    ops = operations(config, 200)
    ops["address"] = rng.integers(0, 2, 200) * 32
    ops["write"] = np.arange(200) % 2
    ops["id"] = np.arange(200) % 4
    data = rng.integers(0, 256, 200 * 32, np.uint8)
    play(config, np.zeros(BYTES, np.uint8), ops, data=data, stall=0.8, seed=seed)


BAD = {
    "past the end": {"address": BYTES},
    "far past the end": {"address": (1 << 40) - 32},
    "crosses the end": {"address": BYTES - 64, "beats": 4},
    "fixed burst": {"burst": 0},
    "wrapping burst": {"burst": 2},
    "narrow": {"size": 2},
    "17 beats": {"beats": 17},
    "256 beats": {"beats": 256},
    "crosses 4 KiB": {"address": 4096 - 32, "beats": 2},
}


@pytest.mark.parametrize("write", [0, 1])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_bad_burst_answers_slverr_and_changes_nothing(bad, write):
    config = card()
    ops = operations(config, 3)
    ops["address"] = [0, 32, 64]
    for name, value in bad.items():
        ops[name][1] = value
    ops["write"][1] = write
    ops["id"] = 3
    memory = np.random.default_rng(3).integers(0, 256, BYTES, np.uint8)
    before = memory.copy()
    data, _ = play(config, memory, ops)
    assert ops["response"].tolist() == [0, 2, 0]
    np.testing.assert_array_equal(memory, before)
    np.testing.assert_array_equal(data[:32], before[:32])
    np.testing.assert_array_equal(data[-32:], before[64:96])


def test_an_old_request_is_not_passed_by_row_hits_for_ever():
    config = card()
    # One read of another row of the bank among a long run of hits to the open row.
    count = 4000
    ops = operations(config, count)
    ops["beats"] = 2
    ops["address"] = np.arange(count) % 64 * 64
    ops["id"] = np.arange(count) % 15
    ops["address"][100] = 4096 * 8
    ops["id"][100] = 15
    play(config, np.zeros(BYTES, np.uint8), ops)
    wait_clocks = (int(ops["done"][100]) - int(ops["begun"][100])) * 4
    assert wait_clocks < 2000 + 1000
