"""A pico as a card: the command processor and the DMA that it lacks run here.

The driver sees a bus with one card on it, whose rings, counters and completions are kept in this
module; the commands of the pico's engine run on the board.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from halfdome.hdl import registers
from halfdome.hdl.commands import Engine, Opcode, Status
from halfdome.hdl.config import PICO, CardConfig
from halfdome.hdl.descriptors import (
    COMPLETION,
    COMPLETION_BYTES,
    DESCRIPTOR_BYTES,
    HEADER,
    NO_COUNTER,
    fields,
    offset,
    unpack,
    waits,
)
from halfdome.host.driver.errors import CardError, CardLost
from halfdome.host.driver.layout import round_up
from halfdome.host.driver.serial_line import ANSWER_SECONDS, SerialLine

BAR0, BAR2, MESSAGE = 0, 1 << 32, 1 << 33
"""Bus addresses: of registers, of the pico's memory, of interrupt messages."""
HOST = 1 << 34
"""Of host memory."""
_PAGE_BYTES = 4096
_WORD_BYTES = 4
_HALF = 1 << 31
_AT = {register.name: register.offset for register in registers.PICO_REGISTERS}


@dataclass
class Buffer:
    """Host memory, see `halfdome.host.driver.bus.DmaBuffer`."""

    address: int
    array: np.ndarray
    owner: "PicoBus"

    def release(self) -> None:
        """Gives it back; twice does nothing."""
        self.owner.buffers.pop(self.address, None)


