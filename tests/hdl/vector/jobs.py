"""Vector commands for tests: descriptors with their operands in memory and the golden output."""

from collections import Counter

import numpy as np

from halfdome.hdl.commands import (
    MULTIPLIER_EXPONENTS,
    RATIO_EXPONENTS,
    TABLE_BYTES,
    ElementFormat,
    Flag,
    Function,
    Opcode,
)
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields as fields_of
from halfdome.hdl.descriptors import pack
from halfdome.hdl.engine import Activity
from halfdome.sim.golden import pairs, sums
from halfdome.sim.golden.matmul import pack_params
from halfdome.sim.golden.pool import average_constants, average_pool, max_pool
from halfdome.sim.golden.vector import decode, lookup, result
from tests.bench import get, monitor, put, simulate

UNTOUCHED = 0x5A
SOURCES = tuple(ElementFormat)
OUTPUTS = tuple(element for element in ElementFormat if element is not ElementFormat.INT32)
PAIRS = (Opcode.ADD_QUANTISED, Opcode.MULTIPLY_QUANTISED)
TWO_SOURCES = (Opcode.ADD, Opcode.MULTIPLY)

_SPECIAL = np.float32(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 0.5, 1.5, 2.5,
     -0.5, -1.5, 127.5, 128.5, 254.5, 255.5, 256.0, -256.5, 2.0**31, -(2.0**31), 2.0**32, 2.0**63]
)  # fmt: skip
_NUMPY = {ElementFormat.FLOAT16: np.float16, ElementFormat.FLOAT32: np.float32}


def bits(x: float) -> int:
    """A float32 as a descriptor carries it."""
    return int(np.float32(x).view(np.uint32))


def elements(element: ElementFormat, rows: int, columns: int, rng) -> np.ndarray:
    """uint8[rows, columns * nbytes] of an element format: any integers, floats of every kind."""
    if element not in _NUMPY:
        return rng.integers(0, 256, (rows, columns * element.nbytes), np.uint8)
    x = (rng.normal(size=(rows, columns)) * rng.choice([0.1, 1, 5, 100, 1e30])).astype(np.float32)
    special = rng.random((rows, columns)) < 0.2
    x[special] = rng.choice(_SPECIAL, special.sum())
    with np.errstate(all="ignore"):
        return x.astype(_NUMPY[element]).view(np.uint8).reshape(rows, -1)


