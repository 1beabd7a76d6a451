"""The vector engine writes exactly the golden bytes, whatever the command and the memory do."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Flag, Function, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from halfdome.hdl.vector.engine import VectorEngine
from tests.bench import Memory
from tests.hdl.vector.jobs import (
    OUTPUTS,
    PAIRS,
    SOURCES,
    Job,
    bits,
    mostly,
    random_job,
    run,
    transits,
)

TINY = PRESETS["tiny"]
OPCODES = (Opcode.AFFINE, Opcode.ADD, Opcode.MULTIPLY, Opcode.CLAMP)
ALL = (
    *OPCODES,
    Opcode.QUANTISE,
    Opcode.LOOKUP,
    Opcode.POOL,
    Opcode.DEPTHWISE,
    Opcode.AVERAGE,
    *PAIRS,
)
PLAIN = {"multiplier": bits(1), "scale": bits(1), "shift": bits(0)}


def bench(config, seed=0, stall=0.0, write_stall=0.0, latency=(1, 12)):
    """An engine, the memory it reads and the one it writes, and a generator."""
    inputs = Memory(config, 1 << 16, seed=seed, stall=stall, latency=latency)
    output = Memory(config, 1 << 16, seed=seed + 1, stall=write_stall, latency=latency)
    return VectorEngine(config), inputs, output, np.random.default_rng(seed)


@pytest.mark.slow
@example([(Opcode.ADD, 2, 70), (Opcode.AFFINE, 3, 1)], 32, (2, 1), 0.3, 0.3, 0)
@example([(Opcode.MULTIPLY, 4, 33)], 16, (2, 1), 0.0, 0.95, 1)
@example(
    [(Opcode.LOOKUP, 2, 70), (Opcode.AFFINE, 3, 1), (Opcode.LOOKUP, 3, 1)], 32, (1, 4), 0.3, 0.3, 2
)
@example([(PAIRS[0], 2, 70), (Opcode.ADD, 3, 1), (PAIRS[1], 3, 1)], 32, (2, 2), 0.3, 0.3, 2)
@example(
    [(Opcode.DEPTHWISE, 2, 70), (Opcode.POOL, 3, 9), (Opcode.DEPTHWISE, 3, 1)],
    32,
    (2, 1),
    0.3,
    0.3,
    2,
)
@example(
    [(Opcode.AVERAGE, 2, 70), (Opcode.POOL, 3, 9), (Opcode.DEPTHWISE, 3, 1)],
    16,
    (1, 4),
    0.3,
    0.3,
    2,
)
@example([(Opcode.POOL, 2, 70), (Opcode.ADD, 3, 1), (Opcode.POOL, 3, 1)], 32, (4, 4), 0.3, 0.3, 2)
@example(
    [(Opcode.QUANTISE, 2, 7), (Opcode.ADD, 3, 1), (Opcode.QUANTISE, 3, 40)],
    16, (2, 4), 0.3, 0.3, 3,
)  # fmt: skip
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(ALL), st.integers(1, 3), st.integers(1, 40)),
        min_size=1,
        max_size=3,
    ),
    bus_bytes=st.just(16),  # the examples have wider words, which take longer
    word_cycles=st.sampled_from([(2, 1), (2, 4), (1, 2), (8, 2), (16, 4)]),
    read_stall=st.sampled_from([0.0, 0.3, 0.7]),
    write_stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_and_nothing_else_is_written(
    shapes, bus_bytes, word_cycles, read_stall, write_stall, seed
):
    of_bytes, of_floats = word_cycles
    config = TINY.replace(
        bus_bytes=bus_bytes, byte_word_cycles=of_bytes, float_word_cycles=of_floats
    )
    dut, inputs, output, rng = bench(config, seed, read_stall, write_stall)
    jobs, position = [], bus_bytes * int(rng.integers(5))
    for opcode, rows, columns in shapes:
        jobs.append(random_job(inputs, config, position, rng, opcode, rows, columns))
        position = jobs[-1].end
    run(dut, inputs, output, jobs)


def many(cases, seed=0):
    """Runs a job for each of `cases`, keyword arguments of `random_job`, in one simulation."""
    dut, inputs, output, rng = bench(TINY, seed, latency=(2, 2))
    jobs, position = [], 0
    for case in cases:
        jobs.append(random_job(inputs, TINY, position, rng, **case))
        position = jobs[-1].end
    run(dut, inputs, output, jobs)


@pytest.mark.slow
def test_every_command_function_and_pair_of_formats():
    opcodes, outputs = itertools.cycle(OPCODES), itertools.cycle(OUTPUTS)
    cases = [
        {"opcode": next(opcodes), "function": function, "flags": 0} for function in Function
    ] + [
        {"opcode": Opcode.ADD, "a_format": a, "b_format": b, "y_format": next(outputs)}
        for a, b in itertools.product(SOURCES, SOURCES)
    ]
    many({"rows": 2, "columns": 6} | case for case in cases)


@pytest.mark.slow
@pytest.mark.parametrize("in_place", ["a", "b"])
def test_in_place(in_place):
    dut, inputs, output, rng = bench(TINY, 3)
    jobs, position = [], 0
    for size, flags in itertools.product((1, 40), (0, Flag.SUM)):
        job = Job(
            inputs, TINY, position, rng, Opcode.ADD, rows=4, columns=size, flags=flags,
            y_format=ElementFormat.FLOAT16, in_place=in_place, multiplier=bits(1), scale=bits(1),
        )  # fmt: skip
        jobs.append(job)
        position = job.end
    run(dut, inputs, output, jobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bus_bytes", "float_word_cycles"),
    [(16, 1), (16, 4), pytest.param(64, 1, marks=pytest.mark.slow)],
)
def test_matrices_stream_in_the_stated_cycles(bus_bytes, float_word_cycles):
    config = TINY.replace(bus_bytes=bus_bytes, float_word_cycles=float_word_cycles)
    dut, inputs, output, rng = bench(config, latency=(3, 3))
    cases = [
        (1, 300, ElementFormat.FLOAT32, Function.IDENTITY, 0),
        (3, 64, ElementFormat.FLOAT32, Function.TANH, 0),
        (20, 3, ElementFormat.UINT8, Function.IDENTITY, 0),
        (2, 129, ElementFormat.UINT8, Function.IDENTITY, 0),
        (4, 32, ElementFormat.FLOAT16, Function.EXP, Flag.SUM),
    ]
    jobs, position = [], 0
    for rows, columns, a_format, function, flags in cases:
        job = Job(
            inputs, config, position, rng, Opcode.AFFINE, rows=rows, columns=columns,
            a_format=a_format, y_format=ElementFormat.UINT8, function=function, flags=flags,
            **PLAIN,
        )  # fmt: skip
        jobs.append(job)
        position = job.end
    durations = run(dut, inputs, output, jobs)
    for (rows, columns, _, function, flags), duration in zip(cases, durations, strict=True):
        start_and_drain = dut.latency + 16
        start_and_drain += dut.table_latency * (function > Function.RELU)
        start_and_drain += dut.reduce_latency * bool(flags)
        bound = dut.cycles(rows, columns)
        table = function > Function.RELU
        turns = dut.turn_cycles(rows, columns, table=table, reduces=bool(flags))
        assert bound <= duration <= bound + turns + start_and_drain


def test_each_command_leaves_the_engine_empty():
    """Any other has its own bits before and behind it, whatever tables and windows it had."""
    dut, inputs, output, rng = bench(TINY, 9, 0.3, 0.7)
    jobs, position = [], 0
    others = itertools.cycle((Opcode.AFFINE, Opcode.MULTIPLY, Opcode.CLAMP, Opcode.ADD))
    whole = (Opcode.LOOKUP, PAIRS[0], Opcode.POOL, PAIRS[1], Opcode.AVERAGE, Opcode.DEPTHWISE)
    for first, second in itertools.pairwise((*whole, *whole[::2], *whole[1::2], whole[0])):
        for opcode in (first, second, next(others)):
            jobs.append(random_job(inputs, TINY, position, rng, opcode, 2, 11))
            position = -(-jobs[-1].end // TINY.bus_bytes) * TINY.bus_bytes
    run(dut, inputs, output, jobs)


def test_latency_is_as_stated():
    dut, inputs, output, rng = bench(TINY)
    answers, writes, watch = transits(dut)
    jobs, end = [], 0
    kinds = list(itertools.product((Function.IDENTITY, Function.GELU), (0, Flag.SUM)))
    for function, flags in kinds:
        jobs.append(
            Job(inputs, TINY, end, rng, Opcode.AFFINE, rows=1, columns=1, function=function,
                flags=flags, **PLAIN)
        )  # fmt: skip
        end = jobs[-1].end
    run(dut, inputs, output, jobs, background=[watch])
    for (function, flags), answered, written in zip(kinds, answers, writes, strict=True):
        expected = dut.latency + bool(flags) * dut.reduce_latency
        expected += (function > Function.RELU) * dut.table_latency
        assert written - answered == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source_latency", "write_stall", "expected"),
    [(1, 0.0, Activity.BUSY), (60, 0.0, Activity.STARVED), (1, 0.95, Activity.BLOCKED)],
)
def test_activity_tells_which_side_is_slow(source_latency, write_stall, expected):
    latency = (source_latency, source_latency)
    dut, inputs, output, rng = bench(TINY, 2, write_stall=write_stall, latency=latency)
    job = Job(
        inputs, TINY, 0, rng, Opcode.AFFINE, rows=8, columns=64 if source_latency == 1 else 4,
        **PLAIN,
    )  # fmt: skip
    assert mostly(dut, inputs, output, job) == expected
