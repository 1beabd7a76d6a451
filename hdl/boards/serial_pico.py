"""A pico at the end of a serial line."""

from amaranth import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from halfdome.hdl.boards.bridge import WishboneBridge
from halfdome.hdl.boards.exchange import Exchange
from halfdome.hdl.boards.framing import Framer, Unframer
from halfdome.hdl.boards.uart import UartReceiver, UartTransmitter
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.pico import Pico


class SerialPico(wiring.Component):
    """What a board holds: a pico, and all between it and two wires.

    Parameters
    ----------
    config : CardConfig, of the pico
    engine : Engine, of the pico
    divisor : int, clock cycles of a bit on the wires

    Members
    -------
    rx : In(1), from the host
    tx : Out(1), to the host

    See `halfdome.hdl.serial` for what goes over the wires. A greeting makes the pico as after
    power-on, its scratchpad excepted.
    """

    def __init__(self, config: CardConfig, engine: Engine, divisor: int):
        self._config = config
        self._engine = engine
        self._divisor = divisor
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        pico = Pico(self._config, self._engine)
        m.submodules.receiver = receiver = UartReceiver(self._divisor)
        m.submodules.unframer = unframer = Unframer()
        m.submodules.exchange = exchange = Exchange()
        m.submodules.framer = framer = Framer()
        m.submodules.transmitter = transmitter = UartTransmitter(self._divisor)
        m.submodules.bridge = bridge = WishboneBridge(len(pico.bus.adr))
        m.submodules.pico = ResetInserter(exchange.reset)(pico)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        connect(m, receiver.o, unframer.i)
        connect(m, unframer.o, exchange.i)
        connect(m, exchange.question, bridge.question)
        connect(m, bridge.answer, exchange.answer)
        connect(m, exchange.o, framer.i)
        connect(m, framer.o, transmitter.i)
        connect(m, bridge.bus, pico.bus)
        return m
