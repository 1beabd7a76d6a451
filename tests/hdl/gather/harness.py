"""A gather engine and its memory: places operands, runs commands, checks results bit for bit."""

import random
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import (
    ElementFormat,
    Flag,
    IndexMode,
    Opcode,
    RowFormat,
    Status,
    mode_flags,
)
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import pack
from halfdome.hdl.engine import Activity
from halfdome.hdl.gather.engine import GatherEngine
from halfdome.hdl.registers import GATHER_WAITS
from halfdome.sim.golden.gather import lengths_of, sparse_lengths_sum
from tests.bench import Memory, get, monitor, put, simulate

FILL = 0xA5
"""What memory holds where nothing was placed, so that a stray write shows."""


@dataclass
class Gather:
    """One GATHER command and its operands."""

    table: np.ndarray  # uint8[rows, stride]
    indices: np.ndarray
    lengths: np.ndarray
    dim: int
    row_format: RowFormat = RowFormat.INT8
    weights: np.ndarray | None = None
    mode: IndexMode = IndexMode.FATAL
    offset: int = 0
    """Bytes from a word boundary to row 0."""
    output_offset: int = 0
    """Bytes from a word boundary to the first pooled row."""
    output_padding: int = 0
    """Bytes between two pooled rows."""
    output_format: ElementFormat = ElementFormat.FLOAT32
    multiplier: float = 1.0
    zero_point: int = 0
    mean: bool = False
    wide: bool = False
    pruned: bool = False
    offsets: np.ndarray | None = None
    """Where bags start, in place of `lengths`."""

    @property
    def bags(self) -> int:
        return len(self.lengths if self.offsets is None else self.offsets)

    @property
    def pooled_bytes(self) -> int:
        return self.dim * self.output_format.nbytes

    @property
    def flags(self) -> Flag:
        chosen = {
            Flag.WEIGHTED: self.weights is not None,
            Flag.MEAN: self.mean,
            Flag.WIDE: self.wide,
            Flag.OFFSETS: self.offsets is not None,
            Flag.PRUNED: self.pruned,
        }
        return sum((f for f, on in chosen.items() if on), mode_flags(self.mode))

    def golden(self):
        lengths = self.lengths
        if self.offsets is not None:
            lengths = lengths_of(self.offsets, len(self.indices))
        return sparse_lengths_sum(
            self.table, self.indices, lengths, self.dim, self.row_format, self.weights,
            self.mode, pruned=self.pruned, mean=self.mean, output_format=self.output_format,
            multiplier=self.multiplier, zero_point=self.zero_point,
        )  # fmt: skip


@dataclass
class Outcome:
    """What became of a command."""

    status: Status
    detail: int
    cycles: int
    activity: dict[Activity, int]
    waits: dict[str, int]
    """Cycles by `GATHER_WAITS`."""


def make_table(rng, rows: int, dim: int, row_format: RowFormat, padding=0, special=False):
    """Random rows; `special` mixes zeros, subnormals, infinities and NaN among their floats."""
    size = row_format.row_bytes(dim)
    table = rng.integers(0, 256, (rows, size + padding), np.uint8)
    tail = row_format.tail_bytes
    real, count = (
        (np.float16 if tail == 4 else np.float32, 2)
        if tail
        else (np.float16 if row_format == RowFormat.FLOAT16 else np.float32, dim)
    )
    floats = rng.standard_normal((rows, count)).astype(real)
    if special:
        tiny = np.finfo(real).smallest_subnormal
        large = np.finfo(real).max
        odd = np.array([0, -0.0, tiny, -tiny * 7, large, -large, np.inf, -np.inf, np.nan], real)
        floats = np.where(rng.random((rows, count)) < 0.3, rng.choice(odd, (rows, count)), floats)
    table[:, size - floats.itemsize * count : size] = floats.view(np.uint8)
    return table


