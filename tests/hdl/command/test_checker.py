"""The descriptor checker agrees with its golden twin on every descriptor."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.command.checker import DescriptorChecker
from halfdome.hdl.command.range_checker import TAIL_BITS, RangeChecker
from halfdome.hdl.command.rules.elements import VECTOR
from halfdome.hdl.commands import Engine, Flag, Opcode, Status
from halfdome.hdl.config import PICO, PRESETS
from halfdome.hdl.descriptors import EXTENSION, NO_COUNTER, fields, pack, unpack
from halfdome.sim.golden.check import check
from tests.bench import as_dict, get, monitor, put, simulate, sink
from tests.hdl.command.descriptors import GOOD, mutated, noise, slots

TINY = PRESETS["tiny"]
WIDE = TINY.replace(cores=3, scratchpad_bytes=1 << 21, counters=128)


def slot(raw: bytes, core: int = 0) -> dict[str, int]:
    return {"bits": int.from_bytes(raw, "little"), "core": core}


def core_of(place: int, config) -> int:
    """In whose ring a command is."""
    return place % config.cores


def ring(stream, descriptors, config, *, seed, stall):
    """Passes commands on one by one, the slots of each one after the other."""
    rng = random.Random(seed)

    async def bench(ctx):
        for place, raw in enumerate(descriptors):
            while rng.random() < stall:
                await ctx.tick()
            for bits in slots([raw]):
                await put(ctx, stream, slot(bits, core_of(place, config)))

    return bench


def run_checker(config, descriptors, *, seed=0, stall=0.0):
    dut = DescriptorChecker(config)
    received = []
    simulate(
        dut,
        ring(dut.i, descriptors, config, seed=seed, stall=stall),
        sink(dut.o, len(descriptors), received, seed=seed + 1, stall=stall),
        background=[monitor(dut.o)],
        cycles=100 * len(descriptors) + 100,
    )
    return [as_dict(p.shape(), p) for p in received]


def compare(config, descriptors, **options):
    received = run_checker(config, descriptors, **options)
    for place, (raw, out) in enumerate(zip(descriptors, received, strict=True)):
        core = core_of(place, config)
        status, detail = check(raw, config, core)
        assert (Status(out["status"]).name, out["detail"]) == (status.name, detail), raw.hex()
        assert out["descriptor"].to_bytes(64, "little") == raw[:64]
        second = out["second"]["counter"], out["second"]["value"]
        if len(raw) == 64:
            assert second[0] == NO_COUNTER
        else:
            wait = unpack(EXTENSION, raw[64:])
            assert second == (wait["second_wait_counter"], wait["second_wait_value"])
        engine = raw[0] >> 4
        assert out["engine"] == (engine if engine < len(Engine) else Engine.LOAD)
        assert out["core"] == core


@pytest.mark.parametrize("config", [TINY, WIDE], ids=["tiny", "wide"])
def test_a_thousand_mutated_descriptors_get_the_golden_verdict(config):
    rng = random.Random(1)
    descriptors = [mutated(rng, config) for _ in range(1000)]
    for place, raw in enumerate(descriptors):
        if raw[4] == 0:
            descriptors[place] = raw[:4] + bytes([core_of(place, config)]) + raw[5:]
    verdicts = {
        check(raw, config, core_of(place, config))[0] for place, raw in enumerate(descriptors)
    }
    assert verdicts >= {Status(i) for i in range(1, 8)} - {Status.BAD_OPCODE} | {Status.OK}
    compare(config, descriptors)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.7]))
def test_noise_gets_the_golden_verdict(seed, stall):
    rng = random.Random(seed)
    descriptors = [rng.choice((noise, mutated))(rng) for _ in range(12)]
    compare(TINY, descriptors, seed=seed, stall=stall)


def test_operands_side_by_side_get_the_golden_verdict():
    rng = random.Random(3)
    descriptors = []
    for _ in range(600):
        opcode = rng.choice(VECTOR)
        values = GOOD[opcode] | {
            "rows": rng.choice((1, 2, 3)), "columns": rng.choice((1, 8, 20)),
            "flags": rng.choice((0, 0, 1)), "y": 0x5000 + 16 * rng.randint(-6, 6),
        }  # fmt: skip
        strides = rng.choice([(80, 80, 80), (80, 96, 80), (160, 160, 0)])
        values |= dict(zip(("y_stride", "a_stride", "b_stride"), strides, strict=True))
        values["b"] = 0x5000 + 16 * rng.randint(-12, 12)
        known = {field.name for field in fields(opcode)}
        descriptors.append(pack(opcode, **{k: v for k, v in values.items() if k in known}))
    verdicts = [check(raw, TINY)[0] for raw in descriptors]
    assert min(map(verdicts.count, (Status.OK, Status.BAD_OVERLAP))) > 100
    compare(TINY, descriptors)


def test_copies_and_pooled_rows_beside_what_they_read_get_the_golden_verdict():
    rng = random.Random(4)
    descriptors = []
    for _ in range(150):
        strides = rng.choice([(64, 64), (64, 48), (128, 128)])
        values = {"rows": rng.choice((1, 2, 5)), "row_bytes": rng.choice((16, 40, 48))}
        values |= dict(zip(("source_stride", "destination_stride"), strides, strict=True))
        values |= {"source": 0x5000, "destination": 0x5000 + 16 * rng.randint(-20, 20)}
        descriptors.append(pack(Opcode.COPY, **values))
    for _ in range(150):
        strides = rng.choice([(40, 40), (100, 100), (200, 200)])
        values = GOOD[Opcode.GATHER] | {
            "rows": rng.choice((1, 4)), "bags": rng.choice((1, 4)), "dim": 8,
            "index_count": rng.choice((0, 20)), "flags": rng.choice((0, Flag.WEIGHTED)),
        }  # fmt: skip
        values |= dict(zip(("row_stride", "output_stride"), strides, strict=True))
        beside = rng.choice(["table", "indices", "lengths", "weights"])
        values["output"] = values[beside] + rng.randint(-200, 200)
        descriptors.append(pack(Opcode.GATHER, **values))
    verdicts = [check(raw, TINY)[0] for raw in descriptors]
    assert min(map(verdicts.count, (Status.OK, Status.BAD_OVERLAP))) > 50
    compare(TINY, descriptors)


def test_bytes_and_tables_beside_each_other_get_the_golden_verdict():
    rng = random.Random(5)
    descriptors = []
    for _ in range(200):
        values = GOOD[Opcode.LOOKUP] | {"rows": rng.choice((1, 2, 4)), "y": 0x5000}
        values |= {"columns": rng.choice((1, 20, 256, 300)), "a_stride": 304}
        values["y_stride"] = rng.choice((304, 304, 320))
        moved, other = rng.sample(["a", "table"], 2)
        values[moved] = 0x5000 + rng.choice((0, 0, 16 * rng.randint(-24, 24)))
        values[other] = 0x9000
        descriptors.append(pack(Opcode.LOOKUP, **values))
    verdicts = [check(raw, TINY)[0] for raw in descriptors]
    assert min(map(verdicts.count, (Status.OK, Status.BAD_OVERLAP))) > 40
    compare(TINY, descriptors)


def test_a_triangle_without_output_overlaps_nothing():
    one = GOOD[Opcode.BATCH_MATMUL] | {"m": 1, "n": 1, "flags": Flag.TRIANGLE}
    compare(TINY, [pack(Opcode.BATCH_MATMUL, **one | {"y": y}) for y in (0x6001, 0x7000, 1 << 39)])


@pytest.mark.parametrize(("array", "possible"), [((4, 4), True), ((2, 4), False), ((2, 2), False)])
def test_diagonals_are_refused_where_they_fill_no_word_or_the_array_is_no_square(array, possible):
    rows, columns = array
    held = 32 if possible else 8
    config = TINY.replace(array_rows=rows, array_columns=columns, accumulator_rows=held)
    good = GOOD[Opcode.CONV2D] | {"flags": Flag.DIAGONAL, "k": 9}
    expected = Status.OK if possible else Status.BAD_FORMAT
    changes = ({}, {"k": 10}, {"w": config.dram_bytes - 288}, {"w": config.dram_bytes - 272})
    descriptors = [pack(Opcode.CONV2D, **good | change) for change in changes]
    assert check(descriptors[0], config)[0] is expected
    compare(config, descriptors)


def test_the_largest_preset_is_checked_too():
    rng = random.Random(2)
    compare(PRESETS["m2"], [mutated(rng, PRESETS["m2"]) for _ in range(100)])


@pytest.mark.parametrize("opcode", Opcode)
def test_latency_is_as_stated(opcode):
    dut = DescriptorChecker(TINY)
    operands = {"LOAD": 1, "COPY": 2, "TRANSPOSE": 2, "STORE": 1, "GATHER": 5,
                "MATMUL": 4, "AFFINE": 2, "ADD": 3, "MULTIPLY": 3, "CLAMP": 2, "LOOKUP": 3,
                "POOL": 2, "AVERAGE": 2, "QUANTISE": 2, "DEPTHWISE": 4, "ADD_QUANTISED": 3,
                "MULTIPLY_QUANTISED": 3, "BATCH_MATMUL": 4, "CONV2D": 4}  # fmt: skip

    async def bench(ctx):
        raw = pack(opcode, **GOOD.get(opcode, {}))
        await put(ctx, dut.i, slot(raw))
        cycles = 1
        while not ctx.get(dut.o.valid):
            await ctx.tick()
            cycles += 1
        count = operands.get(opcode.name, 0)
        assert cycles == (
            DescriptorChecker.latency + count if count else DescriptorChecker.fence_latency
        )
        assert cycles + 1 <= 16
        await get(ctx, dut.o)
        assert ctx.get(dut.idle)

    simulate(dut, bench, cycles=100)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 1 << 21)),
            st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 300)),
            st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 4000)),
            st.one_of(st.integers(0, 2**TAIL_BITS - 1), st.integers(1, 1 << 20)),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([PICO, TINY, PRESETS["m2"]]),
)
def test_ranges_are_exact(operands, config):
    dut = RangeChecker(config)
    dram, scratchpad = config.dram_bytes, config.scratchpad_bytes
    regions = [(0, dram), (dram, dram + scratchpad)]
    expected = []
    for base, steps, stride, tail in operands:
        end = base + steps * stride + tail
        inside = any(low <= base < high and end <= high for low, high in regions)
        expected.append(end if inside else None)
    seen = []

    async def bench(ctx):
        for cycle in range(len(operands) + RangeChecker.latency - 1):
            busy = cycle < len(operands)
            ctx.set(dut.i.valid, busy)
            if busy:
                names = ("base", "steps", "stride", "tail")
                ctx.set(
                    dut.i.p,
                    dict(zip(names, operands[cycle], strict=True))
                    | {"needed": 1, "detail": cycle, "core": 0},
                )
            await ctx.tick()
            assert ctx.get(dut.o.valid) == (cycle + 1 >= RangeChecker.latency)
            if ctx.get(dut.o.valid):
                assert ctx.get(dut.o.p.detail) == len(seen)
                seen.append(None if ctx.get(dut.o.p.outside) else ctx.get(dut.o.p.end))

    simulate(dut, bench)
    assert seen == expected
