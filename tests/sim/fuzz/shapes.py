"""Random shapes, names and signatures for ports."""

import random

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

WIDTHS = (0, 1, 1, 2, 3, 4, 7, 8, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100)

NAMES = (
    # C++ and C, what its headers define, and what Verilator calls its own
    "alignof", "and_eq", "asm", "auto", "bool", "catch", "char", "class", "concept", "const",
    "default", "delete", "double", "enum", "errno", "EOF", "explicit", "export", "float", "goto",
    "inline", "int", "linux", "long", "M_PI", "mutable", "name", "namespace", "new", "NULL",
    "operator", "private", "register", "short", "signed", "sizeof", "static", "stdin", "struct",
    "template", "this", "throw", "typename", "union", "unix", "using", "virtual", "void", "xor",
    "CData", "TOP", "card", "contextp", "eval", "final", "hierName", "modelName", "rootp", "top",
    "trace", "vlSymsp",
    # Verilog and SystemVerilog
    "always", "assign", "automatic", "begin", "bit", "buf", "byte", "case", "cell", "cover",
    "deassign", "disable", "edge", "end", "endmodule", "event", "force", "fork", "function",
    "generate", "genvar", "initial", "inout", "input", "integer", "join", "logic", "module",
    "negedge", "nor", "output", "package", "parameter", "posedge", "program", "pull0", "randomize",
    "reg", "release", "repeat", "scalared", "small", "strong0", "super", "supply1", "table",
    "task", "time", "tri", "wand", "wire", "wor",
    # what models call their clocks and pins
    "clk", "rst", "slow_clk", "i0", "o0", "o1", "fires", "checks", "plain", "x", "y", "value",
)  # fmt: skip


class Colour(enum.Enum, shape=unsigned(2)):
    """Members for all but one value."""

    RED = 0
    GREEN = 1
    BLUE = 3


class Direction(enum.Enum, shape=signed(3)):
    """A member below zero."""

    DOWN = -3
    STILL = 0
    UP = 2


class Header(data.Struct):
    """A structure with initial values."""

    kind: Colour = Colour.GREEN
    length: 9 = 300
    delta: signed(5) = -7


def shape(rng: random.Random, depth: int = 2):
    """Any shape: numbers, enumerations, structures and arrays of them."""
    kind = rng.randrange(10 if depth else 6)
    if kind < 4:
        return unsigned(rng.choice(WIDTHS))
    if kind < 6:
        return signed(rng.choice(WIDTHS[1:]))
    if kind == 6:
        return rng.choice((Colour, Direction))
    if kind == 7:
        return Header
    if kind == 8:
        return data.ArrayLayout(_field(rng, depth), rng.randrange(4))
    return data.StructLayout({name: _field(rng, depth) for name in names(rng, rng.randrange(1, 4))})


def _field(rng: random.Random, depth: int):
    """A shape for a field; Amaranth takes no signed enumerations there."""
    while (chosen := shape(rng, depth - 1)) is Direction:
        pass
    return chosen


def names(rng: random.Random, count: int) -> list[str]:
    """Different names, mostly words of C++ or Verilog."""
    return rng.sample(NAMES, count)


def signature(rng: random.Random, count: int, depth: int = 2) -> dict:
    """Members of a signature with at least `count` ports, nested and in arrays."""
    members = {}
    for name in names(rng, count):
        flow = rng.choice((In, Out))
        nested = depth > 0 and rng.random() < 0.15
        if nested:
            member = flow(wiring.Signature(signature(rng, rng.randrange(1, 3), depth - 1)))
        else:
            chosen = shape(rng)
            member = flow(chosen, init=_init(rng, chosen))
        if rng.random() < 0.15 and not (nested and depth < 2):  # Amaranth cannot flip those
            member = member.array(*(rng.randrange(1, 3) for _ in range(rng.randrange(1, 3))))
        members[name] = member
    return members


def _init(rng: random.Random, chosen) -> object:
    if isinstance(chosen, type) and issubclass(chosen, Colour | Direction):
        return rng.choice(list(chosen))
    if isinstance(chosen, type(unsigned(1))) and rng.random() < 0.4:
        return number(rng, chosen.width, signed=chosen.signed)
    return None


def number(rng: random.Random, width: int, *, signed: bool) -> int:
    """A number of this width: often at the edges of its range."""
    raw = rng.choice((0, 1, -1, 1 << max(width - 1, 0), rng.getrandbits(max(width, 1))))
    raw &= (1 << width) - 1
    return raw - (1 << width) if signed and width and raw >> (width - 1) else raw
