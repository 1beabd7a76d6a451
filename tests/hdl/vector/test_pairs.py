"""ADD_QUANTISED, MULTIPLY_QUANTISED: the golden bytes and no others, `byte_lanes` a cycle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from tests.bench import get, put, simulate
from tests.hdl.vector.jobs import PAIRS, LookupJob, PairJob, random_job, run
from tests.hdl.vector.test_engine import bench

TINY = PRESETS["tiny"]
CONFIGS = {cycles: TINY.replace(byte_word_cycles=cycles) for cycles in (1, 2, 4)}


@pytest.mark.slow
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(PAIRS), st.integers(1, 3), st.integers(1, 40)),
        min_size=1,
        max_size=3,
    ),
    word_cycles=st.sampled_from(sorted(CONFIGS)),
    read_stall=st.sampled_from([0.0, 0.3, 0.7]),
    write_stall=st.sampled_from([0.0, 0.3, 0.8]),
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_and_nothing_else_is_written(
    shapes, word_cycles, read_stall, write_stall, seed
):
    config = CONFIGS[word_cycles]
    dut, inputs, output, rng = bench(config, seed, read_stall, write_stall)
    jobs, position = [], config.bus_bytes * int(rng.integers(5))
    for opcode, rows, columns in shapes:
        jobs.append(random_job(inputs, config, position, rng, opcode, rows, columns))
        position = jobs[-1].end
    run(dut, inputs, output, jobs)


@pytest.mark.slow
@pytest.mark.parametrize("word_cycles", CONFIGS)
def test_every_length_of_a_row(word_cycles):
    config = CONFIGS[word_cycles]
    dut, inputs, output, rng = bench(config, latency=(2, 2))
    jobs, position = [], 0
    for columns in range(1, config.bus_bytes + 2):
        for job in (
            PairJob(inputs, config, position, rng, PAIRS[columns % 2], rows=2, columns=columns,
                    gap=1, broadcast=columns % 3 == 0, same_row=columns % 5 == 0),
            LookupJob(inputs, config, position + 512, rng, rows=2, columns=columns, gap=1),
        ):  # fmt: skip
            jobs.append(job)
            position = -(-job.end // config.bus_bytes) * config.bus_bytes
    run(dut, inputs, output, jobs)


@pytest.mark.slow
@pytest.mark.parametrize("word_cycles", CONFIGS)
def test_bytes_stream_in_the_stated_cycles(word_cycles):
    config = CONFIGS[word_cycles]
    dut, inputs, output, rng = bench(config, latency=(3, 3))
    shapes = [(1, 1000), (3, 320), (20, 3), (2, 129)]
    jobs, position = [], 0
    for rows, columns in shapes:
        opcode = PAIRS[rows % 2]
        jobs.append(PairJob(inputs, config, position, rng, opcode, rows=rows, columns=columns))
        position = jobs[-1].end
    durations = run(dut, inputs, output, jobs)
    for (rows, columns), duration in zip(shapes, durations, strict=True):
        bound = dut.pair_cycles(rows, columns)
        assert bound <= duration <= bound + dut.pair_latency + 20  # start and drain


@pytest.mark.slow
@pytest.mark.parametrize("word_cycles", CONFIGS)
def test_latency_is_as_stated(word_cycles):
    config = CONFIGS[word_cycles]
    dut, inputs, output, rng = bench(config, latency=(30, 30))
    job = PairJob(inputs, config, 0, rng, Opcode.ADD_QUANTISED, rows=1, columns=config.bus_bytes)
    seen = {}

    async def host(ctx):
        await put(ctx, dut.command, job.descriptor)
        await get(ctx, dut.result)

    async def watch(ctx):
        cycle = 0
        while True:
            _, _, a, b, write = await ctx.tick().sample(
                dut.a.response.valid, dut.b.response.valid, dut.y.request.valid
            )
            for name, happens in (("read", a | b), ("written", write)):
                if happens:
                    seen[name] = cycle
            cycle += 1

    simulate(
        dut,
        host,
        background=[
            watch, inputs.read_port(dut.a), inputs.read_port(dut.b), output.write_port(dut.y),
        ],
    )  # fmt: skip
    assert seen["written"] - seen["read"] == dut.pair_latency


@pytest.mark.slow
def test_wider_words():
    config = TINY.replace(bus_bytes=32, byte_word_cycles=1)
    dut, inputs, output, rng = bench(config, 5, 0.3, 0.3)
    jobs, position = [], 0
    for opcode, rows, columns in [(PAIRS[0], 3, 69), (PAIRS[1], 2, 3), (Opcode.ADD, 1, 9)]:
        jobs.append(random_job(inputs, config, position, rng, opcode, rows, columns))
        position = -(-jobs[-1].end // 32) * 32
    run(dut, inputs, output, jobs)
    assert np.any(output.data)
