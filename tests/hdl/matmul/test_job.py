"""JobDecoder's job is valid after the stated latency, and complete then."""

import pytest

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import preset
from halfdome.hdl.descriptors import pack
from halfdome.hdl.matmul.job import JobDecoder
from tests.bench import simulate
from tests.hdl.command.descriptors import GOOD

LATENCIES = {
    Opcode.MATMUL: JobDecoder.latency,
    Opcode.BATCH_MATMUL: JobDecoder.latency,
    Opcode.CONV2D: JobDecoder.convolution_latency,
}


@pytest.mark.parametrize("opcode", LATENCIES, ids=lambda opcode: opcode.name)
@pytest.mark.parametrize("before", LATENCIES, ids=lambda opcode: opcode.name)
def test_a_job_is_valid_after_the_stated_latency_and_constant_from_then_on(opcode, before):
    dut = JobDecoder(preset("tiny"))

    async def decode(ctx, opcode):
        """Starts a job; returns the cycles until it is valid."""
        ctx.set(dut.descriptor, int.from_bytes(pack(opcode, **GOOD[opcode]), "little"))
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        cycles = 1
        while not ctx.get(dut.valid):
            await ctx.tick()
            cycles += 1
        return cycles

    async def bench(ctx):
        await decode(ctx, before)
        assert await decode(ctx, opcode) == LATENCIES[opcode]
        job = ctx.get(dut.job.as_value())
        for _ in range(2 * JobDecoder.convolution_latency):
            await ctx.tick()
            assert ctx.get(dut.valid)
            assert ctx.get(dut.job.as_value()) == job

    simulate(dut, bench)
