"""A pico behind a line is a card to the driver; a line that is lost is a card that is lost."""

import numpy as np
import pytest

from halfdome.hdl import registers
from halfdome.hdl.commands import Engine, Opcode
from halfdome.hdl.config import PICO
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, fields, unpack
from halfdome.host import platform
from halfdome.host.driver import pico
from halfdome.host.driver.errors import CardError, CardLost, CommandError
from halfdome.host.driver.memory import CardFull
from halfdome.sim.golden.products import execute

AT = {register.name: register.offset for register in registers.PICO_REGISTERS}


class GoldenLine:
    """A line to a pico that the golden model computes for, until it is cut."""

    port = "golden"

    def __init__(self, identification=registers.PICO_IDENTIFICATION, config=PICO):
        self.memory = np.zeros(config.scratchpad_bytes, np.uint8)
        self.registers = np.zeros(registers.PICO_MEMORY, np.uint8)
        self.cut_after = None
        self.greetings = 0
        config_hash = int(config.hash, 16)
        words = (identification, registers.PICO_INTERFACE_VERSION, config_hash & 0xFFFF_FFFF,
                 config_hash >> 32)  # fmt: skip
        self.registers[:16].view("<u4")[:] = words
        self.registers[AT["ENGINE"]] = Engine.MATMUL

    def _pass(self):
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                raise TimeoutError("cut")

    def greet(self):
        if self.cut_after is not None:
            raise CardError("nothing answers")
        self.greetings += 1

    def close(self):
        self.closed = True

    def _space(self, address, nbytes):
        assert address % 4 == nbytes % 4 == 0
        if address >= registers.PICO_MEMORY:
            return self.memory[address - registers.PICO_MEMORY :][:nbytes]
        return self.registers[address : address + nbytes]

    def read(self, address, nbytes):
        self._pass()
        return self._space(address, nbytes).tobytes()

    def write(self, address, raw):
        self._pass()
        self._space(address, len(raw))[:] = np.frombuffer(raw, np.uint8)
        if address == AT["CONTROL"]:
            start = registers.PICO_COMMAND
            descriptor = self.registers[start : start + DESCRIPTOR_BYTES].tobytes()
            opcode = Opcode(descriptor[0])
            verdict = execute(opcode, unpack(fields(opcode), descriptor), self.memory, PICO)
            self.registers[AT["RESULT"] : AT["CYCLES"] + 4].view("<u4")[:] = (*verdict, 7)


@pytest.fixture
def line(monkeypatch):
    made = GoldenLine()
    monkeypatch.setattr(pico, "SerialLine", lambda port, answer_seconds: made)
    return made


def opened():
    return platform.open(board="golden", patience_cycles=1000)


def test_products_of_a_board_are_the_reference(line):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 33), np.uint8)
    weight = rng.integers(-128, 128, (7, 33), np.int8)
    image = rng.integers(0, 256, (6, 5, 3), np.uint8)
    kernel = rng.integers(-128, 128, (4, 3, 3, 3), np.int8)
    with opened() as runtime:
        card, reference = runtime.cards[0], runtime.reference
        for product in (
            lambda it: it.linear(x, weight, 1e-3, y_zero_point=9, relu=True),
            lambda it: it.linear(x, weight, dtype=np.int32),
            lambda it: it.matmul(x[None], x[None].transpose(0, 2, 1), 1e-3),
            lambda it: it.conv2d(image, kernel, 1e-3, pads=(1, 1, 1, 1)),
        ):
            np.testing.assert_array_equal(product(card), product(reference))
        tensor = card.tensor(x)
        np.testing.assert_array_equal(card.copy(tensor).numpy(), x)
        assert card.counters()["core0_matmul_busy_cycles"] == runtime.cycles > 0
    assert line.closed
    assert line.greetings == 0


def test_many_more_commands_than_a_ring_holds_pass(line):
    x, weight = np.ones((2, 4), np.uint8), np.ones((1, 4), np.int8)
    with opened() as runtime:
        for _ in range(300):
            assert runtime.cards[0].linear(x, weight, 1.0).tolist() == [[4], [4]]


def test_what_a_pico_has_no_engine_for_is_refused_by_name_and_the_next_call_works(line):
    x, weight = np.ones((2, 4), np.uint8), np.ones((1, 4), np.int8)
    with opened() as runtime:
        card = runtime.cards[0]
        with pytest.raises(
            CommandError, match="ADD failed with BAD_OPCODE: the card has no vector"
        ):
            card.add(x, x)
        assert card.linear(x, weight, 1.0).tolist() == [[4], [4]]


def test_operands_that_do_not_fit_are_refused_before_anything_is_sent(line):
    with opened() as runtime:
        with pytest.raises(CardFull):
            runtime.cards[0].tensor(np.zeros(PICO.scratchpad_bytes + 1, np.uint8))
        assert runtime.cards[0].scratchpad.free_bytes == PICO.scratchpad_bytes


def test_what_only_a_simulation_can_do_is_refused(line, tmp_path):
    with opened() as runtime:
        with pytest.raises(RuntimeError, match="trace: is for simulated platforms"):
            with runtime.trace(tmp_path / "trace.json"):
                pass
        with pytest.raises(RuntimeError, match="write_waves: is for simulated"):
            runtime.write_waves(tmp_path / "a.vcd")
        with pytest.raises(RuntimeError, match="inject: is for simulated"):
            runtime.inject(["down:at=1"])


@pytest.mark.parametrize("exchanges", [0, 1, 2, 5])
def test_a_line_that_is_cut_is_a_card_that_is_lost(line, exchanges):
    x, weight = np.ones((2, 4), np.uint8), np.ones((1, 4), np.int8)
    with opened() as runtime:
        card = runtime.cards[0]
        assert card.linear(x, weight, 1.0).tolist() == [[4], [4]]
        line.cut_after = exchanges
        with pytest.raises(CardLost, match="card 0: "):
            card.linear(x, weight, 1.0)
        line.cut_after = None
        assert card.accelerator.restart([])
        assert card.linear(x, weight, 1.0).tolist() == [[4], [4]]
    assert line.greetings


def test_something_else_behind_the_line_is_told(monkeypatch):
    made = GoldenLine(identification=registers.IDENTIFICATION)
    monkeypatch.setattr(pico, "SerialLine", lambda port, answer_seconds: made)
    with pytest.raises(CardError, match="board 'golden': ID=0x464c4148, version 2 is no pico"):
        opened()
    assert made.closed


def test_a_pico_of_another_configuration_is_refused(monkeypatch):
    other = GoldenLine(config=PICO.replace(array_columns=4))
    monkeypatch.setattr(pico, "SerialLine", lambda port, answer_seconds: other)
    with pytest.raises(CardError, match="built from configuration"):
        opened()
    assert other.closed
