"""Commands of cards with and without hardware: the same bytes, and everything in the same cycle."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import POOLED_FORMATS, PRODUCT_FORMATS, Engine, Flag, Opcode, RowFormat
from halfdome.hdl.config import PRESETS
from tests.hdl.gather.harness import lay, make_table, plain
from tests.hdl.matmul.jobs import CardMemory, batch_matmul, conv2d, matmul
from tests.hdl.vector.jobs import random_job
from tests.system.programs import OTHER, SLOT, random_tasks
from tests.system.programs import gather as gather_task
from tests.system.programs import matmul as matmul_task

pytestmark = pytest.mark.slow  # models of cards are compiled first

DRAM_USED = 1 << 15
VECTOR = [opcode for opcode in Opcode if opcode.engine is Engine.VECTOR and not opcode.is_fence]


class NoRoom(Exception):
    """Operands do not fit."""


class Memory(CardMemory):
    """Card memory full of noise, of which operands lie in DRAM or in the scratchpad."""

    def __init__(self, config, rng, in_dram):
        super().__init__(config, config.window_bytes, seed=int(rng.integers(1 << 32)))
        self.in_dram = in_dram
        self.tops = [config.scratchpad_base, 0]

    def allocate(self, size):
        place = int(self.rng.random() < self.in_dram)
        word = self.config.bus_bytes
        start = self.tops[place] + word * int(self.rng.integers(0, 3))
        self.tops[place] = start + -(-size // word) * word
        end = self.config.scratchpad_base + self.config.scratchpad_bytes
        if self.tops[0] > end or self.tops[1] > DRAM_USED:
            raise NoRoom
        return start


def product(memory, rng):
    def size(most):
        return int(np.exp(rng.uniform(0, np.log(most))) + 0.5)

    how = {"flags": int(rng.integers(8)), "y_format": PRODUCT_FORMATS[rng.integers(3)]}
    kind = rng.integers(3)
    if kind == 0:
        return matmul(memory, size(40), size(90), size(40), **how).descriptor
    if kind == 1:
        how["flags"] |= int(rng.choice([0, Flag.TRANSPOSED]))
        return batch_matmul(memory, size(4), size(20), size(40), size(30), **how).descriptor
    kernel = [size(3), size(3)]
    channels = size(40)
    how["flags"] |= int(rng.choice([0, Flag.DIAGONAL]))
    outputs = channels if how["flags"] & Flag.DIAGONAL else size(20)
    return conv2d(
        memory, [size(5) + 2, size(5) + 2], channels, outputs, kernel=kernel, pad=[1, 1], **how
    ).descriptor


def vector_command(memory, rng):
    opcode = VECTOR[rng.integers(len(VECTOR))]
    rows, columns = int(rng.integers(1, 9)), int(rng.integers(1, 150))
    start = memory.allocate(1 << 13)
    job = random_job(memory, memory.config, start, rng, opcode, rows, columns)
    assert job.end <= start + (1 << 13)
    return job.descriptor.to_bytes(64, "little")


def gather(memory, rng):
    dim, rows = int(rng.integers(1, 70)), int(rng.integers(1, 40))
    row_format = RowFormat(int(rng.integers(len(RowFormat))))
    lengths = tuple(int(each) for each in rng.integers(0, 9, int(rng.integers(1, 12))))
    command = plain(
        int(rng.integers(1 << 16)), dim, lengths, rows,
        table=make_table(rng, rows, dim, row_format, int(rng.integers(10))), row_format=row_format,
        mean=bool(rng.integers(2)), offset=int(rng.integers(16)),
        output_format=POOLED_FORMATS[rng.integers(len(POOLED_FORMATS))],
    )  # fmt: skip
    if len(command.indices) and rng.integers(3) == 0:
        command.indices[rng.integers(len(command.indices))] = (
            rows  # it fails, in a bag or after one
        )
    start = memory.allocate(1 << 14 if memory.in_dram else 1 << 13)
    return lay(command, memory.data, start, memory.config.bus_bytes).descriptor


MAKERS = {"matmul": product, "vector": vector_command, "gather": gather}


def seen(engine, config, commands, **options):
    """What commands leave in memory, each with an image of its own before it, and when."""
    used = [(0, DRAM_USED), (config.scratchpad_base, config.scratchpad_bytes)]
    with halfdome.open(cards=1, config=config, engine=engine, **options) as runtime:
        platform, device = runtime.platform, runtime.cards[0].device
        window = platform.bars[0].bar2
        for command, image in commands:
            for start, size in used:
                platform.bus.write(window + start, image[start : start + size].tobytes())
            completion = device.wait(device.submit([command])).tolist()
            memory = [platform.bus.read(window + start, size) for start, size in used]
            yield completion, device.counters(), memory


@pytest.mark.parametrize("in_dram", [0, 0.5, 1])
@pytest.mark.parametrize("kind", MAKERS)
def test_commands_take_the_cycles_of_hardware(kind, in_dram):
    config = PRESETS["tiny"]
    rng = np.random.default_rng(1)
    commands = []
    while len(commands) < 12:
        memory = Memory(config, rng, in_dram)
        try:
            commands.append((MAKERS[kind](memory, rng), memory.data))
        except NoRoom:
            continue
    hardware = seen("native", config, commands)
    model = seen("timing", config, commands)
    for number, (ours, theirs) in enumerate(zip(model, hardware, strict=True)):
        assert ours == theirs, f"command {number}"


def counted(engine):
    """What a card counts, again and again while it computes and the host writes to it."""
    with halfdome.open(cards=1, config="tiny", engine=engine) as runtime:
        platform, card = runtime.platform, runtime.cards[0]
        tasks = random_tasks(PRESETS["tiny"], 5, 24)
        for address, values in (each for task in tasks for each in task.contents):
            platform.memory(0)[address : address + values.size] = values
        card.device.submit([task.descriptor for task in tasks])
        for _ in range(60):
            platform.bus.write(card.device.bar2 + 0x80005, bytes(100))
            yield card.counters(), platform.cycles
            platform.run(7)


def test_bytes_are_counted_in_the_cycles_of_hardware():
    for ours, theirs in zip(counted("timing"), counted("native"), strict=True):
        assert ours == theirs


def watched(engine):
    """What engines had done in cycles around the first and the last one of a command."""
    with halfdome.open(cards=1, config="tiny", engine=engine) as runtime:
        platform, device = runtime.platform, runtime.cards[0].device

        def counts_after(cycles):
            tickets = device.submit([task.descriptor])
            platform.run(cycles)
            counts = device.counters()
            [completion] = device.wait(tickets)
            return counts, completion

        for kind in (gather_task, matmul_task):
            task = kind(np.random.default_rng(1), PRESETS["tiny"], 0, SLOT)
            for address, values in task.contents:
                platform.memory(0)[address : address + values.size] = values
            counts, completion = counts_after(400)
            for moment in completion.start_cycle, completion.end_cycle:
                for cycle in range(moment - 2, moment + 4):
                    yield counts_after(400 + int(cycle) - counts["cycles"])[0]


def test_activities_change_in_the_cycles_of_hardware():
    for ours, theirs in zip(watched("timing"), watched("native"), strict=True):
        assert ours == theirs


def looked_up(engine):
    """Bags of a table that is rewritten now and then, on a card with a hot-row cache."""
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (60, 24), np.uint8)
    with halfdome.open(cards=1, config=OTHER, engine=engine) as runtime:
        card = runtime.cards[0]
        window, tables = runtime.platform.bars[0].bar2, [card.table(rows), card.table(rows[::-1])]
        for step in range(12):
            table = tables[int(rng.integers(2))]
            bags = int(rng.integers(1, 20))
            indices = rng.integers(0, 60, bags * int(rng.integers(1, 6)))
            offsets = np.sort(rng.integers(0, len(indices) + 1, bags))
            offsets[0] = 0
            if step % 4 == 3:
                place = table.block.address + int(rng.integers(0, 60)) * 24
                runtime.platform.bus.write(window + place, bytes(24))
            yield card.embedding_bag(table, indices, offsets).tobytes(), runtime.cycles
        yield card.counters()


@pytest.mark.long
def test_gathers_with_a_hot_row_cache_take_the_cycles_of_hardware():
    ours, theirs = (list(looked_up(engine)) for engine in ("timing", "native"))
    assert ours == theirs
    assert ours[-1]["gather_cache_hits"] > ours[-1]["gather_cache_misses"] > 100
