"""What rules are made of: each yields what a descriptor breaks, as (status, field)."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import NO_COUNTER
from halfdome.sim.golden.vector import float_of

Broken = Iterator[tuple[Status, str]]
"""What a descriptor breaks: the status, and the field that it names."""
Rule = Callable[[Opcode, dict[str, int], CardConfig], Broken]
"""All that the fields of a command of this opcode may break, in order."""


def counters(v: dict[str, int], config: CardConfig, *names: str) -> Broken:
    """Whether there are counters of these numbers."""
    for name in names:
        if v[name] >= config.counters and v[name] != NO_COUNTER:
            yield Status.BAD_COUNTER, name


def dimensions(v: dict[str, int], **limits: int) -> Broken:
    """Whether sizes are at least 1 and at most their limits."""
    for name, limit in limits.items():
        if not 1 <= v[name] <= limit:
            yield Status.BAD_DIMENSION, name


def strides(v: dict[str, int], **row_bytes: int) -> Broken:
    """Whether strides are at least as long as the rows."""
    for name, size in row_bytes.items():
        if v[name] < size:
            yield Status.BAD_DIMENSION, name


def aligned(v: dict[str, int], unit: int, *names: str) -> Broken:
    """Whether fields are multiples of a unit."""
    for name in names:
        if v[name] % unit:
            yield Status.BAD_ALIGNMENT, name


def _inside(config: CardConfig, core: int, base: int, size: int) -> bool:
    """Whether `size` bytes from `base` lie in DRAM or in the scratchpad of `core`."""
    if size == 0:
        return True
    scratchpad = config.scratchpad_address(core)
    regions = (
        range(config.dram_bytes),
        range(scratchpad, scratchpad + config.scratchpad_bytes),
    )
    return any(base in region and base + size - 1 in region for region in regions)


def span_bytes(count: int, stride: int, size: int) -> int:
    """Bytes from the start of the first row to the end of the last."""
    return (count - 1) * stride + size


class Extent(NamedTuple):
    """`count` rows of `size` bytes, `stride` apart."""

    count: int
    stride: int
    size: int

    @property
    def nbytes(self) -> int:
        return span_bytes(self.count, self.stride, self.size) if self.size else 0


def operands(
    v: dict[str, int], config: CardConfig, extents: dict[str, Extent], *, in_place: bool = False,
    apart: tuple[str, ...] = (),
) -> Broken:  # fmt: skip
    """Whether operands leave their memories; then whether the first overlaps one of the others.

    A command that works `in_place` may write the very rows that it reads, if they are as long as
    what it writes; but for operands that must lie `apart`.
    """
    for name, extent in extents.items():
        if not _inside(config, v["core"], v[name], extent.nbytes):
            yield Status.BAD_RANGE, name
    (written, output), *inputs = extents.items()
    for name, extent in inputs:
        in_step = extent.count == 1 or extent.stride == output.stride
        itself = v[name] == v[written] and in_step and output.size <= extent.size
        allowed = in_place and itself and name not in apart
        if not allowed and _overlap(v[written], output, v[name], extent):
            yield Status.BAD_OVERLAP, name


def _overlap(y: int, output: Extent, x: int, extent: Extent) -> bool:
    """Whether they meet, but for rows of one stride in different columns."""
    if not (output.nbytes and extent.nbytes):
        return False
    if y + output.nbytes <= x or x + extent.nbytes <= y:
        return False
    first, second = sorted([(y, output.size), (x, extent.size)])
    gap = second[0] - first[0]
    beside = first[1] <= gap and gap + second[1] <= output.stride
    return not (extent.count > 1 and extent.stride == output.stride and beside)


def is_nan_or_infinite(bits: int) -> bool:
    """Whether a float32 is no number or has no end."""
    exponent_mask = 0x7F80_0000
    return bits & exponent_mask == exponent_mask


def is_nan(bits: int) -> bool:
    """Whether a float32 is no number."""
    return bits & 0x7FFF_FFFF > 0x7F80_0000


def size_outside(bits: int, exponents: range) -> bool:
    """Whether a float32 is as large as no power of two of these exponents or up to the next."""
    return not 2.0**exponents.start <= abs(float(float_of(bits))) < 2.0**exponents.stop