def plain(seed=0, dim=10, lengths=(3, 0, 5, 1, 2, 4), rows=12, **changes):
    """A weighted command without a fault; `changes` replace fields of `Gather`."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    fields = {
        "table": make_table(rng, rows, dim, changes.get("row_format", RowFormat.INT8)),
        "indices": rng.integers(0, rows, count),
        "lengths": np.array(lengths, np.int64),
        "dim": dim,
        "weights": rng.standard_normal(count).astype(np.float32),
    }
    return Gather(**fields | changes)


@dataclass
class Laid:
    """A command whose operands lie in memory."""

    descriptor: bytes
    output: int
    stride: int
    end: int
    """Where the next command may lie."""

    def pooled(self, memory: np.ndarray, bag: int, nbytes: int) -> np.ndarray:
        """A pooled row as a part of `memory`."""
        start = self.output + bag * self.stride
        return memory[start : start + nbytes]


def lay(command: Gather, memory: np.ndarray, start: int, word: int, **changes) -> Laid:
    """Places operands in `memory`, uint8[bytes], from `start`; room for the output behind them.

    `word` is the size of a bus word; `changes` replace fields of the descriptor.
    """
    c = command
    top = start

    def place(array, offset=0) -> int:
        nonlocal top
        raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        address = top + offset
        top = -(-(address + len(raw)) // word) * word + word
        assert top <= len(memory)
        memory[address : address + len(raw)] = raw
        return address

    integer = np.int64 if c.wide else np.int32
    operands = {
        "table": place(c.table, c.offset),
        "indices": place(np.asarray(c.indices, integer)),
        "lengths": place(np.asarray(c.lengths if c.offsets is None else c.offsets, integer)),
    }
    if c.weights is not None:
        operands["weights"] = place(np.asarray(c.weights, np.float32))
    stride = c.pooled_bytes + c.output_padding
    output = top + c.output_offset
    end = -(-(output + stride * c.bags) // word) * word + word
    assert end <= len(memory)
    descriptor = {
        "flags": c.flags, "output": output, "output_stride": stride, "rows": len(c.table),
        "bags": c.bags, "index_count": len(c.indices), "row_stride": c.table.shape[1],
        "dim": c.dim, "format": c.row_format, "output_format": c.output_format,
        "zero_point": c.zero_point,
        "multiplier": int(np.float32(c.multiplier).view(np.uint32)),
    } | operands | changes  # fmt: skip
    return Laid(pack(Opcode.GATHER, **descriptor), output, stride, end)


def run(config: CardConfig, commands: list[Gather], *, seed=0, stall=0.0, latency=(1, 8)):
    """Runs the commands one after the other; returns their outcomes.

    Checks memory bit for bit, and of every write that it lies in the output of the command that
    runs.
    """
    word = config.bus_bytes
    memory = Memory(config, 1 << 18, seed=seed, stall=stall, latency=latency)
    memory.data[:] = FILL
    goldens = [command.golden() for command in commands]
    laid = []
    top = 0
    for number, command in enumerate(commands):
        top = -(-top // 256) * 256  # equal commands meet equal line boundaries
        laid.append(lay(command, memory.data, top, word, id=number))
        top = laid[-1].end
    expected = memory.data.copy()
    for place, (pooled, *_) in zip(laid, goldens, strict=True):
        for bag, row in enumerate(pooled):
            place.pooled(expected, bag, row.nbytes)[:] = row.view(np.uint8)

    dut = GatherEngine(config)
    outcomes = []
    counts = []
    waits = []
    wait = random.Random(seed)

    def check_writes(place, pooled):
        """Every byte written since the last call is one of the pooled rows."""
        for address, strobe in memory.writes:
            assert strobe, "a write of nothing"
            for byte in (address + i - place.output for i in range(word) if strobe >> i & 1):
                bag, column = divmod(byte, place.stride)
                assert 0 <= bag < len(pooled), f"a write at {byte} bytes from the output"
                assert column < pooled[bag].nbytes, f"a write behind bag {bag}"
        memory.writes.clear()

    async def host(ctx):
        for place, (pooled, *ending) in zip(laid, goldens, strict=True):
            await put(ctx, dut.command, int.from_bytes(place.descriptor, "little"))
            counts.append(dict.fromkeys(Activity, 0))
            waits.append(dict.fromkeys(GATHER_WAITS, 0))
            while wait.random() < stall:
                await ctx.tick()
            result = await get(ctx, dut.result)
            taken, waited = dict(counts[-1]), dict(waits[-1])
            status = Status(result.status)
            outcomes.append(Outcome(status, int(result.detail), sum(taken.values()), taken, waited))
            assert [outcomes[-1].status, outcomes[-1].detail] == ending
            check_writes(place, pooled)
            # A result promises that every bag can be seen by now.
            for bag, row in enumerate(pooled):
                written = place.pooled(memory.data, bag, row.nbytes)
                np.testing.assert_array_equal(written, row.view(np.uint8))

    async def account(ctx):
        while True:
            _, _, activity, chosen = await ctx.tick().sample(dut.activity, dut.waits)
            assert bin(chosen).count("1") == (activity != Activity.IDLE)
            if counts:
                counts[-1][Activity(activity)] += 1
                if chosen:
                    waits[-1][GATHER_WAITS[chosen.bit_length() - 1]] += 1

    reads = ("lengths", "indices", "weights", "rows")
    simulate(
        dut,
        host,
        background=[
            account,
            *(memory.read_port(getattr(dut, name)) for name in reads),
            *(monitor(getattr(dut, name).request, name) for name in reads),
            memory.write_port(dut.output),
            monitor(dut.output.request, "output"),
            monitor(dut.result, "result"),
        ],
        cycles=30_000,
    )
    np.testing.assert_array_equal(memory.data, expected)
    assert not memory.writes
    assert len(outcomes) == len(commands)
    return outcomes
