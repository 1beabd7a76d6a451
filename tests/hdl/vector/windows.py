"""What the tests of commands over windows share."""

from halfdome.hdl.config import PRESETS
from halfdome.hdl.vector.walker import taps_along
from tests.hdl.vector.jobs import random_job, run
from tests.hdl.vector.test_engine import bench

TINY = PRESETS["tiny"]


def along(job):
    """Taps along each side of a job's image."""
    order = ("size", "out", "kernel", "stride", "pad", "dilation")
    return [taps_along(*(job.sides[name][axis] for name in order)) for axis in range(2)]


def run_random(opcode, columns, bus_bytes, read_stall, write_stall, seed):
    """Runs a random job for each number of channels in `columns`, and checks all memory."""
    config = TINY.replace(bus_bytes=bus_bytes)
    dut, inputs, output, rng = bench(config, seed, read_stall, write_stall)
    jobs, position = [], bus_bytes * int(rng.integers(5))
    for k in columns:
        jobs.append(random_job(inputs, config, position, rng, opcode, 1, k))
        position = jobs[-1].end
    run(dut, inputs, output, jobs)