class PicoBus:
    """A bus with one card, a pico behind `line`. Commands end before the doorbell returns.

    LOAD, STORE, COPY and SIGNAL are done by the host over the line, commands of the pico's engine
    by the pico; others end with BAD_OPCODE. Raises `CardError` if something else is behind the
    line.
    """

    errors = 0

    def __init__(self, line: SerialLine, config: CardConfig = PICO):
        self._line = line
        self._config = config
        self.buffers: dict[int, Buffer] = {}
        self._next = HOST
        self.busy_cycles = self.waited_cycles = 0
        identification, version, low, high = np.frombuffer(line.read(_AT["ID"], 16), "<u4")
        if (identification, version) != (
            registers.PICO_IDENTIFICATION, registers.PICO_INTERFACE_VERSION,
        ):  # fmt: skip
            raise CardError(
                f"board {line.port!r}: ID={identification:#010x}, version {version} is no pico "
                f"of the version that this driver knows, {registers.PICO_INTERFACE_VERSION}"
            )
        self._hash = int(low), int(high)
        self._engine = Engine(int.from_bytes(line.read(_AT["ENGINE"], _WORD_BYTES), "little"))
        self._power_on()

    def _power_on(self) -> None:
        at = registers.offset
        self._registers = {
            at("ID"): registers.IDENTIFICATION,
            at("VERSION"): registers.INTERFACE_VERSION,
            at("CONFIG_HASH_LO"): self._hash[0],
            at("CONFIG_HASH_HI"): self._hash[1],
            at("STATUS"): registers.STATUS_IDLE,
        }
        self._head = self._completed = 0
        self._interrupt = self._silent = False

    # What the driver asks of a bus

    def read(self, address: int, nbytes: int) -> bytes:
        """Registers of the card, or whole words of the pico's memory."""
        if address >= BAR2:
            return self._line.read(registers.PICO_MEMORY + address - BAR2, nbytes)
        if self._silent:
            self._reset()  # it may answer again, as after power-on
        if self._silent:
            raise TimeoutError(f"board {self._line.port!r}: does not answer")
        if address == registers.activity_offset(0, self._engine, "busy"):
            return (self.busy_cycles & 0xFFFF_FFFF).to_bytes(nbytes, "little")
        return self._registers.get(address, 0).to_bytes(nbytes, "little")

    def write(self, address: int, data: bytes) -> None:
        """Registers of the card, or its memory; a doorbell runs what it announces."""
        if address >= BAR2:
            self._put(address - BAR2, data)
            return
        value = int.from_bytes(data, "little")
        if address == registers.offset("CONTROL") and value & registers.CONTROL_RESET:
            self._reset()
            return
        self._registers[address] = value
        try:
            self._run()
        except (TimeoutError, CardLost):
            self._silent = True

    def map(self, nbytes: int) -> Buffer:
        """Zeroed host memory."""
        buffer = Buffer(self._next, np.zeros(round_up(nbytes, _PAGE_BYTES), np.uint8), self)
        self._next += len(buffer.array) + _PAGE_BYTES
        self.buffers[buffer.address] = buffer
        return buffer

    def wait(self, timeout_cycles: int, message: int = 0) -> bool:
        """Whether a command has ended since the last call: none ends while the host sleeps.

        If not, the time that it would have slept counts as gone.
        """
        came, self._interrupt = self._interrupt, False
        self.waited_cycles += 0 if came else timeout_cycles
        return came

    def _reset(self) -> None:
        self._power_on()
        try:
            self._line.greet()
        except CardError:
            self._silent = True

    # What a card does

    def _run(self) -> None:
        """Commands of the ring, in order, as long as what they wait for has happened."""
        at = registers.offset
        while (
            not self._silent
            and self._registers.get(at("CONTROL"), 0) & registers.CONTROL_RUN
            and self._head != self._registers.get(at("SQ_TAIL"), 0)
        ):
            size = self._registers[at("SQ_SIZE")]
            slots = [self._slot((self._head + i) % size) for i in (0, 1)]
            header = unpack(HEADER, slots[0])
            command = b"".join(slots[: 1 + (header["extension"] == 1)])
            if not all(self._reached(*wait) for wait in waits(command)):
                return
            start = self.busy_cycles
            status, detail = self._execute(slots[0])
            if (counter := header["signal_counter"]) != NO_COUNTER:
                self._registers[registers.counter_offset(counter)] = header["signal_value"]
            self._complete(header["id"], status, detail, start)
            self._head = (self._head + len(command) // DESCRIPTOR_BYTES) % size

    def _slot(self, number: int) -> bytes:
        base = self._address("SQ_BASE") + number * DESCRIPTOR_BYTES
        return self._host(base, DESCRIPTOR_BYTES).tobytes()

    def _address(self, name: str) -> int:
        low, high = (self._registers[registers.offset(f"{name}_{half}")] for half in ("LO", "HI"))
        return high << 32 | low

    def _reached(self, counter: int, value: int) -> bool:
        now = self._registers.get(registers.counter_offset(counter), 0)
        return (now - value) % (1 << 32) < _HALF

    def _complete(self, identifier: int, status: int, detail: int, start: int) -> None:
        size = self._registers[registers.offset("CQ_SIZE")]
        values = {
            "id": identifier, "status": status, "detail": detail,
            "phase": 1 - self._completed // size % 2,
            "start_cycle": start % (1 << 32), "end_cycle": self.busy_cycles % (1 << 32),
        }  # fmt: skip
        entry = b"".join(values[f.name].to_bytes(f.bits // 8, "little") for f in COMPLETION)
        place = self._address("CQ_BASE") + self._completed % size * COMPLETION_BYTES
        self._host(place, COMPLETION_BYTES)[:] = np.frombuffer(entry, np.uint8)
        self._completed += 1
        self._interrupt = True

    def _execute(self, descriptor: bytes) -> tuple[int, int]:
        """Status and detail of a command."""
        code = descriptor[0]
        if code not in set(Opcode):
            return Status.BAD_OPCODE, code
        opcode = Opcode(code)
        values = unpack(fields(opcode), descriptor)
        if opcode.is_fence:
            return Status.OK, 0
        if opcode.engine is self._engine:
            return self._compute(descriptor)
        if opcode is Opcode.SIGNAL:
            raw = values["value"].to_bytes(_WORD_BYTES, "little")
            if values["address"] < BAR2:
                self._registers[values["address"]] = values["value"]
            else:
                self._host(values["address"], _WORD_BYTES)[:] = np.frombuffer(raw, np.uint8)
            return Status.OK, 0
        if opcode in (Opcode.LOAD, Opcode.STORE, Opcode.COPY):
            return self._move(opcode, values)
        return Status.BAD_OPCODE, code

    def _compute(self, descriptor: bytes) -> tuple[int, int]:
        self._line.write(registers.PICO_COMMAND, descriptor)
        self._line.write(_AT["CONTROL"], registers.PICO_START.to_bytes(_WORD_BYTES, "little"))
        while True:
            raw = self._line.read(_AT["STATUS"], 4 * _WORD_BYTES)
            busy, status, detail, cycles = (int(word) for word in np.frombuffer(raw, "<u4"))
            if not busy & registers.PICO_BUSY:
                self.busy_cycles += cycles
                return status, detail

    def _move(self, opcode: Opcode, values: dict[str, int]) -> tuple[int, int]:
        """Rows between host and pico, or within the pico."""
        size = values["row_bytes"]
        for name, from_host in (
            ("source", opcode is Opcode.LOAD), ("destination", opcode is Opcode.STORE)
        ):  # fmt: skip
            end = values[name] + (values["rows"] - 1) * values[f"{name}_stride"] + size
            if not from_host and end > self._config.scratchpad_bytes:
                return Status.BAD_RANGE, offset(opcode, name)
        for row in range(values["rows"]):
            source = values["source"] + row * values["source_stride"]
            target = values["destination"] + row * values["destination_stride"]
            raw = (
                self._host(source, size).tobytes()
                if opcode is Opcode.LOAD
                else self._get(source, size)
            )
            if opcode is Opcode.STORE:
                self._host(target, size)[:] = np.frombuffer(raw, np.uint8)
            else:
                self._put(target, raw)
        return Status.OK, 0

    def _host(self, address: int, nbytes: int) -> np.ndarray:
        """Host memory that was mapped, as a view. Raises `CardError` for what was not."""
        for buffer in self.buffers.values():
            start = address - buffer.address
            if start >= 0 and start + nbytes <= len(buffer.array):
                return buffer.array[start : start + nbytes]
        raise CardError(f"board {self._line.port!r}: {nbytes} bytes at {address:#x} are not mapped")

    def _get(self, address: int, nbytes: int) -> bytes:
        """Any bytes of the pico's memory."""
        start, end = address // _WORD_BYTES * _WORD_BYTES, round_up(address + nbytes, _WORD_BYTES)
        raw = self._line.read(registers.PICO_MEMORY + start, end - start)
        return raw[address - start : address - start + nbytes]

    def _put(self, address: int, raw: bytes) -> None:
        """Likewise; bytes beside it in their words stay as they are."""
        start, end = address // _WORD_BYTES * _WORD_BYTES, round_up(address + len(raw), _WORD_BYTES)
        before = self._get(start, address - start)
        after = self._get(address + len(raw), end - address - len(raw))
        self._line.write(registers.PICO_MEMORY + start, before + raw + after)


class Bars(NamedTuple):
    """Where the BARs of the one card are on the bus."""

    bar0: int = BAR0
    bar2: int = BAR2


class Board:
    """A platform of one board, as `halfdome.host.platform.Runtime` asks for it.

    Parameters
    ----------
    port : str, see `SerialLine`
    answer_seconds : float, likewise
    """

    config = PICO
    bars = (Bars(),)
    values = True

    def __init__(self, port: str, answer_seconds: float = ANSWER_SECONDS):
        self._line = SerialLine(port, answer_seconds=answer_seconds)
        try:
            self.bus = PicoBus(self._line)
        except BaseException:
            self._line.close()
            raise

    @property
    def cycles(self) -> int:
        """Cycles that commands took and that were waited for in vain, all together."""
        return self.bus.busy_cycles + self.bus.waited_cycles

    def message(self, index: int) -> tuple[int, int]:
        """Address and data of the interrupt message."""
        return MESSAGE, index

    def close(self) -> None:
        """Gives the port back."""
        self._line.close()
