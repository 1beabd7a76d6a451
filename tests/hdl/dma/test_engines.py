"""LOAD, COPY, STORE and SIGNAL move exactly the bytes that numpy slices would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode, ReadFailure, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from halfdome.hdl.dma.load import LoadEngine
from halfdome.hdl.dma.store import StoreEngine
from halfdome.hdl.engine import Activity
from tests.bench import Memory, get, monitor, put, simulate
from tests.hdl.dma.pcie import HOST_BASE, HostMemory

TINY = PRESETS["tiny"]
WIDE = TINY.replace(bus_bytes=64)
LARGE = TINY.replace(dram_bytes=1 << 32)
SIZE = 1 << 14

STALLS = st.sampled_from([0.0, 0.3, 0.7])


@st.composite
def moves(draw, config):
    """A block that fits a quarter of the memory, its rows touching on one, both or no sides."""
    word = config.bus_bytes
    rows = draw(st.integers(1, 9))
    row_bytes = draw(st.one_of(st.integers(1, 5 * word), st.sampled_from([word, 2 * word])))
    least = -(-row_bytes // word) * word
    strides = [least + word * draw(st.sampled_from([0, 0, 1, 3])) for _ in range(2)]
    if rows == 1 and draw(st.booleans()):
        strides = [draw(st.integers(0, 2**32 - 1)) for _ in range(2)]
    offsets = [word * draw(st.integers(0, 8)) for _ in range(2)]
    return {
        "source": offsets[0], "destination": SIZE // 2 + offsets[1], "rows": rows,
        "row_bytes": row_bytes, "source_stride": strides[0], "destination_stride": strides[1],
    }  # fmt: skip


def moved(before: np.ndarray, after: np.ndarray, move, source: int, destination: int):
    """`after` with the rows of `before` in place; offsets are into the two arrays."""
    after = after.copy()
    size = move["row_bytes"]
    for row in range(move["rows"]):
        start = source + row * move["source_stride"]
        end = destination + row * move["destination_stride"]
        after[end : end + size] = before[start : start + size]
    return after


class Run:
    """One engine with memory, host memory and a log of its activity."""

    def __init__(self, dut, config, *, seed=0, stall=0.0, latency=(1, 8)):
        self.dut = dut
        self.memory = Memory(config, SIZE, seed=seed, stall=stall, latency=latency)
        self.memory.data[:] = np.random.default_rng(seed + 1).integers(0, 256, SIZE)
        self.host = HostMemory(config, SIZE, seed=seed, stall=stall)
        self.activity: list[Activity] = []
        self.results: list[tuple[Status, int]] = []

    def __call__(self, *descriptors: bytes, cycles=20_000, hold_result=0):
        dut = self.dut
        background = [self.memory.read_port(dut.source), monitor(dut.source.request, "source")]
        if isinstance(dut, LoadEngine):
            background += [
                self.memory.write_port(dut.destination),
                self.host.dma_read_port(dut.dma, self.memory),
                monitor(dut.dma.request, "dma"),
                monitor(dut.destination.request, "destination"),
            ]
        else:
            background += [
                self.host.posted_port(dut.posted),
                monitor(dut.posted.request, "posted"),
                monitor(dut.posted.data, "data"),
            ]

        async def watch(ctx):
            while True:
                _, _, activity = await ctx.tick().sample(dut.activity)
                self.activity.append(Activity(activity))

        async def drive(ctx):
            for raw in descriptors:
                await put(ctx, dut.command, int.from_bytes(raw, "little"))
                for _ in range(hold_result):
                    await ctx.tick()
                result = await get(ctx, dut.result)
                self.results.append((Status(result.status), int(result.detail)))
                if isinstance(dut, LoadEngine):
                    assert ctx.get(dut.destination.idle)
                    assert ctx.get(dut.dma.idle)
                else:
                    assert ctx.get(dut.posted.idle)
                assert Activity(ctx.get(dut.activity)) == Activity.IDLE

        simulate(dut, drive, background=[*background, watch], cycles=cycles)
        return self


CONFIGS = pytest.mark.parametrize("config", [TINY, WIDE], ids=["bus16", "bus64"])


@CONFIGS
@given(data=st.data(), seed=st.integers(0, 2**16), stall=STALLS)
def test_load_brings_rows_from_the_host(config, data, seed, stall):
    move = data.draw(moves(config))
    run = Run(LoadEngine(config), config, seed=seed, stall=stall)
    expected = moved(run.host.data, run.memory.data, move, move["source"], move["destination"])
    run(pack(Opcode.LOAD, **move | {"source": HOST_BASE + move["source"]}))
    assert run.results == [(Status.OK, 0)]
    np.testing.assert_array_equal(run.memory.data, expected)


@CONFIGS
@given(data=st.data(), seed=st.integers(0, 2**16), stall=STALLS)
def test_copy_moves_rows_and_nothing_else(config, data, seed, stall):
    run = Run(LoadEngine(config), config, seed=seed, stall=stall)
    expected, descriptors = run.memory.data, []
    for move in (data.draw(moves(config)), data.draw(moves(config))):
        expected = moved(expected, expected, move, move["source"], move["destination"])
        descriptors.append(pack(Opcode.COPY, **move))
    run(*descriptors)
    assert run.results == [(Status.OK, 0)] * 2
    np.testing.assert_array_equal(run.memory.data, expected)


@CONFIGS
@given(data=st.data(), seed=st.integers(0, 2**16), stall=STALLS)
def test_store_sends_rows_and_then_the_signal(config, data, seed, stall):
    move = data.draw(moves(config))
    run = Run(StoreEngine(config), config, seed=seed, stall=stall)
    expected = moved(run.memory.data, run.host.data, move, move["source"], move["destination"])
    expected[4:8] = np.frombuffer((0x8765_4321).to_bytes(4, "little"), np.uint8)
    run(
        pack(Opcode.STORE, **move | {"destination": HOST_BASE + move["destination"]}),
        pack(Opcode.SIGNAL, address=HOST_BASE + 4, value=0x8765_4321),
    )
    assert run.results == [(Status.OK, 0)] * 2
    assert run.host.requests[-1] == (HOST_BASE + 4, 4)
    np.testing.assert_array_equal(run.host.data, expected)


TOUCHING = {"rows": 21, "row_bytes": 48, "source_stride": 48, "destination_stride": 48}


@pytest.mark.parametrize("engine", [LoadEngine, StoreEngine])
def test_touching_rows_become_one_request(engine):
    load = engine is LoadEngine
    run = Run(engine(TINY), TINY)
    sides = (HOST_BASE, 0) if load else (0, HOST_BASE)
    move = TOUCHING | dict(zip(("source", "destination"), sides, strict=True))
    run(pack(Opcode.LOAD if load else Opcode.STORE, **move))
    assert run.host.requests == [(HOST_BASE, 21 * 48)]
    np.testing.assert_array_equal(run.memory.data[: 21 * 48], run.host.data[: 21 * 48])


@pytest.mark.parametrize(
    ("rows", "row_bytes", "merged"),
    [
        (2**16 - 1, 2**16 + 16, False), (2**16, 2**16 - 16, True), (2, 2**31, False),
        (3, 0x5555_5550, True), (2**32 - 1, 16, False), (2**28 - 1, 16, True), (2**28, 16, False),
    ],
)  # fmt: skip
def test_blocks_merge_below_4_gib_only(rows, row_bytes, merged):
    """The first request says it all; the rest of so large a block is not simulated."""
    dut = LoadEngine(LARGE)
    assert (rows * row_bytes < 1 << 32) == merged

    async def bench(ctx):
        move = {"rows": rows, "row_bytes": row_bytes}
        move |= {"source_stride": row_bytes, "destination_stride": row_bytes}
        raw = pack(Opcode.LOAD, source=HOST_BASE, destination=0, **move)
        await put(ctx, dut.command, int.from_bytes(raw, "little"))
        request = await get(ctx, dut.dma.request)
        assert request.bytes == (rows * row_bytes if merged else row_bytes)

    simulate(dut, bench, cycles=100)


@pytest.mark.parametrize("bad_row", [0, 1, 4])
def test_failed_read_is_reported_and_forgotten(bad_row):
    run = Run(LoadEngine(TINY), TINY, seed=3, stall=0.3)
    run.host.failing.add(HOST_BASE + bad_row * 64)
    move = {"rows": 5, "row_bytes": 33, "source_stride": 64, "destination_stride": 48}
    bad = pack(Opcode.LOAD, source=HOST_BASE, destination=0, **move)
    good = pack(Opcode.LOAD, source=HOST_BASE + 0x1000, destination=0x800, **move)
    copy = pack(Opcode.COPY, source=0, destination=0x1000, **move)
    run(bad, good, bad, copy, good)
    failed, fine = (Status.READ_FAILED, ReadFailure.POISONED), (Status.OK, 0)
    assert run.results == [failed, fine, failed, fine, fine]


@pytest.mark.parametrize("row_words", [1, 3, 4, 64])
def test_copy_moves_a_word_a_cycle(row_words):
    word = TINY.bus_bytes
    rows = 256 // row_words
    run = Run(LoadEngine(TINY), TINY, latency=(20, 20))
    stride = (row_words + 1) * word
    run(
        pack(
            Opcode.COPY, source=0, destination=SIZE // 2, rows=rows, row_bytes=row_words * word,
            source_stride=stride, destination_stride=stride,
        )
    )  # fmt: skip
    taken = sum(activity != Activity.IDLE for activity in run.activity)
    words = rows * row_words
    assert len(run.memory.writes) == words
    assert taken <= words + 20 + 20 + 12, "read latency, write latency and a few cycles of control"


def test_small_rows_are_stored_without_waiting_for_each():
    run = Run(StoreEngine(TINY), TINY, latency=(60, 60))
    run(
        pack(
            Opcode.STORE, source=0, destination=HOST_BASE, rows=100, row_bytes=16,
            source_stride=32, destination_stride=16,
        )
    )  # fmt: skip
    taken = sum(activity != Activity.IDLE for activity in run.activity)
    assert taken <= 2 * 100 + 60 + 20, "two cycles a row, one memory latency, control"


def test_waiting_for_the_result_to_be_taken_is_blocked():
    run = Run(StoreEngine(TINY), TINY)
    run(pack(Opcode.SIGNAL, address=HOST_BASE, value=1), hold_result=100)
    assert run.activity.count(Activity.BLOCKED) > 80
    assert run.activity.count(Activity.BUSY) <= 8
