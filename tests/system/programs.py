"""Random command programs for whole cards, and what the golden cards make of them."""

import random
from dataclasses import dataclass, field

import numpy as np

import halfdome
from halfdome.hdl.command.rules.elements import PAIRS, VECTOR
from halfdome.hdl.commands import (
    POOLED_FORMATS,
    PRODUCT_FORMATS,
    TABLE_BYTES,
    ElementFormat,
    Flag,
    Function,
    IndexMode,
    Opcode,
    RowFormat,
    Status,
    mode_flags,
)
from halfdome.hdl.config import PRESETS, CardConfig
from halfdome.hdl.descriptors import fields, pack
from halfdome.host.driver.layout import pack_weights, round_up
from halfdome.sim.golden.card import GoldenCard
from halfdome.sim.golden.matmul import pack_params

OTHER = PRESETS["tiny"].replace(
    array_rows=2, array_columns=8, lanes=2, queue_depth=2, gather_cache_bytes=4096
)
"""The one card besides `tiny` that tests compile: of another shape, with a hot-row cache."""

SLOT = 4096
"""DRAM is used in slots: operands of a task in one, its result in another."""


@dataclass
class Task:
    """One command with its operands: `(card address, bytes)` to place beforehand."""

    opcode: Opcode
    fields: dict
    contents: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def descriptor(self) -> bytes:
        return pack(self.opcode, **self.fields)


def _place(task: Task, address: int, values: np.ndarray) -> None:
    task.contents.append((address, np.ascontiguousarray(values).view(np.uint8).reshape(-1)))


