"""Moves on cards with and without hardware: the same bytes, and everything in the same cycle."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack

pytestmark = pytest.mark.slow  # models of cards are compiled first

BUFFER_BYTES = 1 << 16
KINDS = (
    Opcode.LOAD, Opcode.COPY, Opcode.STORE, Opcode.SIGNAL, Opcode.FENCE_LOAD, Opcode.FENCE_STORE,
)  # fmt: skip


def moves(rng, config, host, peer, count):
    """Random moves between host, card and peer; what waits does so for a STORE before it."""
    word, scratchpad = config.bus_bytes, config.scratchpad_address(0)
    row_sizes = (1, word, 3 * word, 100, 64, 256)
    signalled = 0
    for _ in range(count):
        kind = KINDS[rng.integers(len(KINDS))]
        row = int(rng.choice(row_sizes))
        stride = -(-row // word) * word + word * int(rng.integers(2))
        if rng.integers(3) == 0 and row % word == 0:
            stride = row
        rows = int(rng.integers(1, 9))
        far = host + word * int(rng.integers(64))
        near = [word * int(rng.integers(1 << 10)), scratchpad + word * int(rng.integers(256))]
        rng.shuffle(near)
        fields = {}
        if kind in (Opcode.LOAD, Opcode.COPY, Opcode.STORE):
            outside = far if rng.integers(3) else peer + word * int(rng.integers(64))
            fields = {
                "source": far if kind == Opcode.LOAD else near[0],
                "destination": outside if kind == Opcode.STORE else near[1],
                "rows": rows,
                "row_bytes": row,
                "source_stride": stride,
                "destination_stride": stride,
            }
        elif kind == Opcode.SIGNAL:
            fields = {"address": host + BUFFER_BYTES - 4, "value": int(rng.integers(1 << 32))}
        if kind.engine == Opcode.STORE.engine and rng.integers(2):
            signalled += 1
            fields |= {"signal_counter": 1, "signal_value": signalled}
        elif rng.integers(2):
            fields |= {"wait_counter": 1, "wait_value": signalled}
        yield pack(kind, **fields)


def seen(engine, seed, config):
    """What a random program does, and when."""
    rng = np.random.default_rng(seed)
    with halfdome.open(cards=2, config=config, engine=engine) as runtime:
        platform, device = runtime.platform, runtime.cards[0].device
        buffer = platform.bus.map(BUFFER_BYTES)
        buffer.array[:] = rng.integers(0, 256, BUFFER_BYTES, np.uint8)
        program = list(moves(rng, config, buffer.address, platform.bars[1].bar2, 30))
        completions = device.wait(device.submit(program))
        peer = platform.bus.read(platform.bars[1].bar2, 4096)
        return (
            completions.tolist(), platform.cycles, device.counters(), buffer.array.tolist(), peer,
            platform.traffic(),
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_moves_take_the_cycles_of_hardware(seed):
    config = PRESETS["tiny"]
    assert seen("timing", seed, config) == seen("native", seed, config)


def turned(engine, seed, config):
    """What random TRANSPOSEs between and within the memories do, and when."""
    rng = np.random.default_rng(seed)
    word, scratchpad = config.bus_bytes, config.scratchpad_address(0)
    with halfdome.open(cards=1, config=config, engine=engine) as runtime:
        platform, device = runtime.platform, runtime.cards[0].device
        window = platform.bars[0].bar2
        for start in (0, scratchpad):
            platform.bus.write(window + start, rng.bytes(4096))
        program = []
        for _ in range(6):
            size = int(rng.choice([1, 2, 4]))
            rows, columns = (int(rng.integers(1, most)) for most in (70, 30))
            strides = [-(-side * size // word) * word for side in (columns, rows)]
            fits = rows * strides[0] <= 4096
            program.append(
                pack(
                    Opcode.TRANSPOSE,
                    source=scratchpad if fits and rng.integers(2) else 0,
                    destination=1 << 16 if rng.integers(2) else scratchpad + 4096,
                    rows=rows, columns=columns, batches=1, element_bytes=size,
                    source_stride=strides[0], destination_stride=strides[1],
                )
            )  # fmt: skip
        completions = device.wait(device.submit(program))
        written = [platform.bus.read(window + at, 4096) for at in (1 << 16, scratchpad + 4096)]
        return completions.tolist(), platform.cycles, device.counters(), written


@pytest.mark.parametrize("seed", range(4))
def test_matrices_are_turned_in_the_cycles_of_hardware(seed):
    config = PRESETS["tiny"]
    assert turned("timing", seed, config) == turned("native", seed, config)


@pytest.mark.parametrize("count", [20, 72])
def test_many_small_matrices_are_turned_in_the_cycles_of_hardware(count):
    """More blocks are under way than wait for their words."""
    step = {"source_stride": 128, "source_batch_stride": 128, "destination_stride": 16}
    small = pack(
        Opcode.TRANSPOSE, source=0, destination=1 << 16, rows=1, columns=4, batches=count,
        element_bytes=1, destination_batch_stride=64, **step,
    )  # fmt: skip
    ends = []
    for engine in ("timing", "native"):
        with halfdome.open(cards=1, config="tiny", engine=engine) as runtime:
            device = runtime.cards[0].device
            ends.append(device.wait(device.submit([small])).tolist())
    assert ends[0] == ends[1]


def written(engine):
    """How long the host waits for a read behind writes of so many bytes to wherever."""
    with halfdome.open(cards=1, config="tiny", engine=engine) as runtime:
        platform, window = runtime.platform, runtime.cards[0].device.bar2
        for offset in (0, 1, 5, 13, 45):
            for size in (1, 140, 259, 311, 324):
                start = platform.cycles
                platform.bus.write(window + 0x10000 + offset, bytes(size))
                platform.bus.read(window, 1)
                yield offset, size, platform.cycles - start


def test_writes_of_any_bytes_take_the_cycles_of_hardware():
    """DRAM waits for the rest of a line that is written in part."""
    assert list(written("timing")) == list(written("native"))


def test_commands_of_two_slots_complete_once():
    extended = pack(Opcode.FENCE_LOAD, second_wait_counter=0)
    with halfdome.open(cards=1, config="tiny", engine="timing") as runtime:
        device = runtime.cards[0].device
        completions = device.wait(device.submit([extended] * 40, sizes=np.full(40, 2)))
        assert completions.status.tolist() == [0] * 40


def test_a_tag_that_comes_back_is_waited_for():
    """Of two tags DMA has one, and the next read waits until the one before has ended."""
    config = PRESETS["tiny"].replace(dma_tags=2)
    sizes = {"rows": 4, "row_bytes": 64, "source_stride": 64, "destination_stride": 64}
    with halfdome.open(cards=1, config=config, engine="timing") as runtime:
        device = runtime.cards[0].device
        source = runtime.platform.bus.map(256).address
        loads = [pack(Opcode.LOAD, source=source, destination=0, **sizes)] * 3
        completions = device.wait(device.submit(loads))
        assert completions.status.tolist() == [0] * 3


@pytest.mark.parametrize(("option", "value"), [("keep_inputs", True), ("card_factory", object)])
def test_what_needs_hardware_says_so(option, value):
    with pytest.raises(ValueError, match=f"{option}=.*needs a card of hardware.*'timing'"):
        halfdome.open(cards=1, config="tiny", engine="timing", **{option: value})
