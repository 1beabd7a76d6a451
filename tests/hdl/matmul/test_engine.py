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
    """One command: its operands, in memory in any order, and what must be there after it."""

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
        sizes = {
            "x": (m - 1) * x_stride + k,
            "w": len(packed),
            "params": len(params),
            "y": (m - 1) * y_stride + n,
        }
        at = {name: memory.allocate(sizes[name]) for name in rng.permutation(list(sizes))}
        for row in range(m):
            memory.place(at["x"] + row * x_stride, self.x[row])
        memory.place(at["w"], packed)
        memory.place(at["params"], params)
        self.outputs = at["y"] + y_stride * np.arange(m)[:, None] + np.arange(n)
        self.descriptor = int.from_bytes(
            pack(
                Opcode.MATMUL, **at, m=m, k=k, n=n, x_stride=x_stride, y_stride=y_stride,
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


def run(config, memory, layers, *, slow=None):
    """Runs the layers' commands; no read may go past the last operand.

    The port called `slow` has a memory that stalls most of the time. Returns the unit, the cycles
    of each command, and how often each activity was seen.
    """
    dut = MatmulEngine(config)
    memory.data = memory.data[: memory.top]
    lame = CardMemory(config, 0, stall=0.9, latency=(2, 2))
    lame.data = memory.data
    at = {port: lame if port == slow else memory for port in ("x", "w", "params", "y")}
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
            at["x"].read_port(dut.x),
            at["w"].read_port(dut.w),
            at["params"].read_port(dut.params),
            at["y"].write_port(dut.y),
            monitor(dut.x.request, "x"),
            monitor(dut.w.request, "w"),
            monitor(dut.params.request, "params"),
            monitor(dut.y.request, "y"),
            monitor(dut.result, "result"),
        ],
    )
    np.testing.assert_array_equal(memory.data, expected)
    return dut, durations, activities


stalls = st.sampled_from([0.0, 0.3, 0.7])


@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 18), st.integers(1, 13), st.integers(1, 10)),
        min_size=1,
        max_size=2,
    ),
    relu=st.booleans(),
    zero_point=st.sampled_from([0, 1, 128, 255]),
    extreme=st.booleans(),
    stall=stalls,
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_whatever_the_sizes_and_stalls(
    sizes, relu, zero_point, extreme, stall, seed
):
    config = TINY.replace(accumulator_rows=8)
    memory = CardMemory(config, 16384, seed=seed, stall=stall)
    layers = [
        Layer(
            memory, config, m, k, n, memory.rng,
            relu=relu, zero_point=zero_point, extreme=extreme,
        )
        for m, k, n in sizes
    ]  # fmt: skip
    run(config, memory, layers)


SHAPES = [(2, 2, 16), (2, 2, 64), (2, 8, 16), (8, 2, 16), (4, 16, 16), (16, 4, 32), (8, 8, 128)]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "bus_bytes"), SHAPES)
def test_any_array_shape_and_bus_width_gives_golden_output(rows, columns, bus_bytes):
    config = TINY.replace(
        array_rows=rows, array_columns=columns, bus_bytes=bus_bytes, accumulator_rows=4
    )
    memory = CardMemory(config, 16384, seed=rows + columns, stall=0.3)
    sizes = [(1, 2 * rows + 1, 2 * columns + 1), (9, rows, columns), (2, 3 * rows, 1)]
    run(config, memory, [Layer(memory, config, *size, memory.rng) for size in sizes])


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_rows_that_return_to_their_accumulators_at_once_are_added(m, stall):
    memory = CardMemory(TINY, 8192, seed=m, stall=stall)
    run(TINY, memory, [Layer(memory, TINY, m, 100, 5, memory.rng, zero_point=128)])


def test_row_is_handed_to_memory_after_the_stated_latency():
    memory = CardMemory(TINY, 4096, latency=(2, 2))
    slow = CardMemory(TINY, 4096, latency=(40, 40))
    layer = Layer(memory, TINY, 1, 4, 4, memory.rng)
    slow.data[:] = memory.data
    dut = MatmulEngine(TINY)
    seen = {}

    async def host(ctx):
        await put(ctx, dut.command, layer.descriptor)
        await get(ctx, dut.result)

    async def watch(ctx):
        cycle = 0
        while True:
            _, _, x, y = await ctx.tick().sample(dut.x.response.valid, dut.y.request.valid)
            cycle += 1
            for name, valid in (("x", x), ("y", y)):
                if valid:
                    seen.setdefault(name, cycle)

    simulate(
        dut,
        host,
        background=[
            watch,
            slow.read_port(dut.x),
            memory.read_port(dut.w),
            memory.read_port(dut.params),
            memory.write_port(dut.y),
        ],
    )
    read_buffer = 2  # A word enters the array two cycles after it came.
    assert seen["y"] - seen["x"] == read_buffer + dut.latency


@pytest.mark.slow
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 1, 1), (1, 64, 16), (4, 32, 16), (5, 40, 12), (32, 4, 32), (16, 32, 16), (70, 9, 9)],
)
def test_cycles_are_those_of_the_array_plus_a_short_start_and_drain(m, k, n):
    memory = CardMemory(TINY, 32768, latency=(4, 4))
    dut, (taken,), activities = run(TINY, memory, [Layer(memory, TINY, m, k, n, memory.rng)])
    lower = dut.cycles(m, k, n)
    assert lower <= taken <= lower + START_AND_DRAIN
    assert activities[Activity.BLOCKED] == 0


@pytest.mark.slow
def test_large_layer_keeps_97_percent_of_the_array_busy():
    config = TINY.replace(accumulator_rows=64)
    memory = CardMemory(config, 32768, latency=(4, 4))
    _, (taken,), _ = run(config, memory, [Layer(memory, config, 64, 64, 64, memory.rng)])
    size = config.array_rows * config.array_columns
    assert 64 * 64 * 64 / (size * taken) >= 0.97


@pytest.mark.parametrize(
    ("slow", "waiting"),
    [
        ("x", Activity.STARVED),
        ("w", Activity.STARVED),
        ("params", Activity.STARVED),
        ("y", Activity.BLOCKED),
    ],
)
def test_activity_tells_which_side_is_slow(slow, waiting):
    memory = CardMemory(TINY, 16384, latency=(2, 2))
    layer = Layer(memory, TINY, 4 if slow in ("w", "params") else 8, 8, 24, memory.rng)
    _, (taken,), seen = run(TINY, memory, [layer], slow=slow)
    assert seen[Activity.IDLE] <= 2
    assert sum(seen.values()) == taken + seen[Activity.IDLE]
    assert seen[waiting] > 40
    assert seen[waiting] > 4 * seen[Activity.STARVED if slow == "y" else Activity.BLOCKED]