def gather(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random GATHER over operands in one slot, some with a bad index or length."""
    row_format = RowFormat(rng.integers(len(RowFormat)))
    output_format = rng.choice(POOLED_FORMATS)
    dim = int(rng.integers(1, 24))
    rows = int(rng.integers(1, 10))
    size = row_format.row_bytes(dim)
    stride = size + int(rng.integers(0, 5))
    lengths = rng.integers(0, 7, int(rng.integers(1, 9)))
    count = int(lengths.sum())
    table = rng.integers(0, 256, (rows, stride)).astype(np.uint8)
    if row_format.tail_bytes:
        tail = rng.normal(size=(rows, 2)).astype(
            np.float32 if row_format.tail_bytes == 8 else np.float16
        )
        table[:, size - row_format.tail_bytes : size] = tail.view(np.uint8)
    indices = rng.integers(0, rows, count)
    if count and rng.random() < 0.3:
        indices[rng.integers(count)] = rng.choice([-1, rows, 2**31 - 1])
    flags = Flag(0)
    for flag in (Flag.WEIGHTED, Flag.MEAN, Flag.WIDE, Flag.OFFSETS, Flag.PRUNED):
        flags |= flag if rng.integers(2) else 0
    delimiters = lengths
    if flags & Flag.OFFSETS:
        delimiters = np.cumsum(lengths) - lengths
    if rng.random() < 0.1:
        delimiters[rng.integers(len(delimiters))] = rng.choice([-3, 99])
    integer = np.int64 if flags & Flag.WIDE else np.int32
    task = Task(
        Opcode.GATHER,
        {
            "table": operands, "indices": operands + 1024, "lengths": operands + 1536,
            "weights": operands + 2048, "output": output + int(rng.integers(config.bus_bytes)),
            "rows": rows, "index_count": count,
            "bags": len(lengths), "row_stride": stride, "dim": dim,
            "output_stride": dim * output_format.nbytes + int(rng.integers(20)),
            "format": row_format, "output_format": output_format,
            "multiplier": int(np.float32(rng.normal() * 20).view(np.uint32)),
            "zero_point": int(rng.integers(256)),
            "flags": flags | mode_flags(IndexMode(rng.integers(3))),
        } | changes,
    )  # fmt: skip
    _place(task, operands, table)
    _place(task, operands + 1024, indices.astype(integer))
    _place(task, operands + 1536, delimiters.astype(integer))
    _place(task, operands + 2048, rng.normal(size=count).astype(np.float32))
    return task


def _product(rng, n: int, room: int) -> tuple[dict, np.ndarray]:
    """Fields that all products have, and parameters of `n` channels, few of which scale nothing."""
    y_format = ElementFormat(int(rng.choice(PRODUCT_FORMATS)))
    flags = Flag(0)
    for flag in (Flag.X_INT8, Flag.W_UINT8, Flag.RELU):
        flags |= flag if rng.integers(2) else 0
    if y_format == ElementFormat.INT32:
        flags &= ~Flag.RELU
    values = {f"{name}_zero_point": int(rng.integers(256)) for name in "xwy"}
    multiplier = (rng.random(n) / 50 + 1e-6).astype(np.float32)
    if rng.random() < 0.1:
        multiplier[rng.integers(n)] = rng.choice([0, np.inf, np.nan])
    bias = rng.integers(-3000, 3000, n).astype(np.int32)
    values |= {
        "y_format": y_format,
        "flags": flags,
        "y_stride": round_up(n * y_format.nbytes, room),
    }
    return values, pack_params(bias, multiplier)


def _bytes(rng, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape).astype(np.uint8)


def matmul(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random MATMUL over operands in one slot."""
    m, k, n = (int(rng.integers(1, 20)) for _ in range(3))
    values, params = _product(rng, n, config.bus_bytes)
    values |= {
        "x": operands, "w": operands + 1024, "params": operands + 2048, "y": output,
        "m": m, "k": k, "n": n, "x_stride": round_up(k, config.bus_bytes),
    }  # fmt: skip
    task = Task(Opcode.MATMUL, values | changes)
    _place(task, operands, _bytes(rng, m, values["x_stride"]))
    _place(task, operands + 1024, pack_weights(_bytes(rng, n, k).view(np.int8), config))
    _place(task, operands + 2048, params)
    return task


def batch_matmul(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random BATCH_MATMUL over operands in one slot, a triangle among them."""
    m, k, n = (int(rng.integers(1, 9)) for _ in range(3))
    batches, word = int(rng.integers(1, 4)), config.bus_bytes
    values, params = _product(rng, n, word)
    batch_stride = m * values["y_stride"]
    if rng.integers(2):
        values["flags"] |= Flag.TRANSPOSED
        if values["y_format"] != ElementFormat.INT32 and rng.integers(2):
            values["flags"] |= Flag.TRIANGLE
            m, batch_stride = n, n * n + int(rng.integers(5))
    values |= {
        "x": operands, "w": operands + 1024, "params": operands + 2048, "y": output,
        "m": m, "k": k, "n": n, "batches": batches, "x_stride": word, "w_stride": word,
        "x_batch_stride": 8 * word, "w_batch_stride": 8 * word * int(rng.integers(2)),
        "y_batch_stride": batch_stride,
    }  # fmt: skip
    task = Task(Opcode.BATCH_MATMUL, values | changes)
    for address in (operands, operands + 1024):
        _place(task, address, _bytes(rng, 3 * 8 * word))
    _place(task, operands + 2048, params)
    return task


def conv2d(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random CONV2D over operands in one slot; its output may lie beyond the image."""
    height, width, k, n = (int(rng.integers(1, 6)) for _ in range(4))
    values, params = _product(rng, n, config.bus_bytes)
    for name, most in (("kernel", 3), ("stride", 2), ("dilation", 2)):
        values |= {f"{name}_{side}": int(rng.integers(1, most + 1)) for side in ("height", "width")}
    values |= {
        "x": operands, "w": operands + 1024, "params": operands + 2048, "y": output,
        "height": height, "width": width, "k": k, "n": n, "x_stride": config.bus_bytes,
        "out_height": int(rng.integers(1, 6)), "out_width": int(rng.integers(1, 6)),
        "pad_top": int(rng.integers(3)), "pad_left": int(rng.integers(3)),
    }  # fmt: skip
    if config.diagonal_tiles and rng.integers(2):
        values |= {"flags": values["flags"] | Flag.DIAGONAL, "k": n}
    task = Task(Opcode.CONV2D, values | changes)
    _place(task, operands, _bytes(rng, height * width, config.bus_bytes))
    _place(task, operands + 1024, _bytes(rng, 1024))  # tiles of whatever shape
    _place(task, operands + 2048, params)
    return task


def vector(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random AFFINE, ADD, MULTIPLY, CLAMP or QUANTISE over operands in one slot."""
    choices = [op for op in VECTOR if set(changes) <= {field.name for field in fields(op)}]
    opcode = Opcode(int(rng.choice(choices)))
    rows, columns = int(rng.integers(1, 8)), int(rng.integers(1, 40))
    stride = round_up(4 * columns, config.bus_bytes)
    one, small = (int(np.float32(x).view(np.uint32)) for x in (1.0, rng.random() + 0.1))
    values = {
        "a": operands, "y": output, "rows": rows, "columns": columns, "a_stride": stride,
        "y_stride": stride, "multiplier": small, "function": int(rng.choice(Function)),
        "a_format": int(rng.choice(ElementFormat)), "y_format": int(rng.integers(4)),
        "a_zero_point": int(rng.integers(256)), "y_zero_point": int(rng.integers(256)),
        "flags": int(rng.choice([0, 0, Flag.SUM, Flag.MAX])), "low": small, "high": one,
        "scale": small, "shift": one, "b": operands + 2048, "b_stride": stride,
        "b_format": int(rng.choice(ElementFormat)), "b_zero_point": int(rng.integers(256)),
    }  # fmt: skip
    if opcode is Opcode.QUANTISE:
        values |= {"flags": 0, "y_format": int(rng.integers(2))}
    known = {field.name for field in fields(opcode)}
    if "b" in known:
        values["flags"] |= int(rng.choice([0, Flag.BROADCAST]))
        values["b_stride"] *= int(rng.integers(2))
    values = {name: value for name, value in values.items() if name in known} | changes
    task = Task(opcode, values)
    for address in (operands, operands + 2048):
        if rng.integers(2):
            _place(task, address, rng.integers(0, 256, 2048).astype(np.uint8))
        else:
            _place(task, address, (rng.normal(size=512) * 100).astype(np.float32))
    return task


def lookup(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random LOOKUP, some in place."""
    rows, columns = int(rng.integers(1, 10)), int(rng.integers(1, 150))
    stride = round_up(columns, config.bus_bytes)
    a = operands + TABLE_BYTES
    values = {
        "table": operands, "a": a, "y": int(rng.choice([a, output, output])), "rows": rows,
        "columns": columns, "a_stride": stride, "y_stride": stride,
    } | changes  # fmt: skip
    task = Task(Opcode.LOOKUP, values)
    _place(task, operands, rng.integers(0, 256, 2048).astype(np.uint8))
    return task


def pair(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random ADD_QUANTISED or MULTIPLY_QUANTISED, some in place."""
    choices = [op for op in PAIRS if set(changes) <= {field.name for field in fields(op)}]
    opcode = Opcode(int(rng.choice(choices)))
    rows, columns = int(rng.integers(1, 10)), int(rng.integers(1, 150))
    stride = round_up(columns, config.bus_bytes)
    ratios = rng.random(2).astype(np.float32) + np.float32(0.01)
    values = {
        "a": operands, "b": operands + 2048, "rows": rows, "columns": columns, "a_stride": stride,
        "b_stride": stride * int(rng.integers(2)), "y_stride": stride,
        "y": int(rng.choice([operands, output, output])),
        "flags": int(rng.choice([0, 0, Flag.BROADCAST])),
        "a_ratio": int(ratios[:1].view(np.uint32)[0]),
        "b_ratio": int(ratios[1:].view(np.uint32)[0]),
        "offset": int(np.float32(rng.normal() * 50).view(np.uint32)),
        "multiplier": int((ratios[:1] / np.float32(64)).view(np.uint32)[0]),
    }  # fmt: skip
    values |= {f"{name}_format": int(rng.integers(2)) for name in "aby"}
    values |= {f"{name}_zero_point": int(rng.integers(256)) for name in "aby"}
    known = {field.name for field in fields(opcode)}
    task = Task(opcode, {name: x for name, x in values.items() if name in known} | changes)
    _place(task, operands, rng.integers(0, 256, 4096).astype(np.uint8))
    return task


def _windows(rng, config: CardConfig, operands: int, output: int) -> dict[str, int]:
    """Random windows of nine taps at the most over an image of 25 pixels at the most."""
    k = int(rng.integers(1, 40))
    stride = round_up(k, config.bus_bytes)
    values = {"x": operands, "y": output, "k": k, "x_stride": stride, "y_stride": stride}
    for side, pad in (("height", "pad_top"), ("width", "pad_left")):
        size, kernel, step, dilation = (int(rng.integers(1, most)) for most in (6, 4, 4, 3))
        pads = int(rng.integers((kernel - 1) * dilation + 1)) if dilation <= size else 0
        out = int(rng.integers(1, (size + pads - 1) // step + 2))
        values |= {side: size, pad: pads, f"out_{side}": min(out, 5)}
        values |= {f"kernel_{side}": kernel, f"stride_{side}": step, f"dilation_{side}": dilation}
    return values


def pool(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random POOL over operands in one slot."""
    values = _windows(rng, config, operands, output)
    values["flags"] = int(rng.choice([0, Flag.X_INT8]))
    task = Task(Opcode.POOL, values | changes)
    _place(task, operands, _bytes(rng, 25 * 48))
    return task


def average(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random AVERAGE over operands in one slot."""
    values = _windows(rng, config, operands, output) | {
        "flags": int(rng.choice([0, Flag.X_INT8])) | int(rng.choice([0, Flag.OUTSIDE])),
        "y_format": int(rng.integers(2)),
        **{f"{name}_zero_point": int(rng.integers(256)) for name in "xy"},
        **{f"{name}_scale": int(np.float32(rng.random() + 0.1).view(np.uint32)) for name in "xy"},
    }
    task = Task(Opcode.AVERAGE, values | changes)
    _place(task, operands, _bytes(rng, 25 * 48))
    return task


def depthwise(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random DEPTHWISE over operands in one slot."""
    values = _windows(rng, config, operands, output)
    k, image = values["k"], 25 * 48
    weights = 9 * round_up(k, config.bus_bytes)
    values |= {
        "flags": int(rng.integers(16)), "w": operands + image, "params": operands + image + weights,
        "y_format": int(rng.integers(2)),
        **{f"{name}_zero_point": int(rng.integers(256)) for name in "xwy"},
    }  # fmt: skip
    task = Task(Opcode.DEPTHWISE, values | changes)
    _place(task, operands, _bytes(rng, image + weights))
    bias = rng.integers(-(2**12), 2**12, k).astype(np.int32)
    multiplier = rng.normal(0.0, 0.01, k).astype(np.float32)
    _place(task, values["params"], pack_params(bias, multiplier))
    return task


def copy(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random strided COPY."""
    rows, row_bytes = int(rng.integers(1, 10)), int(rng.integers(1, 100))
    stride = round_up(row_bytes, config.bus_bytes)
    task = Task(
        Opcode.COPY,
        {
            "source": operands, "destination": output, "rows": rows, "row_bytes": row_bytes,
            "source_stride": stride + config.bus_bytes * int(rng.integers(3)),
            "destination_stride": stride + config.bus_bytes * int(rng.integers(3)),
        } | changes,
    )  # fmt: skip
    _place(task, operands, rng.integers(0, 256, 2048).astype(np.uint8))
    return task


def transpose(rng, config: CardConfig, operands: int, output: int, **changes) -> Task:
    """A random TRANSPOSE of a few matrices."""
    rows, columns, batches = (int(rng.integers(1, most)) for most in (30, 30, 3))
    size = int(rng.choice([1, 1, 4]))
    if size == 4:
        rows, columns = (min(each, 10) for each in (rows, columns))
    values = {"source": operands, "destination": output, "rows": rows, "columns": columns,
              "batches": batches, "element_bytes": size}  # fmt: skip
    for name, high, wide in (("source", rows, columns), ("destination", columns, rows)):
        stride = round_up(wide * size, config.bus_bytes)
        values |= {f"{name}_stride": stride, f"{name}_batch_stride": high * stride}
    task = Task(Opcode.TRANSPOSE, values | changes)
    _place(task, operands, rng.integers(0, 256, 2048).astype(np.uint8))
    return task


KINDS = (
    gather, matmul, batch_matmul, conv2d, vector, lookup, pair, pool, average, depthwise, copy,
    transpose,
)  # fmt: skip

DAMAGES = {
    gather: ({"rows": 0}, {"dim": 0}, {"output_stride": 0, "bags": 2}, {"table": 1 << 39},
             {"flags": 96}, {"index_count": 999, "flags": 0}, {"core": 5}, {"lengths": 8}),
    matmul: ({"m": 0}, {"k": 70000}, {"x": 3}, {"y": (1 << 40) - 16}, {"flags": 0x80},
             {"y_format": 1}),
    batch_matmul: ({"k": 0}, {"batches": 0}, {"w": 8}, {"params": 1 << 39},
                   {"w_stride": 0, "n": 9}),
    conv2d: ({"kernel_height": 0}, {"out_width": 0}, {"x": 1}, {"x_stride": 0}, {"y": 1 << 39}),
    vector: ({"columns": 0}, {"multiplier": 0x7FC0_0000}, {"y": 1}, {"function": 99}),
    lookup: ({"columns": 0}, {"table": 8}, {"table": 1 << 39}, {"a": 4}, {"flags": 1}),
    pair: ({"columns": 0}, {"a_ratio": 0}, {"multiplier": 0x7F80_0000}, {"b": 1 << 39},
           {"y_format": 2}, {"b_format": 9}, {"a": 4}, {"flags": 1}),
    pool: ({"k": 0}, {"pad_top": 200}, {"x": 8}, {"y": 1 << 39}, {"out_width": 65535},
           {"dilation_height": 9, "pad_top": 1, "kernel_height": 2}),
    average: ({"kernel_height": 128, "kernel_width": 2}, {"x_scale": 0}, {"y_scale": 0xBF80_0000},
              {"y_format": 3}, {"flags": 1}, {"x": 8}, {"y": 1 << 39}, {"out_width": 65535}),
    depthwise: ({"kernel_height": 65}, {"k": 0}, {"x": 8}, {"params": 1 << 39}, {"y_format": 4},
                {"out_width": 65535}, {"w": 4, "flags": 0}, {"w": 1 << 39, "flags": 4}),
    copy: ({"rows": 0}, {"source": 1 << 63}, {"signal_counter": 0x70}),
    transpose: ({"columns": 0}, {"element_bytes": 3}, {"source": 8}, {"destination": 1 << 39}),
}  # fmt: skip


def random_tasks(config: CardConfig, seed: int, count: int) -> list[Task]:
    """Tasks for each core in turn, in disjoint slots, a few of them damaged.

    Results lie in DRAM or the core's scratchpad.
    """
    rng = np.random.default_rng(seed)
    picker = random.Random(seed)
    tasks = []
    for index in range(count):
        kind = picker.choice(KINDS)
        core = index % config.cores
        operands = 2 * index * SLOT
        output = operands + SLOT
        if picker.random() < 0.3:
            room = config.scratchpad_bytes // 2048
            output = config.scratchpad_address(core) + 2048 * (index % room)
        changes = picker.choice(DAMAGES[kind]) if picker.random() < 0.25 else {}
        tasks.append(kind(rng, config, operands, output, **{"core": core} | changes))
    return tasks


def golden_outcome(config: CardConfig, tasks: list[Task]) -> tuple[GoldenCard, list]:
    """A golden card after the tasks, and each task's (status, detail).

    What is for a core that there is not goes to the first core's ring.
    """
    card = GoldenCard(config, host=None)
    cores = [task.fields["core"] for task in tasks]
    rings = [core if core < config.cores else 0 for core in cores]
    for task in tasks:
        for address, values in task.contents:
            card.memory[address : address + values.size] = values
    return card, [
        card.execute(task.descriptor, ring) for task, ring in zip(tasks, rings, strict=True)
    ]


def run(config: CardConfig, tasks: list[Task], engine: str, record: bool = False, **options):
    """Runs tasks on one real card; returns completions, memories, cycles and port trace.

    With a trace, of the scratchpads the first KiB, and no counters: to read all of them takes many
    times the cycles of tasks.
    """
    with halfdome.open(cards=1, config=config, engine=engine, **options) as runtime:
        platform, card = runtime.platform, runtime.cards[0]
        if record:
            platform.world.record(0)
        dram = platform.memory(0)
        for task in tasks:
            for address, values in task.contents:
                dram[address : address + values.size] = values
        identifiers = card.device.submit([task.descriptor for task in tasks])
        completions = card.device.wait(identifiers)
        bar2 = platform.bars[0].bar2 + config.scratchpad_address(0)
        scratchpad_bytes = 1024 if record else config.cores * config.scratchpad_bytes
        scratchpads = b"".join(
            platform.bus.read(bar2 + offset, 1024) for offset in range(0, scratchpad_bytes, 1024)
        )
        counters = {} if record else card.counters()
        trace = platform.world.trace(0)[: platform.cycles] if record else None
        return {
            "completions": completions,
            "dram": dram.copy(),
            "scratchpads": scratchpads,
            "counters": counters,
            "cycles": platform.cycles,
            "trace": trace,
        }


def outcomes(completions) -> list[tuple[Status, int]]:
    """(status, detail) of each."""
    return [(completion.status, completion.detail) for completion in completions]


def assert_same_ports(a: np.ndarray, b: np.ndarray) -> None:
    """Two port traces are equal; if not, says which ports differ first, and when."""
    assert len(a) == len(b)
    if not np.array_equal(a, b):
        cycle = int(np.flatnonzero(a != b)[0])
        names = [n for n in a.dtype.names or () if (a[n][cycle] != b[n][cycle]).any()]
        raise AssertionError(f"ports {names} differ first in cycle {cycle}")
