"""Random expressions and assignments of Amaranth."""

import random
from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value

from tests.sim.fuzz.shapes import WIDTHS, number

MOST_BITS = 150


class Expressions:
    """Values made of what may be read, which grows while a component is built."""

    def __init__(self, rng: random.Random, readable: list[Value]):
        self.rng = rng
        self.readable = readable

    def signal(self) -> Value:
        return self.rng.choice(self.readable)

    def constant(self) -> Value:
        width, signed = self.rng.choice(WIDTHS), self.rng.random() < 0.4
        shape = Shape(width, signed and width > 0)
        return Const(number(self.rng, width, signed=shape.signed), shape)

    def bit(self, depth: int = 2) -> Value:
        """A condition."""
        value = self.value(depth)
        return self.rng.choice((value.bool, value.any, value.all, value.xor))()

    def narrow(self, bits: int, depth: int = 1) -> Value:
        """An unsigned value of at most so many bits."""
        value = self.value(depth)
        start = self.rng.randrange(len(value) + 1)
        return value[start : start + self.rng.randrange(bits + 1)]

    def value(self, depth: int = 3) -> Value:
        """Any value of at most `MOST_BITS` bits."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.15:
            return self.signal() if rng.random() < 0.8 else self.constant()
        value = rng.choice((self.unary, self.binary, self.binary, self.part, self.choice))(depth)
        return value[:MOST_BITS] if len(value) > MOST_BITS else value

    def unary(self, depth: int) -> Value:
        value = self.value(depth - 1)
        match self.rng.randrange(9):
            case 0:
                return ~value
            case 1:
                return -value
            case 2:
                return value.as_signed() if len(value) else value
            case 3:
                return value.as_unsigned()
            case 4:
                return abs(value)
            case 5:
                return value.replicate(self.rng.randrange(4))
            case 6:
                return value.rotate_left(self.rng.randrange(-5, 5))
            case 7:
                return value.shift_right(self.rng.randrange(-3, 4)) if len(value) else value
            case _:
                return self.bit(depth - 1)

    def binary(self, depth: int) -> Value:
        rng, a, b = self.rng, self.value(depth - 1), self.value(depth - 1)
        match rng.randrange(16):
            case 0:
                return a + b
            case 1:
                return a - b
            case 2:
                return a * b
            case 3:
                return a // b
            case 4:
                return a % b
            case 5:
                return a & b
            case 6:
                return a | b
            case 7:
                return a ^ b
            case 8:
                return a << self.narrow(4)
            case 9:
                return a >> (self.narrow(7) if rng.random() < 0.5 else b.as_unsigned())
            case 10:
                return a == b
            case 11:
                return a != b
            case 12:
                return a < b
            case 13:
                return a <= b
            case 14:
                return a > b
            case _:
                return a >= b

    def part(self, depth: int) -> Value:
        rng, value = self.rng, self.value(depth - 1)
        match rng.randrange(4):
            case 0:
                start, stop = sorted(rng.choices(range(len(value) + 1), k=2))
                return value[start:stop]
            case 1:
                return value.bit_select(self.narrow(6), rng.randrange(len(value) + 1))
            case 2:
                width = rng.randrange(1, 9)
                return value.word_select(self.narrow(4), min(width, len(value)) or 1)
            case _:
                return Cat(value, *(self.value(depth - 1) for _ in range(rng.randrange(3))))

    def choice(self, depth: int) -> Value:
        rng = self.rng
        match rng.randrange(3):
            case 0:
                return Mux(self.value(depth - 1), self.value(depth - 1), self.value(depth - 1))
            case 1:
                items = [self.value(depth - 1) for _ in range(rng.randrange(1, 5))]
                return Value.cast(Array(items)[self.narrow(3)])
            case _:
                test = self.value(depth - 1)
                return test.matches(*self.patterns(test))

    def patterns(self, test: Value) -> list[str]:
        """Some patterns, with bits that do not count where Yosys can bear them."""
        bits = "0011-" if len(test) < 12 else "01"
        return [
            "".join(self.rng.choices(bits, k=len(test))) for _ in range(self.rng.randrange(1, 3))
        ]


class Statements:
    """Assignments to some signals, under all kinds of conditions."""

    def __init__(self, expressions: Expressions, targets: Sequence[Signal]):
        self._expressions = expressions
        self._rng = expressions.rng
        self._targets = targets

    def target(self) -> Value:
        """A signal, or a part of one, or parts of several."""
        rng, e = self._rng, self._expressions
        signal = rng.choice(self._targets)
        match rng.randrange(10):
            case 0:
                start, stop = sorted(rng.choices(range(len(signal) + 1), k=2))
                return signal[start:stop]
            case 1:
                return signal.bit_select(e.narrow(5), rng.randrange(len(signal) + 1))
            case 2:
                return signal.word_select(e.narrow(3), min(rng.randrange(1, 9), len(signal)) or 1)
            case 3:
                return Cat(*rng.sample(self._targets, min(2, len(self._targets))))
            case 4:
                chosen = rng.choices(self._targets, k=rng.randrange(1, 4))
                return Value.cast(Array(chosen)[e.narrow(2)])
            case 5:
                return signal.as_unsigned()
            case _:
                return signal

    def add(self, m: Module, domain: str, depth: int = 2) -> None:
        """Adds statements to the module."""
        rng, e = self._rng, self._expressions
        for _ in range(rng.randrange(1, 4)):
            kind = rng.randrange(6) if depth else 0
            if kind < 3:
                m.d[domain] += self.target().eq(e.value())
            elif kind < 5:
                with m.If(e.bit()):
                    self.add(m, domain, depth - 1)
                if rng.random() < 0.4:
                    with m.Elif(e.bit()):
                        self.add(m, domain, depth - 1)
                if rng.random() < 0.4:
                    with m.Else():
                        self.add(m, domain, depth - 1)
            else:
                test = e.value(2)
                with m.Switch(test):
                    for _ in range(rng.randrange(1, 4)):
                        with m.Case(*e.patterns(test)):
                            self.add(m, domain, depth - 1)
                    if rng.random() < 0.5:
                        with m.Default():
                            self.add(m, domain, depth - 1)
