"""Bytes over two wires: asynchronous serial, 8 data bits, no parity, one stop bit."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

LEAST_DIVISOR = 4
"""Fewest clock cycles of a bit: the middle of a bit is found to a quarter of it."""


def check_divisor(divisor: int) -> None:
    """Raises `ValueError` for a bit that is too short to be sampled in its middle."""
    if divisor < LEAST_DIVISOR:
        raise ValueError(f"divisor={divisor}: a bit takes {LEAST_DIVISOR} cycles at least")


class UartReceiver(wiring.Component):
    """Bytes from a wire. A byte without its stop bit is dropped.

    Parameters
    ----------
    divisor : int, clock cycles of a bit

    Members
    -------
    rx : In(1), high when idle; from any clock domain
    o : Out(stream of 8 bits, always ready), in the middle of the stop bit
    """

    def __init__(self, divisor: int):
        check_divisor(divisor)
        self._divisor = divisor
        super().__init__(
            {"rx": In(1, init=1), "o": Out(stream.Signature(8, always_ready=True))},
        )

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.rx, line, init=1)
        left = Signal(range(self._divisor))
        bits = Signal(range(8))
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += left.eq(self._divisor // 2 - 1)
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(left == 0):
                    m.d.sync += [left.eq(self._divisor - 1), bits.eq(0)]
                    m.next = "DATA"
                    with m.If(line):  # a glitch
                        m.next = "IDLE"
            with m.State("DATA"):
                with m.If(left == 0):
                    m.d.sync += [
                        left.eq(self._divisor - 1),
                        self.o.p.eq(Cat(self.o.p[1:], line)),
                        bits.eq(bits + 1),
                    ]
                    with m.If(bits == 7):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(left == 0):
                    m.d.comb += self.o.valid.eq(line)
                    m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a wire, `10 * divisor` cycles each, without gaps while there are any.

    Parameters
    ----------
    divisor : int, clock cycles of a bit

    Members
    -------
    i : In(stream of 8 bits)
    tx : Out(1), high when idle
    """

    def __init__(self, divisor: int):
        check_divisor(divisor)
        self._divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(self._divisor))
        shifted = Signal(9, init=0x1FF)  # what follows the bit on the wire
        bits = Signal(range(10))
        ended = left == 0
        m.d.comb += self.i.ready.eq(ended & (bits == 0))
        with m.If(~ended):
            m.d.sync += left.eq(left - 1)
        with m.Elif(bits != 0):
            m.d.sync += [
                left.eq(self._divisor - 1),
                bits.eq(bits - 1),
                self.tx.eq(shifted[0]),
                shifted.eq(Cat(shifted[1:], Const(1, 1))),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += [
                left.eq(self._divisor - 1),
                bits.eq(9),
                self.tx.eq(0),
                shifted.eq(Cat(self.i.p, Const(1, 1))),
            ]
        return m
