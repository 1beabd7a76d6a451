"""Engines of the timing card do in every cycle what those in RTL do."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from hypothesis import example, given, settings
from hypothesis import strategies as st

from halfdome.hdl.commands import Engine, Opcode, RowFormat
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import engine_members
from halfdome.hdl.gather.array import RUN_WORDS
from halfdome.hdl.gather.engine import GatherEngine
from halfdome.hdl.gather.watched import WatchedCache
from halfdome.hdl.matmul.engine import MatmulEngine
from halfdome.hdl.memory.axi_arbiter import dram_writes
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.vector.engine import VectorEngine
from tests.bench import Memory
from tests.hdl.gather.harness import lay, make_table, plain
from tests.hdl.gather.test_engine import gathers
from tests.hdl.matmul.jobs import CardMemory
from tests.hdl.matmul.test_engine import commands as products
from tests.hdl.matmul.test_engine import formats
from tests.hdl.vector.jobs import random_job
from tests.sim.timing.replay import READS, WRITE, check

TINY = PRESETS["tiny"]
VECTOR = [
    opcode for opcode in Opcode if opcode >> 4 == Engine.VECTOR and opcode != Opcode.FENCE_VECTOR
]

stalls = st.sampled_from([0.0, 0.3, 0.7])
seeds = st.integers(0, 2**16)
arrays = st.sampled_from([(2, 2, 16), (4, 4, 16), (4, 2, 16), (8, 4, 32), (2, 16, 16)])


@given(
    jobs=st.lists(st.tuples(products, formats), min_size=1, max_size=3),
    array=arrays, tiles=st.sampled_from([1, 2, 4]), stall=stalls, seed=seeds, in_dram=st.booleans(),
)  # fmt: skip
def test_products_take_their_cycles(jobs, array, tiles, stall, seed, in_dram):
    rows, columns, bus_bytes = array
    config = TINY.replace(
        array_rows=rows, array_columns=columns, bus_bytes=bus_bytes, accumulator_rows=4 * tiles,
        activation_rows=4, dram_bytes=1 << 16, scratchpad_bytes=1 << 16,
    )  # fmt: skip
    memory = CardMemory(config, 2 << 16, seed=seed, stall=stall)
    if not in_dram:
        memory.top = config.scratchpad_base
    made = [make(memory, *sizes, **how).descriptor for (make, sizes), how in jobs]
    ports = dict.fromkeys((*READS[Engine.MATMUL], WRITE[Engine.MATMUL]), memory)
    check(config, Engine.MATMUL, MatmulEngine(config), ports, made)


@pytest.mark.slow
@example([Opcode.AVERAGE, Opcode.DEPTHWISE, Opcode.POOL, Opcode.AVERAGE], (16, 2, 1), 0.3, 1)
@example([Opcode.AVERAGE, Opcode.AVERAGE, Opcode.DEPTHWISE], (16, 1, 4), 0.0, 2)
@example([Opcode.POOL, Opcode.DEPTHWISE, Opcode.AVERAGE], (32, 4, 2), 0.7, 3)
@example([Opcode.ADD, Opcode.LOOKUP, Opcode.ADD_QUANTISED], (16, 8, 4), 0.3, 4)
@example(
    [Opcode.POOL, Opcode.QUANTISE, Opcode.DEPTHWISE, Opcode.LOOKUP, Opcode.AVERAGE, Opcode.ADD],
    (16, 16, 4), 0.3, 3,
)  # fmt: skip
@settings(max_examples=max(1, settings().max_examples // 2))  # an engine for each
@given(
    opcodes=st.lists(st.sampled_from(VECTOR), min_size=2, max_size=6),
    bus=st.sampled_from([(16, 1, 1), (16, 16, 4), (32, 4, 2)]), stall=stalls, seed=seeds,
)  # fmt: skip
def test_vector_commands_take_their_cycles(opcodes, bus, stall, seed):
    bus_bytes, byte_word_cycles, float_word_cycles = bus
    config = TINY.replace(
        bus_bytes=bus_bytes, byte_word_cycles=byte_word_cycles, float_word_cycles=float_word_cycles
    )
    rng = np.random.default_rng(seed)
    memory = Memory(config, 1 << 17, seed=seed, stall=stall)
    made, position = [], 0
    for opcode in opcodes:
        rows, columns = (int(rng.integers(1, most)) for most in (6, 70))
        job = random_job(memory, config, position, rng, opcode, rows, columns)
        made.append(job.descriptor.to_bytes(64, "little"))
        position = -(-job.end // 64) * 64
    ports = dict.fromkeys((*READS[Engine.VECTOR], WRITE[Engine.VECTOR]), memory)
    check(config, Engine.VECTOR, VectorEngine(config), ports, made)


@given(
    commands=st.lists(gathers(), min_size=1, max_size=2), fails=st.booleans(),
    lanes=st.sampled_from([1, 4, 16]), stages=st.sampled_from([1, 2]), stall=stalls, seed=seeds,
)  # fmt: skip
def test_gathers_take_their_cycles(commands, fails, lanes, stages, stall, seed):
    config = TINY.replace(lanes=lanes, gather_float_stages=stages)
    memory = Memory(config, 1 << 16, seed=seed, stall=stall)
    made, top = [], 0
    for command in commands:
        count = len(command.indices)
        changes = {"index_count": count + 1} if fails else {}
        laid = lay(command, memory.data, top, config.bus_bytes, **changes)
        made.append(laid.descriptor)
        top = laid.end + 4 * config.bus_bytes
    ports = dict.fromkeys((*READS[Engine.GATHER], WRITE[Engine.GATHER]), memory)
    check(config, Engine.GATHER, GatherEngine(config), ports, made)


def test_a_gather_of_several_runs_of_indices_takes_its_cycles():
    config = TINY.replace(gather_outstanding=32)
    memory = Memory(config, 1 << 16, latency=(60, 60))  # nothing comes while all is asked for
    lengths = tuple(int(each) for each in np.random.default_rng(1).integers(0, 12, 60))
    indices = sum(lengths)
    assert indices * 4 > RUN_WORDS * config.bus_bytes
    command = lay(plain(dim=4, lengths=lengths, weights=None), memory.data, 0, config.bus_bytes)
    ports = dict.fromkeys((*READS[Engine.GATHER], WRITE[Engine.GATHER]), memory)
    assert check(config, Engine.GATHER, GatherEngine(config), ports, [command.descriptor]) > indices


class CachedGather(wiring.Component):
    """A gather engine and its hot-row cache, as a core has them."""

    def __init__(self, config):
        self._config = config
        ports = {name: Out(ReadPort(config)) for name in READS[Engine.GATHER]}
        super().__init__(
            engine_members()
            | ports
            | {
                "output": Out(WritePort(config)),
                "dram_writes": In(dram_writes(config)),
                "gather_cache_hits": Out(1),
                "gather_cache_misses": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.gather = gather = GatherEngine(self._config)
        m.submodules.cache = cache = WatchedCache(self._config)
        for name in ("lengths", "indices", "weights", "output", "result"):
            connect(m, getattr(gather, name), flipped(getattr(self, name)))
        connect(m, flipped(self.command), gather.command)
        connect(m, gather.rows, cache.client)
        connect(m, cache.memory, flipped(self.rows))
        m.d.comb += [
            self.activity.eq(gather.activity),
            cache.start.eq(gather.command.valid & gather.command.ready),
            cache.command.eq(gather.command.p),
            cache.writes.eq(self.dram_writes),
            self.gather_cache_hits.eq(cache.hit),
            self.gather_cache_misses.eq(cache.miss),
        ]
        return m


@pytest.mark.parametrize("seed", range(3))
def test_gathers_with_a_hot_row_cache_take_their_cycles(seed):
    """Whatever is written to DRAM meanwhile, on which the cache may forget."""
    rng = np.random.default_rng(seed)
    config = TINY.replace(
        gather_cache_bytes=int(rng.choice([512, 2048])), dram_bytes=1 << 16,
        gather_cache_ways=int(rng.choice([1, 2, 4])), gather_outstanding=int(rng.choice([2, 8])),
    )  # fmt: skip
    memory = Memory(config, 2 << 16, seed=seed, stall=float(rng.choice([0.0, 0.3])))
    dim, rows = int(rng.integers(4, 40)), 24
    table = make_table(rng, rows, dim, RowFormat.INT8)
    made, top, near = [], 0, {}
    for number in range(6):
        lengths = tuple(int(each) for each in rng.integers(0, 9, int(rng.integers(2, 7))))
        command = plain(
            int(rng.integers(1 << 16)), dim, lengths, rows, table=table, row_format=RowFormat.INT8
        )
        if number == 4:
            top = config.dram_bytes  # what lies beyond is not kept
        changes = near if rng.random() < 0.6 else {}
        laid = lay(command, memory.data, top, config.bus_bytes, **changes)
        near = changes or {"table": top}
        made.append(laid.descriptor)
        top = laid.end + 64
    dut = CachedGather(config)

    async def write(ctx):
        answered = 0
        while True:
            valid = rng.random() < 0.01
            answered = max(answered, int(rng.integers(1, 12)) * valid)
            ctx.set(dut.dram_writes.valid, valid)
            ctx.set(dut.dram_writes.address, int(rng.integers(0, 1 << 12)) * config.bus_bytes)
            ctx.set(dut.dram_writes.pending, answered > 0)
            answered = max(0, answered - 1)
            await ctx.tick()

    ports = dict.fromkeys((*READS[Engine.GATHER], WRITE[Engine.GATHER]), memory)
    check(config, Engine.GATHER, dut, ports, made, [write], lambda: int(rng.integers(0, 40)))
