"""The units between memory and lanes, one by one, under stalls on every stream."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import PRESETS
from halfdome.hdl.gather.align import RowAligner
from halfdome.hdl.gather.interleave import BagInterleaver
from halfdome.hdl.gather.rows import RowFetcher
from halfdome.hdl.gather.shape import shape_of
from halfdome.hdl.gather.unpack import RowUnpacker
from halfdome.sim.golden.gather import unpack_rows
from tests.bench import Memory, monitor, put, simulate, sink, source
from tests.hdl.gather.harness import make_table

TINY = PRESETS["tiny"]
SPACING = 4
STALLS = st.sampled_from([0.0, 0.3, 0.7])


class AlignAndUnpack(wiring.Component):
    """A `RowAligner` in front of a `RowUnpacker`, for rows of a fixed shape."""

    def __init__(self, dim, row_format):
        self.dim = dim
        self.row_format = row_format
        self.aligner = RowAligner(TINY)
        self.unpacker = RowUnpacker(TINY)
        members = {name: self.aligner.signature.members[name] for name in ("tags", "words", "tail")}
        super().__init__(members | {"o": self.unpacker.signature.members["o"]})

    def elaborate(self, platform):
        m = Module()
        m.submodules.aligner = self.aligner
        m.submodules.unpacker = self.unpacker
        dim, row_format = Signal(16, init=self.dim), Signal(8, init=self.row_format)
        for name, value in shape_of(TINY, dim, row_format).items():
            m.d.comb += [unit.shape[name].eq(value) for unit in (self.aligner, self.unpacker)]
        for name in ("tags", "words"):
            connect(m, flipped(getattr(self, name)), getattr(self.aligner, name))
        connect(m, self.aligner.tail, flipped(self.tail))
        connect(m, self.aligner.o, self.unpacker.i)
        connect(m, self.unpacker.o, flipped(self.o))
        return m


@given(
    dim=st.integers(1, 40),
    row_format=st.sampled_from(RowFormat),
    rows=st.lists(st.none() | st.integers(0, TINY.bus_bytes - 1), min_size=1, max_size=8),
    stall=STALLS,
    seed=st.integers(0, 2**16),
)
def test_rows_at_any_byte_become_chunks_and_tails(dim, row_format, rows, stall, seed):
    """`rows` holds the byte at which each row starts in its first word, or None for no row."""
    rng = np.random.default_rng(seed)
    word = TINY.bus_bytes
    table = make_table(rng, len(rows), dim, row_format)
    size = row_format.row_bytes(dim)
    tags, words, tails = [], [], []
    for number, start in enumerate(rows):
        tag = {"offset": start or 0, "weight": number, "row": start is not None}
        tags.append(tag | {"last": number & 1, "context": number % TINY.gather_contexts})
        if start is not None:
            raw = rng.bytes(start) + table[number].tobytes()
            raw += rng.bytes(-len(raw) % word)
            pieces = [raw[i : i + word] for i in range(0, len(raw), word)]
            words += [{"data": int.from_bytes(piece, "little"), "last": 0} for piece in pieces]
            tail = row_format.tail_bytes
            tails.append((number, table[number, size - tail : size].tobytes()))

    dut = AlignAndUnpack(dim, row_format)
    q, _, _ = unpack_rows(table, dim, row_format)
    real = [number for number, start in enumerate(rows) if start is not None]
    per_row = -(-dim // TINY.lanes)
    chunks, seen = [], []
    simulate(
        dut,
        source(dut.tags, tags, seed=seed, stall=stall),
        source(dut.words, words, seed=seed + 1, stall=stall),
        sink(dut.o, per_row * len(real), chunks, seed=seed + 2, stall=stall),
        sink(dut.tail, len(rows), seen, seed=seed + 3, stall=stall),
        background=[
            monitor(dut.aligner.o, "aligner.o"),
            monitor(dut.tail, "tail"),
            monitor(dut.o, "o"),
        ],
    )
    elements = np.frombuffer(
        b"".join(int(c).to_bytes(4 * TINY.lanes, "little") for c in chunks), np.uint32
    ).reshape(len(real), per_row * TINY.lanes)[:, :dim]
    stored = {32: np.float32, 16: np.float16}.get(row_format.element_bits, np.uint8)
    unsigned = np.dtype(f"u{np.dtype(stored).itemsize}")
    np.testing.assert_array_equal(elements, q[real].astype(stored).view(unsigned))
    assert [t.tag.weight for t in seen] == list(range(len(rows)))
    assert [t.tag.row for t in seen] == [start is not None for start in rows]
    for number, raw in tails:
        assert int(seen[number].raw).to_bytes(8, "little").endswith(raw)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20),
    stall=STALLS,
    seed=st.integers(0, 2**16),
)
def test_bags_are_dealt_to_contexts_in_turn_and_keep_their_order(lengths, stall, seed):
    lookups = [
        {"index": bag, "weight": step, "row": 1, "last": step == length - 1}
        for bag, length in enumerate(lengths)
        for step in range(length)
    ]
    dut = BagInterleaver(TINY, SPACING)
    received = []
    simulate(
        dut,
        source(dut.i, lookups, seed=seed, stall=stall),
        sink(dut.o, len(lookups), received, seed=seed + 1, stall=stall),
        background=[monitor(dut.o, "o")],
    )
    for context in range(TINY.gather_contexts):
        own = [(p.lookup.index, p.lookup.weight) for p in received if p.context == context]
        assert own == [
            (lookup["index"], lookup["weight"])
            for lookup in lookups
            if lookup["index"] % TINY.gather_contexts == context
        ]


def test_lookups_of_a_bag_keep_their_distance_and_bags_fill_the_gaps():
    def lookup(bag, step, length):
        return {"index": bag, "weight": step, "row": 1, "last": step == length - 1}

    bags = 2 * SPACING
    lookups = [lookup(bag, step, 30) for bag in range(bags) for step in range(30)]
    dut = BagInterleaver(TINY, SPACING)
    taken = []

    async def watch(ctx):
        cycle = 0
        while len(taken) < len(lookups):
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.p)
            cycle += 1
            if valid:
                taken.append((cycle, payload.lookup.index))

    async def accept(ctx):
        ctx.set(dut.o.ready, 1)

    simulate(dut, accept, source(dut.i, lookups), watch)
    assert taken[0][0] == dut.latency + 1  # the lookup is put in the first cycle
    for bag in range(bags):
        cycles = [cycle for cycle, index in taken if index == bag]
        assert min(np.diff(cycles)) >= SPACING
    # Lookups come in one a cycle; the last bag to come is alone with its distances at the end.
    assert taken[-1][0] == len(lookups) - 30 + 30 * SPACING - 1


def test_a_row_takes_as_many_cycles_as_it_has_bursts():
    # A burst is four words of 16 bytes at most: rows of 80 bytes from byte 60 touch three lines.
    config = TINY.replace(gather_outstanding=64)
    dut = RowFetcher(config)
    memory = Memory(config, 1 << 14, latency=(1, 1))
    rows = 30
    asked = []

    async def bench(ctx):
        ctx.set(dut.table, 60)
        ctx.set(dut.row_stride, 128)
        ctx.set(dut.shape.row_bytes, 80)
        for index in range(rows):
            lookup = {"index": index, "weight": 0, "row": 1, "last": 1}
            await put(ctx, dut.i, {"lookup": lookup, "context": 0})

    async def watch(ctx):
        request = dut.port.request
        cycle = 0
        while len(asked) < 3 * rows:
            _, _, valid, ready, p = await ctx.tick().sample(request.valid, request.ready, request.p)
            cycle += 1
            if valid and ready:
                asked.append((cycle, p.address, p.count_minus_1 + 1))

    async def drop(ctx):
        ctx.set(dut.words.ready, 1)
        ctx.set(dut.tags.ready, 1)

    simulate(dut, drop, bench, watch, background=[memory.read_port(dut.port)])
    assert [(address, count) for _, address, count in asked] == [
        piece
        for row in range(rows)
        for piece in (
            (48 + 128 * row, 1), (64 + 128 * row, 4), (128 + 128 * row, 1)
        )
    ]  # fmt: skip
    assert asked[-1][0] - asked[0][0] == 3 * rows - 1


@pytest.mark.parametrize("outstanding", [2, 5])
def test_no_more_bursts_are_in_flight_than_configured(outstanding):
    dut = RowFetcher(TINY.replace(gather_outstanding=outstanding))
    memory = Memory(TINY, 1 << 12)
    asked = 0

    async def bench(ctx):
        ctx.set(dut.row_stride, 64)
        ctx.set(dut.shape.row_bytes, 64)
        ctx.set(dut.i.p.lookup.row, 1)
        ctx.set(dut.i.valid, 1)
        for _ in range(200):
            await ctx.tick()

    async def count(ctx):
        nonlocal asked
        while True:
            _, _, valid, ready = await ctx.tick().sample(
                dut.port.request.valid, dut.port.request.ready
            )
            asked += valid and ready

    simulate(dut, bench, background=[count, memory.read_port(dut.port)])
    assert asked == outstanding  # nobody takes the words


def test_an_address_takes_three_cycles():
    dut = RowFetcher(TINY)
    memory = Memory(TINY, 1 << 12)
    asked = []

    async def bench(ctx):
        ctx.set(dut.table, 100)
        ctx.set(dut.row_stride, 37)
        ctx.set(dut.shape.row_bytes, 12)
        lookup = {"index": 50, "weight": 0, "row": 1, "last": 1}
        await put(ctx, dut.i, {"lookup": lookup, "context": 0})
        while not ctx.get(dut.port.request.valid):
            asked.append(None)
            await ctx.tick()
        asked.append(ctx.get(dut.port.request.p.address))

    simulate(dut, bench, background=[memory.read_port(dut.port)])
    # It is asked for in the cycle after the address is known.
    assert asked == [None] * dut.address_latency + [(100 + 50 * 37) // 16 * 16]
