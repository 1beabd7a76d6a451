"""Descriptors of a program, encoded and then installed: every field is what its command says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import NO_COUNTER, fields, offset, unpack
from halfdome.host.compiler.commands import Buffer, Command, Symbol
from halfdome.host.compiler.commands import Place as Byte
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.memory import Plan
from halfdome.host.compiler.segments import Segments
from halfdome.host.driver import kernels
from halfdome.host.driver.accelerator import Code, Place
from halfdome.host.driver.halfdome import InstalledPart
from halfdome.host.runtime.program import HOST

TINY = PRESETS["tiny"]
SYMBOLS = np.array([48, 16, 4096])
SLOTS = 2


@st.composite
def moves(draw):
    """LOADs of card 0 from host memory or another card, some of whose fields a request decides."""
    buffers = [
        Buffer("far", HOST, 4096), Buffer("peer", 1, 4096), Buffer("near", 0, 4096),
        Buffer("held", 0, 4096, lambda: np.zeros(4096, np.uint8)), Buffer("also", 0, 4096),
    ]  # fmt: skip
    symbols = st.sampled_from([-1, -1, 0, 1, 2])

    def place(choices):
        buffer = draw(st.sampled_from(choices))
        return Byte(buffer, 16 * draw(st.integers(0, 99)), draw(symbols))

    commands = []
    for _ in range(draw(st.integers(1, 6))):
        nbytes = Symbol(1) if draw(st.booleans()) else draw(st.integers(1, 999))
        work = kernels.move(
            Opcode.LOAD, place(buffers[:2]), 512, place(buffers[2:]), 768, 1, nbytes
        )
        commands.append(Command(0, work, ""))
    plan = Plan(
        {id(buffer): "dram" for buffer in buffers},
        {id(buffers[1]): 0, id(buffers[2]): 64, id(buffers[4]): 8192},
        {(0, "dram"): 1 << 14, (1, "dram"): 1 << 14}, {},
    )  # fmt: skip
    return commands, plan


@given(made=moves(), counts=st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_fields_are_those_of_the_command_wherever_things_lie(made, counts):
    commands, plan = made
    counts, segments = counts[: len(commands)], Segments(plan, values=True)
    code = HalfdomeTarget(TINY).encode(commands, counts, segments)
    assert code["sizes"].tolist() == [2 if count > 1 else 1 for count in counts]

    waits = np.array([[0, 1][:count] + [-1] * (2 - count) for count in counts], np.int32)
    numbers = np.arange(len(segments.found))
    here = np.stack([0x10_0000 * (1 + numbers) + 0x1000 * slot for slot in range(SLOTS)])
    bus = here + (1 << 40)
    installed = InstalledPart(
        Code(np.full(len(commands), 3, np.uint8), waits, np.full(len(commands), -1), code),
        Place(here, bus, np.array([8, 9]), []), 0,
    )  # fmt: skip
    for slot in range(SLOTS):
        installed.set_symbols(slot, SYMBOLS)
        for number, (command, count) in enumerate(zip(commands, counts, strict=True)):
            raw = installed.run(np.array([number]), np.array([slot]))[1].tobytes()
            found = unpack(fields(Opcode.LOAD), raw[:64])
            for name, value in command.work.fields.items():
                if isinstance(value, Symbol):
                    expected = SYMBOLS[value.number]
                elif isinstance(value, Byte):
                    segment, start = segments.of(value.buffer)
                    base = here if value.buffer.position == 0 else bus
                    expected = base[slot, segment] + start + value.offset
                    expected += SYMBOLS[value.symbol] if value.symbol >= 0 else 0
                else:
                    expected = value
                assert found[name] == expected, name
            assert found["wait_counter"] == (8 if count else NO_COUNTER)
            assert found["signal_counter"] == 3
            if count > 1:
                assert raw[offset(Opcode.LOAD, "second_wait_counter")] == 9


@given(made=moves())
def test_what_a_request_decides_stays_within_its_buffer(made):
    commands, plan = made
    segments = Segments(plan, values=True)
    code = HalfdomeTarget(TINY).encode(commands, [0] * len(commands), segments)
    reaches = {
        (row, byte): (start, nbytes) for row, byte, start, nbytes in code["reaches"].tolist()
    }
    for row, command in enumerate(commands):
        open_ended = isinstance(command.work.fields["row_bytes"], Symbol)
        for name in ("source", "destination"):
            place = command.work.fields[name]
            at = row, offset(Opcode.LOAD, name)
            if open_ended or place.symbol >= 0:
                assert reaches.pop(at) == (segments.of(place.buffer)[1], place.buffer.nbytes)
    assert reaches == {}


def test_segments_are_numbered_as_they_are_met_and_those_of_a_request_share_one_for_each_memory():
    near, also, peer = Buffer("a", 0, 8), Buffer("b", 0, 8), Buffer("c", 1, 8)
    held, far = Buffer("w", 0, 3, lambda: np.arange(3, dtype=np.uint8)), Buffer("h", HOST, 9)
    plan = Plan(
        {id(b): "dram" for b in (near, also, peer, held)},
        {id(near): 0, id(also): 64, id(peer): 0}, {(0, "dram"): 128, (1, "dram"): 64},
        {(0, "dram"): 64},
    )  # fmt: skip
    segments = Segments(plan, values=True)
    found = [segments.of(b) for b in (also, far, held, near, peer, held)]
    assert found == [(0, 64), (1, 0), (2, 0), (0, 0), (3, 0), (2, 0)]
    [(name, contents)] = segments.weights.items()
    assert name.startswith("w ")
    assert contents.tolist() == [0, 1, 2]
    assert [(s.position, s.per_slot, s.nbytes, s.contents) for s in segments.found] == [
        (0, True, 128, ""), (HOST, True, 9, ""), (0, False, 3, name), (1, True, 64, ""),
    ]  # fmt: skip
