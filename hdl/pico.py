"""One engine behind a register port: for products or for gathers, without rings, DMA and PCIe."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl import registers
from halfdome.hdl.command.checker import DescriptorChecker
from halfdome.hdl.commands import Engine, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import HEADER, NO_COUNTER, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.gather.engine import GatherEngine
from halfdome.hdl.matmul.engine import MatmulEngine
from halfdome.hdl.memory.scratchpad import Scratchpad

WORD_BYTES = 4
"""Bytes of the bus."""
_ENGINES = {
    Engine.MATMUL: (MatmulEngine, ("x", "w", "params"), "y"),
    Engine.GATHER: (GatherEngine, ("lengths", "indices", "weights", "rows"), "output"),
}
"""What a pico may hold: the engine, its ports that read memory, the one that writes it."""
PICO_ENGINES = tuple(_ENGINES)


class Wishbone(wiring.Signature):
    """Single accesses to 32-bit words, seen from the initiator.

    Source: Wishbone B4, OpenCores, classic cycles, section 3.2.

    Members
    -------
    cyc, stb : Out(1), both stay up until `ack`
    we : Out(1), write
    adr : Out(address_bits), number of the word
    sel : Out(4), bytes to write
    dat_w : Out(32)
    dat_r : In(32), valid with `ack` of a read
    ack : In(1), the access is over
    """

    def __init__(self, address_bits: int):
        super().__init__(
            {
                "cyc": Out(1),
                "stb": Out(1),
                "we": Out(1),
                "adr": Out(address_bits),
                "sel": Out(WORD_BYTES),
                "dat_w": Out(8 * WORD_BYTES),
                "dat_r": In(8 * WORD_BYTES),
                "ack": In(1),
            }
        )


class Pico(wiring.Component):
    """An engine and a scratchpad that a small processor, or a serial line, can drive.

    Write operands to the scratchpad and a descriptor to `registers.PICO_COMMAND`, start it by
    CONTROL, wait until STATUS says that it is over, read the result. Every descriptor is checked as
    a card checks it; what it says of cores, counters and extensions has no meaning here.

    Parameters
    ----------
    config : CardConfig
        Without DRAM: card addresses are those of the scratchpad, from 0.
    engine : Engine, one of `PICO_ENGINES`

    Members
    -------
    bus : In(Wishbone), `registers.PICO_REGISTERS` from byte 0, the scratchpad from byte
        `registers.PICO_MEMORY`; registers are written whole, whatever `sel` says

    An access takes 2 cycles for a register, 4 for a word that is written, 5 for one that is read;
    one to the scratchpad waits its turn beside the engine. A write of the command or of CONTROL has
    no effect while a command runs. Reads of the command, and where there is no register, answer 0.
    """

    def __init__(self, config: CardConfig, engine: Engine = Engine.MATMUL):
        self._config = config
        self._engine = engine
        memory_end = registers.PICO_MEMORY + config.scratchpad_bytes
        super().__init__({"bus": In(Wishbone(ceil_log2(memory_end // WORD_BYTES)))})

    def elaborate(self, platform):
        m = Module()
        config = self._config
        make, reads, write = _ENGINES[self._engine]
        m.submodules.engine = engine = make(config)
        m.submodules.checker = checker = DescriptorChecker(config, [self._engine])
        m.submodules.scratchpad = scratchpad = Scratchpad(
            config, read_ports=1 + len(reads), write_ports=2
        )
        for name, port in zip(reads, scratchpad.reads[1:], strict=True):
            connect(m, getattr(engine, name), port)
        connect(m, getattr(engine, write), scratchpad.writes[1])

        command = Signal(DESCRIPTOR_BITS)
        start, busy = Signal(), Signal()
        status, detail, cycles = Signal(Status), Signal(32), Signal(32)
        self._run(m, engine, checker, command, start, busy, status, detail, cycles)
        config_hash = Const(int(config.hash, 16), 64)
        values = {
            "ID": registers.PICO_IDENTIFICATION,
            "VERSION": registers.PICO_INTERFACE_VERSION,
            "CONFIG_HASH_LO": config_hash[:32],
            "CONFIG_HASH_HI": config_hash[32:],
            "CONTROL": 0,
            "STATUS": busy,
            "RESULT": status,
            "DETAIL": detail,
            "CYCLES": cycles,
            "ENGINE": self._engine,
        }
        self._serve(m, scratchpad, command, start, busy, values)
        return m

    def _run(self, m, engine, checker, command, start, busy, status, detail, cycles):
        """A command that is good goes to the engine, of a bad one the checker knows the result."""
        descriptor = Signal.like(command)
        header = layout(HEADER)(descriptor)
        m.d.comb += [
            descriptor.eq(command),
            header.core.eq(0),
            header.wait_counter.eq(NO_COUNTER),
            header.signal_counter.eq(NO_COUNTER),
            header.extension.eq(0),
            checker.i.p.bits.eq(descriptor),
            checker.i.valid.eq(start),
            engine.command.p.eq(checker.o.p.descriptor),
        ]
        good = checker.o.p.status == Status.OK
        with m.If(busy):
            m.d.sync += cycles.eq(cycles + 1)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(start):
                    m.d.sync += [busy.eq(1), cycles.eq(0)]
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += [
                    engine.command.valid.eq(checker.o.valid & good),
                    checker.o.ready.eq(~good | engine.command.ready),
                ]
                with m.If(checker.o.valid & checker.o.ready):
                    with m.If(good):
                        m.next = "RUN"
                    with m.Else():
                        m.d.sync += [
                            status.eq(checker.o.p.status),
                            detail.eq(checker.o.p.detail),
                            busy.eq(0),
                        ]
                        m.next = "IDLE"
            with m.State("RUN"):
                m.d.comb += engine.result.ready.eq(1)
                with m.If(engine.result.valid):
                    m.d.sync += [
                        status.eq(engine.result.p.status),
                        detail.eq(engine.result.p.detail),
                        busy.eq(0),
                    ]
                    m.next = "IDLE"

    def _serve(self, m, scratchpad, command, start, busy, values):
        """Accesses from the bus, one at a time."""
        bus = self.bus
        words_of = self._config.bus_bytes // WORD_BYTES
        read, write = scratchpad.reads[0], scratchpad.writes[0]
        lane = bus.adr[: exact_log2(words_of)]
        address = Cat(Const(0, exact_log2(WORD_BYTES)), bus.adr)
        row = (bus.adr[len(lane) :] << exact_log2(self._config.bus_bytes))[: len(address) - 1]
        command_word = bus.adr[: exact_log2(DESCRIPTOR_BITS // 32)]
        first = registers.PICO_COMMAND // WORD_BYTES
        in_command = bus.adr >> len(command_word) == first >> len(command_word)
        control = next(each.offset for each in registers.PICO_REGISTERS if each.name == "CONTROL")
        m.d.comb += [
            read.request.p.address.eq(row),
            write.request.p.address.eq(row),
            write.request.p.data.eq(bus.dat_w.replicate(words_of)),
            write.request.p.strobe.eq(bus.sel << (lane << exact_log2(WORD_BYTES))),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(bus.cyc & bus.stb):
                    with m.If(bus.adr < registers.PICO_MEMORY // WORD_BYTES):
                        with m.If(bus.we & ~busy):
                            with m.If(in_command):
                                m.d.sync += command.word_select(command_word, 32).eq(bus.dat_w)
                            m.d.comb += start.eq(
                                (address == control) & (bus.dat_w & registers.PICO_START).any()
                            )
                        m.d.sync += bus.dat_r.eq(0)
                        with m.Switch(address):
                            for register in registers.PICO_REGISTERS:
                                with m.Case(register.offset):
                                    m.d.sync += bus.dat_r.eq(values[register.name])
                        m.next = "ACKNOWLEDGE"
                    with m.Elif(bus.we):
                        m.d.comb += write.request.valid.eq(1)
                        with m.If(write.request.ready):
                            m.next = "WRITE"
                    with m.Else():
                        m.d.comb += read.request.valid.eq(1)
                        with m.If(read.request.ready):
                            m.next = "READ"
            with m.State("WRITE"):
                with m.If(write.idle):
                    m.next = "ACKNOWLEDGE"
            with m.State("READ"):
                m.d.sync += bus.dat_r.eq(read.response.p.data.word_select(lane, 32))
                with m.If(read.response.valid):
                    m.next = "ACKNOWLEDGE"
            with m.State("ACKNOWLEDGE"):
                m.d.comb += bus.ack.eq(1)
                m.next = "IDLE"