class Job:
    """One command whose operands follow each other from `position` of a memory."""

    def __init__(
        self, memory, config, position, rng, opcode, *, rows, columns, function=Function.IDENTITY,
        flags=0, a_format=ElementFormat.FLOAT32, b_format=ElementFormat.FLOAT32,
        y_format=ElementFormat.FLOAT32, same_row=False, gap=0, in_place=None, **constants,
    ):  # fmt: skip
        bus = config.bus_bytes

        def stride(size):
            return -(-size // bus) * bus + gap * bus

        width = 1 if flags & (Flag.SUM | Flag.MAX) else columns
        a_raw = elements(a_format, rows, columns, rng)
        fields = {"a": position, "a_stride": stride(a_raw.shape[1])}
        end = position + rows * fields["a_stride"]
        placed = [(position, fields["a_stride"], a_raw)]
        a = decode(a_raw, a_format, constants.get("a_zero_point", 0))
        b = None
        if opcode in TWO_SOURCES:
            b_columns = 1 if flags & Flag.BROADCAST else columns
            b_raw = elements(b_format, 1 if same_row else rows, b_columns, rng)
            fields |= {"b": end, "b_format": b_format}
            fields["b_stride"] = 0 if same_row else stride(b_raw.shape[1])
            placed.append((end, fields["b_stride"], b_raw))
            end += len(b_raw) * stride(b_raw.shape[1])
            b = decode(b_raw, b_format, constants.get("b_zero_point", 0))
        y_stride = fields[f"{in_place}_stride"] if in_place else stride(width * y_format.nbytes)
        fields |= {"y": fields[in_place] if in_place else end, "y_stride": y_stride}
        if not in_place:
            end += rows * y_stride
        self.end = end
        for start, step, raw in placed:
            for row, values in enumerate(raw):
                memory.data[start + row * step :][: values.size] = values
        self.values = {
            "rows": rows, "columns": columns, "flags": int(flags), "function": function,
            "a_format": a_format, "y_format": y_format, "y_zero_point": 0, **fields, **constants,
        }  # fmt: skip
        known = {field.name for field in fields_of(opcode)}
        y = result(opcode, self.values | {"opcode": opcode}, a, b, config.vector_lanes)
        self.y = y
        self.where = slice(self.values["y"], self.values["y"] + rows * y_stride)
        if not in_place:
            memory.data[self.where] = UNTOUCHED
        self.image = memory.data[self.where].copy()
        for row, values in enumerate(y):
            raw = np.ascontiguousarray(values).view(np.uint8)
            self.image[row * y_stride :][: raw.size] = raw
        named = {name: value for name, value in self.values.items() if name in known}
        self.descriptor = int.from_bytes(pack(opcode, **named), "little")


class LookupJob:
    """A LOOKUP with its table, and operands that follow it from `position` of a memory."""

    def __init__(self, memory, config, position, rng, *, rows, columns, gap=0, in_place=False):
        bus = config.bus_bytes
        stride = -(-columns // bus) * bus
        a_stride, y_stride = stride + gap * bus, stride + (0 if in_place else 2 * gap * bus)
        a = position + max(TABLE_BYTES, bus)
        y = a if in_place else a + rows * a_stride
        y_stride = a_stride if in_place else y_stride
        self.end = y + rows * y_stride
        table = rng.integers(0, 256, TABLE_BYTES, np.uint8)
        x = rng.integers(0, 256, (rows, columns), np.uint8)
        memory.data[position : position + TABLE_BYTES] = table
        memory.data[a : self.end] = UNTOUCHED
        for row, values in enumerate(x):
            memory.data[a + row * a_stride :][:columns] = values
        self.where = slice(y, self.end)
        self.image = memory.data[self.where].copy()
        for row, values in enumerate(lookup(x, table)):
            self.image[row * y_stride :][:columns] = values
        self.values = {
            "rows": rows, "columns": columns, "a": a, "a_stride": a_stride, "y": y,
            "y_stride": y_stride, "table": position,
        }  # fmt: skip
        self.descriptor = int.from_bytes(pack(Opcode.LOOKUP, **self.values), "little")


def random_pair_constants(opcode: Opcode, rng) -> dict[str, int]:
    """Fields of an ADD_QUANTISED or MULTIPLY_QUANTISED but for its operands: floats of all sizes,
    those of layers, and those that make ties."""

    def number(exponents: range) -> float:
        significand = rng.choice([1, 1.5, 1 + int(rng.integers(128)) / 128, 1 + rng.random()])
        exponent = int(rng.integers(exponents.start, exponents.stop))
        return float(significand * 2.0**exponent * rng.choice([1, 1, 1, -1]))

    values = {f"{name}_format": int(rng.integers(2)) for name in "aby"} | {"flags": 0}
    zeros = {f"{name}_zero_point": int(rng.integers(256)) for name in "aby"}
    near = range(-7, 1)
    if opcode is Opcode.MULTIPLY_QUANTISED:
        exponents = MULTIPLIER_EXPONENTS if rng.integers(2) else range(-10, -6)
        return values | zeros | {"multiplier": bits(number(exponents))}
    ratios = [number(near if rng.integers(2) else RATIO_EXPONENTS) for _ in "ab"]
    a, b, y = (zeros[f"{name}_zero_point"] - 128 * values[f"{name}_format"] for name in "aby")
    offset = rng.choice([
        0.0, y - (ratios[0] * a + ratios[1] * b), y - int(rng.integers(512)) / 2,
        number(range(-50, -10)), number(near), number(range(-149, 17)),
    ])  # fmt: skip
    values["flags"] = int(rng.choice([0, Flag.INNER_A]))
    return values | {
        "a_ratio": bits(ratios[0]), "b_ratio": bits(ratios[1]), "offset": bits(offset)
    }  # fmt: skip


class PairJob:
    """An ADD_QUANTISED or MULTIPLY_QUANTISED whose operands follow each other from `position`."""

    def __init__(
        self, memory, config, position, rng, opcode, *, rows, columns, gap=0, in_place=None,
        same_row=False, broadcast=False, **constants,
    ):  # fmt: skip
        bus = config.bus_bytes
        b_rows, b_columns = 1 if same_row else rows, 1 if broadcast else columns
        stride, b_stride = (-(-width // bus) * bus + gap * bus for width in (columns, b_columns))
        b = position + rows * stride
        end = b + b_rows * b_stride
        places = {"a": (position, stride), "b": (b, b_stride), None: (end, stride + gap * bus)}
        y, y_stride = places[in_place]
        self.end = end if in_place else end + rows * y_stride
        memory.data[position : self.end] = UNTOUCHED
        left = rng.integers(0, 256, (rows, columns), np.uint8)
        right = rng.integers(0, 256, (b_rows, b_columns), np.uint8)
        for start, step, matrix in ((position, stride, left), (b, b_stride, right)):
            for row, values in enumerate(matrix):
                memory.data[start + row * step :][: values.size] = values
        self.values = random_pair_constants(opcode, rng) | constants | {
            "rows": rows, "columns": columns, "a": position, "a_stride": stride, "b": b,
            "b_stride": 0 if same_row else b_stride, "y": y, "y_stride": y_stride,
        }  # fmt: skip
        self.values["flags"] |= int(Flag.BROADCAST) if broadcast else 0
        self.where = slice(y, y + rows * y_stride)
        self.image = memory.data[self.where].copy()
        for row, values in enumerate(pairs.result(opcode, self.values, left, right)):
            self.image[row * y_stride :][:columns] = values.view(np.uint8)
        self.descriptor = int.from_bytes(pack(opcode, **self.values), "little")


class PoolJob:
    """A POOL of random bytes whose output follows its input from `position` of a memory."""

    opcode = Opcode.POOL

    def __init__(
        self, memory, config, position, rng, *, size, k, out, kernel, stride=(1, 1), pad=(0, 0),
        dilation=(1, 1), signed=False, gap=0, **constants,
    ):  # fmt: skip
        bus = config.bus_bytes
        pixel = -(-k // bus) * bus
        x_stride, y_stride = pixel + gap * bus, pixel + 2 * gap * bus
        y = position + size[0] * size[1] * x_stride
        self.end = y + out[0] * out[1] * y_stride
        memory.data[position : self.end] = UNTOUCHED
        x = rng.integers(0, 256, (size[0] * size[1], k), np.uint8)
        for pixel, values in enumerate(x):
            memory.data[position + pixel * x_stride :][:k] = values
        self.where = slice(y, self.end)
        self.image = memory.data[self.where].copy()
        self.sides = {"size": size, "out": out, "kernel": kernel, "stride": stride, "pad": pad,
                      "dilation": dilation}  # fmt: skip
        self.values = {
            "x": position, "y": y, "k": k, "x_stride": x_stride, "y_stride": y_stride,
            "flags": int(Flag.X_INT8) if signed else 0, "height": size[0], "width": size[1],
            "pad_top": pad[0], "pad_left": pad[1],
        }  # fmt: skip
        for name in ("out", "kernel", "stride", "dilation"):
            for side, value in zip(("height", "width"), self.sides[name], strict=True):
                self.values[f"{name}_{side}"] = value
        self._constants(rng, **constants)
        result = self._result(
            x.view(np.int8 if signed else np.uint8).reshape(*size, k),
            out=out, kernel=kernel, stride=stride, pad=pad, dilation=dilation,
        )  # fmt: skip
        for pixel, values in enumerate(result.view(np.uint8).reshape(-1, k)):
            self.image[pixel * y_stride :][:k] = values
        self.descriptor = int.from_bytes(pack(self.opcode, **self.values), "little")

    def _constants(self, rng):
        """Fields that do not tell of operands or windows: none."""

    def _result(self, x, **sides):
        return max_pool(x, **sides)


class AverageJob(PoolJob):
    """An AVERAGE likewise, of random scales unless they are given."""

    opcode = Opcode.AVERAGE

    def _constants(self, rng, x_scale=None, y_scale=None, y_int8=False, outside=False):
        """Scales of layers, those that make ties, and far ones."""
        x_scale = rng.random() + 0.01 if x_scale is None else x_scale
        if y_scale is None:
            near = rng.choice([0.25, 0.5, 1.0, 2.0, rng.random() + 0.05])
            y_scale = x_scale * near * 2.0 ** rng.choice([0, 0, 0, rng.integers(-30, 30)])
        self.values |= {
            "x_scale": bits(x_scale), "y_scale": bits(y_scale), "y_format": int(y_int8),
            **{f"{name}_zero_point": int(rng.integers(256)) for name in "xy"},
        }  # fmt: skip
        self.values["flags"] |= int(Flag.OUTSIDE) if outside else 0

    def _result(self, x, **sides):
        return average_pool(x, **sides, **average_constants(self.values))


class SumsJob:
    """A DEPTHWISE whose operands follow its output from `position` of a memory."""

    def __init__(
        self, memory, config: CardConfig, position, rng, *, size, k, out, kernel, stride=(1, 1),
        pad=(0, 0), dilation=(1, 1), flags=0, y_format=ElementFormat.UINT8, gap=0,
        multiplier=None,
    ):  # fmt: skip
        bus = config.bus_bytes
        pixel = -(-k // bus) * bus
        self.sides = {"size": size, "out": out, "kernel": kernel, "stride": stride, "pad": pad,
                      "dilation": dilation}  # fmt: skip
        self.values = {
            "k": k, "x_stride": pixel + gap * bus, "y_stride": pixel + 2 * gap * bus,
            "flags": int(flags), "height": size[0], "width": size[1],
            "pad_top": pad[0], "pad_left": pad[1], "y_format": y_format,
            **{f"{name}_zero_point": int(rng.integers(256)) for name in "xwy"},
        }  # fmt: skip
        for name in ("out", "kernel", "stride", "dilation"):
            for side, value in zip(("height", "width"), self.sides[name], strict=True):
                self.values[f"{name}_{side}"] = value
        params = -(-8 * k // bus) * bus
        lengths = {
            "x": size[0] * size[1] * self.values["x_stride"],
            "y": out[0] * out[1] * self.values["y_stride"],
            "w": 0 if flags & Flag.ONES else kernel[0] * kernel[1] * pixel,
            "params": params,
        }
        self.end = position
        for name, length in lengths.items():
            self.values[name] = self.end
            self.end += length
        memory.data[position : self.end] = rng.integers(0, 256, self.end - position, np.uint8)
        if multiplier is None:
            spread = 30 * np.sqrt(kernel[0] * kernel[1]) * (1 if flags & Flag.ONES else 60)
            multiplier = rng.normal(size=k).astype(np.float32) / np.float32(spread)
        bias = rng.integers(-(2**12), 2**12, k).astype(np.int32)
        bias[rng.random(k) < 0.05] = 2**31 - 1  # some sums wrap
        memory.data[self.values["params"] :][: 8 * k] = pack_params(bias, multiplier)

        after = memory.data.copy()
        self.outcome = sums.execute(self.values, after, config)
        self.where = slice(self.values["y"], self.values["y"] + lengths["y"])
        self.image = after[self.where]
        self.descriptor = int.from_bytes(pack(Opcode.DEPTHWISE, **self.values), "little")


def random_windows(rng) -> dict:
    """Sides of a random POOL: every window has a tap inside the image."""
    sides = {name: [] for name in ("size", "out", "kernel", "stride", "pad", "dilation")}
    for _ in range(2):
        size, kernel, stride = (int(rng.integers(1, most)) for most in (7, 4, 4))
        dilation = int(rng.integers(1, 3))
        pad = int(rng.integers((kernel - 1) * dilation + 1)) if dilation <= size else 0
        out = int(rng.integers(1, (size + pad - 1) // stride + 2))
        for name, value in zip(sides, (size, out, kernel, stride, pad, dilation), strict=True):
            sides[name].append(value)
    return {name: tuple(pair) for name, pair in sides.items()}


def random_job(
    memory, config, position, rng, opcode, rows, columns, **fixed
) -> Job | LookupJob | PairJob | PoolJob | SumsJob:
    """A job of random formats, function, reduction and constants, but for what is `fixed`."""
    if opcode is Opcode.LOOKUP:
        gap, in_place = int(rng.integers(2)), bool(rng.integers(2))
        return LookupJob(
            memory, config, position, rng, rows=rows, columns=columns, gap=gap, in_place=in_place
        )
    if opcode in PAIRS:
        same_row, broadcast = (bool(rng.integers(3) == 0) for _ in range(2))
        places = [None, "a"] if same_row or broadcast or rows == 1 else [None, "a", "b"]
        return PairJob(
            memory, config, position, rng, opcode, rows=rows, columns=columns,
            gap=int(rng.integers(2)), same_row=same_row, broadcast=broadcast,
            in_place=places[rng.integers(len(places))], **fixed,
        )  # fmt: skip
    if opcode is Opcode.POOL:
        gap, signed = int(rng.integers(2)), bool(rng.integers(2))
        return PoolJob(
            memory, config, position, rng, k=columns, gap=gap, signed=signed, **random_windows(rng)
        )
    if opcode is Opcode.AVERAGE:
        choices = {name: bool(rng.integers(2)) for name in ("signed", "y_int8", "outside")}
        return AverageJob(
            memory, config, position, rng, k=columns, gap=int(rng.integers(2)),
            **random_windows(rng), **choices, **fixed,
        )  # fmt: skip
    if opcode is Opcode.DEPTHWISE:
        fixed = {
            "gap": int(rng.integers(2)),
            "flags": int(rng.integers(16)),
            "y_format": rng.choice([ElementFormat.UINT8, ElementFormat.INT8]),
            **random_windows(rng),
            **fixed,
        }
        return SumsJob(memory, config, position, rng, k=columns, **fixed)
    choices: dict = {
        "function": rng.choice(list(Function)),
        "flags": int(rng.choice([0, 0, Flag.SUM, Flag.MAX])),
        "a_format": rng.choice(SOURCES),
        "y_format": rng.choice(OUTPUTS),
        "multiplier": bits(rng.choice([1.0, 0.7, -3.0, 1e-40, 1 / 255])),
        "a_zero_point": int(rng.integers(256)),
        "y_zero_point": int(rng.integers(256)),
        "gap": int(rng.integers(2)),
    }
    some = [1.0, -1.0, 0.01, 1e-3, 1e30]
    if opcode in TWO_SOURCES:
        choices |= {
            "b_format": rng.choice(SOURCES),
            "b_zero_point": int(rng.integers(256)),
            "same_row": bool(rng.integers(2)),
        }
        choices["flags"] |= int(rng.choice([0, Flag.BROADCAST]))
    if opcode in (Opcode.AFFINE, Opcode.ADD):
        choices["scale"] = bits(rng.choice(some))
    if opcode in (Opcode.AFFINE, Opcode.MULTIPLY):
        choices["shift"] = bits(rng.choice([0.0, -0.0, 0.5, -3e5]))
    if opcode is Opcode.CLAMP:
        choices |= {"low": bits(rng.choice([-np.inf, -6, 0.0, -0.0])), "high": bits(6.0)}
    if opcode is Opcode.QUANTISE:
        choices |= {"function": Function.IDENTITY, "flags": 0, "y_format": rng.integers(2)}
        choices["scale"] = bits(rng.choice([1.0, 0.1, 3e-3, 1.2e-38, 2e30]))
    choices = {name: getattr(value, "item", lambda v=value: v)() for name, value in choices.items()}
    for name, kind in (("function", Function), *((f"{x}_format", ElementFormat) for x in "aby")):
        if name in choices:
            choices[name] = kind(choices[name])
    return Job(memory, config, position, rng, opcode, rows=rows, columns=columns, **choices | fixed)


def run(dut, inputs, output, jobs, background=()):
    """Runs `jobs` one after another and compares their outputs; returns the cycles of each.

    Both memories are views of the same bytes.
    """
    output.data = inputs.data
    durations = []
    clock = [0]

    async def host(ctx):
        for job in jobs:
            await put(ctx, dut.command, job.descriptor)
            start = clock[0]
            outcome = await get(ctx, dut.result)
            durations.append(clock[0] - start)
            assert (outcome.status, outcome.detail) == getattr(job, "outcome", (0, 0))
            np.testing.assert_array_equal(inputs.data[job.where], job.image, str(job.values))

    async def count(ctx):
        while True:
            await ctx.tick()
            clock[0] += 1

    simulate(
        dut,
        host,
        background=[
            count,
            inputs.read_port(dut.a),
            inputs.read_port(dut.b),
            output.write_port(dut.y),
            *(monitor(port.request, name) for name, port in
              (("a", dut.a), ("b", dut.b), ("y", dut.y))),
            monitor(dut.result, "result"),
            *background,
        ],
    )  # fmt: skip
    return durations


def transits(dut):
    """The cycles in which `a` is answered, those in which `y` is offered a word, and who fills both
    lists."""
    answers, writes = [], []

    async def watch(ctx):
        cycle = 0
        while True:
            _, _, word, write = await ctx.tick().sample(dut.a.response.valid, dut.y.request.valid)
            answers.extend([cycle] * word)
            writes.extend([cycle] * write)
            cycle += 1

    return answers, writes, watch


def mostly(dut, inputs, output, job):
    """Runs a job; the `Activity` that the engine has in most cycles in which it is not idle."""
    counts = Counter()

    async def count(ctx):
        while True:
            _, _, activity = await ctx.tick().sample(dut.activity)
            counts[Activity(activity)] += 1

    run(dut, inputs, output, [job], background=[count])
    del counts[Activity.IDLE]
    return max(counts, key=counts.__getitem__)
