"""Matrix products for tests: operands in a memory, a descriptor, what must be there after it."""

import numpy as np

from halfdome.hdl.commands import ElementFormat, Flag, Opcode, Status
from halfdome.hdl.descriptors import fields, pack, unpack
from halfdome.hdl.engine import Activity
from halfdome.hdl.matmul.engine import MatmulEngine
from halfdome.sim.golden.matmul import pack_params, pack_weights
from halfdome.sim.golden.products import execute
from tests.bench import Memory, get, monitor, put, simulate

PORTS = ("x", "w", "params", "y")


def round_up(value, multiple):
    return -(-value // multiple) * multiple


class CardMemory(Memory):
    """A memory full of noise that hands out word-aligned pieces of itself, at random gaps."""

    def __init__(self, config, size, *, seed=0, **timing):
        super().__init__(config, size, seed=seed, **timing)
        self.rng = np.random.default_rng(seed)
        self.data[:] = self.rng.integers(0, 256, size)
        self.top = 3 * config.bus_bytes

    def allocate(self, size):
        word = self.config.bus_bytes
        start = self.top + word * int(self.rng.integers(0, 3))
        self.top = start + round_up(size, word)
        assert self.top <= len(self.data)
        return start

    def place(self, values):
        """The address at which `values` now lie."""
        raw = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        address = self.allocate(raw.size)
        self.data[address : address + raw.size] = raw
        return address


class Job:
    """A descriptor whose operands are in `memory`; `extreme` takes them from ends of their ranges.

    `formats`: `Flag` bits X_INT8, W_UINT8 and RELU, and `y_format`.
    """

    def __init__(self, memory, opcode, *, flags=0, y_format=ElementFormat.UINT8, extreme=False):
        self.memory = memory
        self.config = memory.config
        self.rng = memory.rng
        self.opcode = opcode
        self.extreme = extreme
        self.y_bytes = 4 if y_format == ElementFormat.INT32 else 1
        relu = 0 if y_format == ElementFormat.INT32 else flags & Flag.RELU
        self.values = {
            "flags": flags & ~Flag.RELU | relu,
            "y_format": y_format,
            **{f"{name}_zero_point": self._zero_point() for name in "xwy"},
        }

    def _zero_point(self):
        return int(
            self.rng.choice([0, 1, 127, 128, 255]) if self.extreme else self.rng.integers(256)
        )

    def operand(self, shape):
        """8-bit operands; what they mean is up to the flags."""
        if self.extreme:
            return self.rng.choice(np.array([0, 127, 128, 255], np.uint8), shape)
        return self.rng.integers(0, 256, shape, np.uint8)

    def stride(self, row_bytes):
        word = self.config.bus_bytes
        return word * (-(-row_bytes // word) + int(self.rng.integers(0, 2)))

    def rows(self, *shape):
        """Address and stride of an operand whose rows lie apart; after the last lies nothing."""
        rows, size = int(np.prod(shape[:-1])), shape[-1]
        stride = self.stride(size)
        raw = self.rng.integers(0, 256, (rows, stride), np.uint8)
        raw[:, :size] = self.operand((rows, size))
        return self.memory.place(raw.reshape(-1)[: (rows - 1) * stride + size]), stride

    def params(self, n, k):
        bias = self.rng.integers(-20000, 20000, n, np.int32)
        multiplier = (self.rng.uniform(0.2, 1.5, n) / (80 * np.sqrt(k))).astype(np.float32)
        if self.extreme:
            bias = self.rng.choice(np.array([-(2**31), 0, 2**31 - 1], np.int32), n)
            multiplier = self.rng.choice(np.array([1e-9, -1e-4, 1.0, 3e38], np.float32), n)
        self.values["params"] = self.memory.place(pack_params(bias, multiplier))

    def output(self, rows, n):
        stride = self.stride(n * self.y_bytes)
        self.values["y"] = self.memory.allocate((rows - 1) * stride + n * self.y_bytes)
        self.values["y_stride"] = stride
        return stride

    @property
    def descriptor(self):
        return pack(self.opcode, **self.values)

    def expect(self, memory):
        """What the job does to a copy of memory; its status and detail."""
        return execute(
            self.opcode, unpack(fields(self.opcode), self.descriptor), memory, self.config
        )


def matmul(memory, m, k, n, **options):
    job = Job(memory, Opcode.MATMUL, **options)
    x, x_stride = job.rows(m, k)
    w = memory.place(pack_weights(job.operand((k, n)), memory.config))
    job.params(n, k)
    job.output(m, n)
    job.values |= {"x": x, "x_stride": x_stride, "w": w, "m": m, "k": k, "n": n}
    return job


def batch_matmul(memory, batches, m, k, n, *, flags=0, **options):
    triangle = bool(flags & Flag.TRIANGLE)
    job = Job(memory, Opcode.BATCH_MATMUL, flags=flags, **options)
    x, x_stride = job.rows(batches, m, k)
    w_shape = (n, k) if flags & Flag.TRANSPOSED else (k, n)
    w, w_stride = job.rows(batches, *w_shape)
    job.params(n, k)
    y_stride = job.output(batches * m, n)
    y_batch_stride = m * y_stride
    if triangle:
        job.values["y"] += int(job.rng.integers(0, memory.config.bus_bytes))
        y_batch_stride = n * (n - 1) // 2 + int(job.rng.integers(0, 5))
        # Rows of the triangle lie where the square ones would.
    job.values |= {
        "x": x, "x_stride": x_stride, "x_batch_stride": m * x_stride,
        "w": w, "w_stride": w_stride, "w_batch_stride": w_shape[0] * w_stride,
        "y_batch_stride": y_batch_stride, "m": m, "k": k, "n": n, "batches": batches,
    }  # fmt: skip
    return job


def conv2d(memory, size, k, n, *, kernel, stride=(1, 1), pad=(0, 0), dilation=(1, 1), **options):
    """`pad` rows above and below, columns left and right."""
    job = Job(memory, Opcode.CONV2D, **options)
    out = [
        (size[axis] + 2 * pad[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]
    x, x_stride = job.rows(*size, k)
    taps = job.operand((kernel[0] * kernel[1], k, n))
    diagonal = bool(job.values["flags"] & Flag.DIAGONAL)
    w = memory.place(pack_weights(taps, memory.config, diagonal=diagonal))
    job.params(n, k * kernel[0] * kernel[1])
    job.output(out[0] * out[1], n)
    sides = {"kernel": kernel, "stride": stride, "dilation": dilation}
    job.values |= {
        f"{name}_{side}": value
        for name, pair in sides.items()
        for side, value in zip(("height", "width"), pair, strict=True)
    }
    job.values |= {
        "x": x, "x_stride": x_stride, "w": w, "k": k, "n": n, "height": size[0], "width": size[1],
        "out_height": out[0], "out_width": out[1], "pad_top": pad[0], "pad_left": pad[1],
    }  # fmt: skip
    return job


def run(config, memory, jobs, *, slow=None):
    """Runs the jobs one after the other; no read may go past the last operand.

    The port called `slow` has a memory that stalls most of the time. Returns the unit, the cycles
    of each command, and how often each activity was seen.
    """
    dut = MatmulEngine(config)
    memory.data = memory.data[: memory.top]
    lame = CardMemory(config, memory.top, stall=0.9, latency=(2, 2))
    lame.data = memory.data
    at = {port: lame if port == slow else memory for port in PORTS}
    expected = memory.data.copy()
    durations = []
    activities = dict.fromkeys(Activity, 0)
    clock = 0

    async def host(ctx):
        for job in jobs:
            status, detail = job.expect(expected)
            await put(ctx, dut.command, int.from_bytes(job.descriptor, "little"))
            begin = clock
            result = await get(ctx, dut.result)
            durations.append(clock - begin)
            assert (Status(result.status), result.detail) == (status, detail)
            np.testing.assert_array_equal(memory.data, expected)

    async def count(ctx):
        nonlocal clock
        while True:
            _, _, activity = await ctx.tick().sample(dut.activity)
            activities[Activity(activity)] += 1
            clock += 1

    simulate(
        dut,
        host,
        background=[
            count,
            *(at[name].read_port(getattr(dut, name)) for name in PORTS[:3]),
            at["y"].write_port(dut.y),
            *(monitor(getattr(dut, name).request, name) for name in PORTS),
            monitor(dut.result, "result"),
        ],
    )
    return dut, durations, activities
