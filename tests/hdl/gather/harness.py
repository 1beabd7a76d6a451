"""A gather engine and its memory: places operands, runs commands, checks results bit for bit."""

import random
from dataclasses import dataclass

import numpy as np

from hdl.commands import Flag, IndexMode, Opcode, RowFormat, Status, pack
from hdl.config import CardConfig
from hdl.engine import Activity
from hdl.gather.engine import GatherEngine
from sim.golden.gather import row_bytes, sparse_lengths_sum
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
    output_padding: int = 0
    """Bus words between two pooled rows."""

    def golden(self):
        return sparse_lengths_sum(
            self.table, self.indices, self.lengths, self.dim, self.row_format, self.weights,
            self.mode,
        )  # fmt: skip


@dataclass
class Outcome:
    """What became of a command."""

    status: Status
    detail: int
    cycles: int
    activity: dict[Activity, int]


def make_table(rng, rows: int, dim: int, row_format: RowFormat, padding=0, special=False):
    """Random fused rows; `special` mixes in zeros, subnormals, infinities and NaN as factors."""
    table = rng.integers(0, 256, (rows, row_bytes(dim, row_format) + padding), np.uint8)
    real = np.float32 if row_format == RowFormat.INT8 else np.float16
    factors = rng.standard_normal((rows, 2)).astype(real)
    if special:
        tiny = np.finfo(real).smallest_subnormal
        large = np.finfo(real).max
        odd = np.array([0, -0.0, tiny, -tiny * 7, large, -large, np.inf, -np.inf, np.nan], real)
        factors = np.where(rng.random((rows, 2)) < 0.3, rng.choice(odd, (rows, 2)), factors)
    size = row_bytes(dim, row_format)
    table[:, size - factors.itemsize * 2 : size] = factors.view(np.uint8)
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


def run(config: CardConfig, commands: list[Gather], *, seed=0, stall=0.0, latency=(1, 8)):
    """Runs the commands one after the other; checks memory bit for bit; returns their outcomes."""
    word = config.bus_bytes
    memory = Memory(config, 1 << 18, seed=seed, stall=stall, latency=latency)
    memory.data[:] = FILL
    expected = memory.data.copy()
    allowed: set[int] = set()
    descriptors = []
    outputs = []
    top = 0

    def place(array, offset=0) -> int:
        nonlocal top
        raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        address = top + offset
        memory.data[address : address + len(raw)] = raw
        expected[address : address + len(raw)] = raw
        top = -(-(address + len(raw)) // word) * word + word
        return address

    goldens = []
    for number, c in enumerate(commands):
        top = -(-top // 256) * 256  # equal commands meet equal line boundaries
        operands = {
            "table": place(c.table, c.offset),
            "indices": place(np.asarray(c.indices, np.int32)),
            "lengths": place(np.asarray(c.lengths, np.int32)),
        }
        if c.weights is not None:
            operands["weights"] = place(np.asarray(c.weights, np.float32))
        stride = -(-c.dim * 4 // word) * word + c.output_padding * word
        output = top
        top += stride * len(c.lengths) + word
        golden = c.golden()
        goldens.append(golden)
        for bag, row in enumerate(golden[0]):
            start = output + bag * stride
            expected[start : start + 4 * c.dim] = row.view(np.uint8)
            allowed.update(range(start, start + 4 * c.dim))
        outputs.append((output, stride))
        # fmt: off
        descriptor = pack(
            Opcode.GATHER, flags=0 if c.weights is None else Flag.WEIGHTED, id=number,
            output=output, output_stride=stride, rows=len(c.table), bags=len(c.lengths),
            index_count=len(c.indices), row_stride=c.table.shape[1], dim=c.dim,
            format=c.row_format, mode=c.mode, **operands,
        )
        # fmt: on
        descriptors.append(descriptor)
    assert top < len(memory.data)

    dut = GatherEngine(config)
    outcomes = []
    counts = []
    wait = random.Random(seed)

    async def host(ctx):
        for descriptor, (pooled, *ending), (output, stride) in zip(
            descriptors, goldens, outputs, strict=True
        ):
            await put(ctx, dut.command, int.from_bytes(descriptor, "little"))
            counts.append(dict.fromkeys(Activity, 0))
            while wait.random() < stall:
                await ctx.tick()
            result = await get(ctx, dut.result)
            taken = dict(counts[-1])
            outcomes.append(
                Outcome(Status(result.status), int(result.detail), sum(taken.values()), taken)
            )
            assert [outcomes[-1].status, outcomes[-1].detail] == ending
            # A result promises that every bag can be seen by now.
            for bag, row in enumerate(pooled):
                start = output + bag * stride
                written = memory.data[start : start + 4 * len(row)].view(np.uint32)
                np.testing.assert_array_equal(written, row.view(np.uint32))

    async def account(ctx):
        while True:
            _, _, activity = await ctx.tick().sample(dut.activity)
            if counts:
                counts[-1][Activity(activity)] += 1

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
    for address, strobe in memory.writes:
        assert strobe, "a write of nothing"
        assert all(address + i in allowed for i in range(word) if strobe >> i & 1)
    assert len(outcomes) == len(commands)
    return outcomes
