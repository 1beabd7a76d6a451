"""Pieces that the arithmetic pipelines share: a register between stages, an aligning shift."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.utils import bits_for


def register(m: Module, value: Value, name: str, *, cycles: int = 1) -> Value:
    """`value`, `cycles` clock cycles later. Not reset: a pipeline empties by itself."""
    value = Value.cast(value)
    for i in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{i}" if cycles > 1 else name, reset_less=True)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def multiply(m: Module, a: Value, b: Value, name: str, *, cycles: int) -> Value:
    """`a * b`, 1 or 2 cycles later: with 2, products by the halves of `b` are registers."""
    if cycles == 1:
        return register(m, a * b, name)
    half = len(b) // 2
    low = register(m, a * b[:half], f"{name}_low")
    high = register(m, a * b[half:], f"{name}_high")
    return register(m, (low + (high << half))[: len(a) + len(b)], name)


def align(m: Module, value: Value, amount: Value, width: int, name: str) -> Value:
    """`value` at the top of `width` bits, shifted right by the unsigned `amount`, however large.

    Bits that fall off the end leave their OR in bit 0, which is enough to round what remains.
    """
    aligned = Cat(Const(0, width - len(value)), value)
    steps = bits_for(width - 1)
    far = amount[steps:].any()
    lost = far & value.any()
    for k in reversed(range(min(steps, len(amount)))):
        distance = 1 << k
        lost |= amount[k] & aligned[:distance].any()
        shifted = Signal(width, name=f"{name}_by_{distance}")
        m.d.comb += shifted.eq(Mux(amount[k], aligned[distance:], aligned))
        aligned = shifted
    return Cat(lost | aligned[0] & ~far, aligned[1:] & ~far.replicate(width - 1))
