"""MatmulEngine computes what the golden model computes, and keeps the array busy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdl.commands import Flag, Opcode, Status, pack
from hdl.config import PRESETS
from hdl.engine import Activity
from hdl.matmul.engine import MatmulEngine
from sim.golden.matmul import matmul, pack_params, pack_weights
from tests.bench import Memory, get, monitor, put, simulate

TINY = PRESETS["tiny"]
START_AND_DRAIN = 64


class Layer:
    """One command: its operands in memory, what must be in memory after it."""

    def __init__(self, memory, config, m, k, n, rng, *, relu=False, zero_point=0, extreme=False):
        word = config.bus_bytes
        if extreme:
            self.x = rng.choice(np.array([0, 255], np.uint8), (m, k))
            self.w = rng.choice(np.array([-128, 127], np.int8), (k, n))
            self.bias = rng.choice(np.array([-(2**31), 0, 2**31 - 1], np.int32), n)
            self.multiplier = rng.choice(np.array([1e-9, -1e-4, 1.0, 3e38], np.float32), n)
        else:
            self.x = rng.integers(0, 256, (m, k), np.uint8)
            self.w = rng.integers(-128, 128, (k, n), np.int8)
            self.bias = rng.integers(-20000, 20000, n, np.int32)
            self.multiplier = (rng.uniform(0.2, 1.5, n) / (80 * np.sqrt(k))).astype(np.float32)
        self.y = matmul(self.x, self.w, self.bias, self.multiplier, zero_point, relu)
        x_stride, y_stride = (
            word * (-(-size // word) + int(rng.integers(0, 2))) for size in (k, n)
        )
        packed = pack_weights(self.w, config)
        params = pack_params(self.bias, self.multiplier)
        x_bytes = (m - 1) * x_stride + -(-k // word) * word
        self.memory = memory
        addresses = [memory.allocate(size) for size in (x_bytes, len(packed), len(params))]
        for row in range(m):
            memory.place(addresses[0] + row * x_stride, self.x[row])
        memory.place(addresses[1], packed)
        memory.place(addresses[2], params)
        y = memory.allocate((m - 1) * y_stride + n)
        self.outputs = (y + y_stride * np.arange(m)[:, None]) + np.arange(n)
        self.descriptor = int.from_bytes(
            pack(
                Opcode.MATMUL, x=addresses[0], w=addresses[1], params=addresses[2], y=y,
                m=m, k=k, n=n, x_stride=x_stride, y_stride=y_stride,
                y_zero_point=zero_point, flags=Flag.RELU if relu else 0,
            ),
            "little",
        )  # fmt: skip


class CardMemory(Memory):
    """A memory full of noise that hands out word-aligned pieces of itself, at random gaps."""

    def __init__(self, config, size, *, seed=0, **timing):
        super().__init__(config, size, base=3 * config.bus_bytes, seed=seed, **timing)
        self.rng = np.random.default_rng(seed)
        self.data[:] = self.rng.integers(0, 256, size)
        self.top = 0

    def allocate(self, size):
        word = self.config.bus_bytes
        start = self.top + word * int(self.rng.integers(0, 3))
        self.top = start + -(-size // word) * word
        assert self.top <= len(self.data)
        return self.base + start

    def place(self, address, values):
        self.data[address - self.base : address - self.base + len(values)] = values.view(np.uint8)


def run(config, memory, layers, *, cycles=20_000):
    """Runs the layers' commands. Returns cycles of each, and how often each activity was seen."""
    dut = MatmulEngine(config)
    expected = memory.data.copy()
    for layer in layers:
        expected[layer.outputs - memory.base] = layer.y
    durations = []
    activities = dict.fromkeys(Activity, 0)
    clock = 0

    async def host(ctx):
        for layer in layers:
            await put(ctx, dut.command, layer.descriptor)
            begin = clock
            result = await get(ctx, dut.result)
            durations.append(clock - begin)
            assert result.status == Status.OK
            assert result.detail == 0
            done = memory.data[layer.outputs - memory.base]
            np.testing.assert_array_equal(done, layer.y)

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
            memory.read_port(dut.x),
            memory.read_port(dut.w),
            memory.read_port(dut.params),
            memory.write_port(dut.y),
            monitor(dut.x.request, "x"),
            monitor(dut.w.request, "w"),
            monitor(dut.params.request, "params"),
            monitor(dut.y.request, "y"),
            monitor(dut.result, "result"),
        ],
        cycles=cycles,
    )
    np.testing.assert_array_equal(memory.data, expected)
    return dut, durations, activities


def test_one():
    memory = CardMemory(TINY, 8192)
    layer = Layer(memory, TINY, 7, 9, 6, memory.rng, zero_point=3)
    print(run(TINY, memory, [layer])[1:])
