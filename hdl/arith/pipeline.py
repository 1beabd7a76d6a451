"""Pieces that the arithmetic pipelines share: a register between stages, an aligning shift."""

from amaranth import Cat, Const, Module, Signal, Value


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


def align(m: Module, value: Value, amount: Value, width: int, name: str) -> Signal:
    """`value` at the top of `width` bits, shifted right by `amount <= width`.

    Bits that fall off the end leave their OR in bit 0, which is enough to round what remains.
    """
    size = len(value)
    room = Signal(range(width + 1), name=f"{name}_room")
    lost = Signal(size, name=f"{name}_lost")
    shifted = Signal(width, name=f"{name}_shifted")
    aligned = Signal(width, name=f"{name}_aligned")
    m.d.comb += [
        room.eq(width - amount),
        # Right shifts throughout: a left shift by a variable widens its result past 64 bits.
        lost.eq(value & (Const((1 << size) - 1, size) >> room)),
        shifted.eq(Cat(Const(0, width - size), value) >> amount),
        aligned.eq(Cat(shifted[0] | lost.any(), shifted[1:])),
    ]
    return aligned
