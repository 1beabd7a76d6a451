"""A pico does, through its bus alone, what the golden model does to its memory."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl import registers
from halfdome.hdl.card import Card
from halfdome.hdl.commands import Engine, IndexMode, Opcode, RowFormat, Status
from halfdome.hdl.config import PICO, PRESETS, ConfigError
from halfdome.hdl.descriptors import pack
from halfdome.hdl.pico import Pico
from tests.bench import simulate
from tests.hdl.gather import harness as gather
from tests.hdl.matmul.jobs import CardMemory, batch_matmul, conv2d, matmul

AT = {register.name: register.offset for register in registers.PICO_REGISTERS}


class Master:
    """An initiator of Wishbone that lets cycles pass between accesses as a seed says."""

    def __init__(self, bus, seed=0):
        self._bus, self._rng = bus, random.Random(seed)

    async def access(self, ctx, address, value=None, sel=0xF):
        """The word read, if no value is written; how many cycles it took."""
        bus = self._bus
        for _ in range(self._rng.choice([0, 0, 1, 3])):
            await ctx.tick()
        ctx.set(bus.adr, address // 4)
        ctx.set(bus.we, value is not None)
        ctx.set(bus.sel, sel)
        ctx.set(bus.dat_w, value or 0)
        ctx.set(bus.cyc, 1)
        ctx.set(bus.stb, 1)
        cycles = 0
        ack = 0
        while not ack:
            _, _, ack, word = await ctx.tick().sample(bus.ack, bus.dat_r)
            cycles += 1
        ctx.set(bus.cyc, 0)
        ctx.set(bus.stb, 0)
        return word, cycles

    async def write(self, ctx, address, raw):
        for place, word in enumerate(np.frombuffer(raw, "<u4")):
            await self.access(ctx, address + 4 * place, int(word))

    async def read(self, ctx, address, nbytes):
        words = [(await self.access(ctx, address + at))[0] for at in range(0, nbytes, 4)]
        return b"".join(word.to_bytes(4, "little") for word in words)

    async def run(self, ctx, descriptor):
        """The status, detail and cycles of a command."""
        await self.write(ctx, registers.PICO_COMMAND, descriptor)
        await self.access(ctx, AT["CONTROL"], registers.PICO_START)
        while (await self.access(ctx, AT["STATUS"]))[0] & registers.PICO_BUSY:
            pass
        results = [(await self.access(ctx, AT[name]))[0] for name in ("RESULT", "DETAIL", "CYCLES")]
        return Status(results[0]), *results[1:]


def convolution(memory, rows, columns, channels, **formats):
    return conv2d(memory, (rows, columns), 5, channels, kernel=(2, 3), pad=(1, 1), **formats)


def check(memory, job, first, seed):
    """From byte `first` on memory is as it should be after a job."""
    place = registers.PICO_MEMORY + first
    image = memory.data[first : memory.top]
    expected = memory.data.copy()
    verdict = job.expect(expected)
    dut = Pico(PICO)

    async def bench(ctx):
        master = Master(dut.bus, seed)
        await master.write(ctx, place, image.tobytes())
        status, detail, _ = await master.run(ctx, job.descriptor)
        assert (status, detail) == verdict
        found = await master.read(ctx, place, len(image))
        np.testing.assert_array_equal(np.frombuffer(found, np.uint8), expected[first : memory.top])

    simulate(dut, bench)


@given(
    make=st.sampled_from([matmul, convolution, lambda *a, **f: batch_matmul(a[0], 2, *a[1:], **f)]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    flags=st.integers(0, 7),
    extreme=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_products_leave_in_memory_what_the_golden_model_says(make, sizes, flags, extreme, seed):
    memory = CardMemory(PICO, PICO.scratchpad_bytes, seed=seed)
    check(memory, make(memory, *sizes, flags=flags, extreme=extreme), 0, seed)


@pytest.mark.parametrize("make", [matmul, pytest.param(convolution, marks=pytest.mark.slow)])
def test_operands_may_end_where_memory_ends(make):
    needed, memory = (CardMemory(PICO, PICO.scratchpad_bytes, seed=3) for _ in range(2))
    make(needed, 9, 9, 5)
    memory.top += len(memory.data) - needed.top
    first = memory.top
    job = make(memory, 9, 9, 5)
    assert memory.top == len(memory.data)
    check(memory, job, first, seed=3)


def test_what_is_wrong_with_a_command_is_told_and_the_next_one_runs():
    memory = CardMemory(PICO, PICO.scratchpad_bytes, seed=1)
    job = matmul(memory, 2, 5, 3)
    bad = {
        "k": (0, Status.BAD_DIMENSION), "x": (1, Status.BAD_ALIGNMENT),
        "y_format": (9, Status.BAD_FORMAT), "y": (PICO.scratchpad_bytes, Status.BAD_RANGE),
        "w": (1 << 39, Status.BAD_RANGE),
    }  # fmt: skip
    dut = Pico(PICO)

    async def bench(ctx):
        master = Master(dut.bus)
        for name, (value, expected) in bad.items():
            command = pack(Opcode.MATMUL, **job.values | {name: value})
            assert (await master.run(ctx, command))[0] == expected
        for opcode in (Opcode.AFFINE, Opcode.GATHER, Opcode.LOAD):
            status, detail, _ = await master.run(ctx, pack(opcode))
            assert (status, detail) == (Status.BAD_OPCODE, opcode)
        # Nobody waits for what a pico does not have.
        command = pack(Opcode.MATMUL, **job.values, core=7, wait_counter=3, wait_value=9)
        assert (await master.run(ctx, command))[0] in (Status.OK, Status.BAD_MULTIPLIER)

    simulate(dut, bench)


def test_a_command_that_runs_is_not_disturbed():
    memory = CardMemory(PICO, PICO.scratchpad_bytes, seed=2)
    job = matmul(memory, 9, 40, 6)
    expected = memory.data.copy()
    verdict = job.expect(expected)
    dut = Pico(PICO)

    async def bench(ctx):
        master = Master(dut.bus)
        await master.write(ctx, registers.PICO_MEMORY, memory.data[: memory.top].tobytes())
        await master.write(ctx, registers.PICO_COMMAND, job.descriptor)
        await master.access(ctx, AT["CONTROL"], registers.PICO_START)
        for _ in range(3):
            await master.write(ctx, registers.PICO_COMMAND, pack(Opcode.CONV2D))
            await master.access(ctx, AT["CONTROL"], registers.PICO_START)
        while (await master.access(ctx, AT["STATUS"]))[0]:
            pass
        status = Status((await master.access(ctx, AT["RESULT"]))[0])
        assert (status, (await master.access(ctx, AT["DETAIL"]))[0]) == verdict
        found = await master.read(ctx, registers.PICO_MEMORY, memory.top)
        assert found == expected[: memory.top].tobytes()

    simulate(dut, bench, cycles=50_000)


def test_the_bus_takes_the_cycles_it_is_said_to_and_writes_single_bytes():
    dut = Pico(PICO)
    word, top = registers.PICO_MEMORY, registers.PICO_MEMORY + PICO.scratchpad_bytes - 4

    async def bench(ctx):
        master = Master(dut.bus)
        assert await master.access(ctx, AT["ID"]) == (registers.PICO_IDENTIFICATION, 2)
        found = [(await master.access(ctx, AT[f"CONFIG_HASH_{half}"]))[0] for half in ("HI", "LO")]
        assert f"{found[0]:08x}{found[1]:08x}" == PICO.hash
        for nowhere in (0x28, 0x3C, 0x40, 0x7C, 0x80, 0xFFFC):
            await master.access(ctx, nowhere, 0xFFFF_FFFF)
            assert await master.access(ctx, nowhere) == (0, 2)
        assert await master.access(ctx, AT["ENGINE"]) == (Engine.MATMUL, 2)
        assert (await master.access(ctx, word, 0x44332211))[1] == 4
        await master.access(ctx, top, 0x88776655)
        await master.access(ctx, word, 0xFFEEDDCC, sel=0b0110)
        assert await master.access(ctx, word) == (0x44EEDD11, 5)
        assert await master.access(ctx, top) == (0x88776655, 5)

    simulate(dut, bench)


def test_a_gather_pico_pools_what_the_golden_model_pools():
    odd = np.array([5, 99, *range(5), 7, 8, 9, -1, 11, 0, 1, 2])
    commands = (
        gather.plain(2, dim=20, row_format=RowFormat.INT4, weights=None, mean=True, offset=3),
        gather.plain(3, dim=9, row_format=RowFormat.FLOAT16, wide=True, output_offset=5),
        gather.plain(4, indices=odd, mode=IndexMode.WARN, pruned=True),
    )
    dut = Pico(PICO, Engine.GATHER)

    async def bench(ctx):
        master = Master(dut.bus)
        assert (await master.access(ctx, AT["ENGINE"]))[0] == Engine.GATHER
        status, detail, _ = await master.run(ctx, pack(Opcode.MATMUL))
        assert (status, detail) == (Status.BAD_OPCODE, Opcode.MATMUL)
        for command in commands:
            memory = np.full(PICO.scratchpad_bytes, gather.FILL, np.uint8)
            laid = gather.lay(command, memory, 0, PICO.bus_bytes)
            expected = memory.copy()
            pooled, *verdict = command.golden()
            for bag, row in enumerate(pooled):
                laid.pooled(expected, bag, row.nbytes)[:] = row.view(np.uint8)
            await master.write(ctx, registers.PICO_MEMORY, memory[: laid.end].tobytes())
            status, detail, _ = await master.run(ctx, laid.descriptor)
            assert [status, detail] == verdict
            found = await master.read(ctx, registers.PICO_MEMORY, laid.end)
            np.testing.assert_array_equal(np.frombuffer(found, np.uint8), expected[: laid.end])

    simulate(dut, bench, cycles=60_000)


def test_whole_cards_need_dram():
    with pytest.raises(ConfigError, match="dram_bytes=0: a whole card needs DRAM"):
        Card(PRESETS["tiny"].replace(dram_bytes=0))
