"""Rules of commands element by element."""

from collections.abc import Mapping

import numpy as np

from halfdome.hdl.commands import (
    BYTE_FORMATS,
    MULTIPLIER_EXPONENTS,
    OFFSET_LIMIT,
    RATIO_EXPONENTS,
    TABLE_BYTES,
    ElementFormat,
    Flag,
    Function,
    Opcode,
    Status,
)
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields
from halfdome.sim.golden.rules import rule
from halfdome.sim.golden.rules.rule import Broken, Extent
from halfdome.sim.golden.vector import float_of


def _constant_broken(opcode: Opcode, name: str, v: dict[str, int]) -> bool:
    """Whether a constant of a vector command has no meaning."""
    match name:
        case "scale" if opcode is Opcode.QUANTISE:
            return not np.finfo(np.float32).tiny <= float_of(v[name]) < np.inf
        case "y_format" if opcode is Opcode.QUANTISE:
            return v[name] not in (ElementFormat.UINT8, ElementFormat.INT8)
        case "multiplier" | "scale":
            return rule.is_nan_or_infinite(v[name]) or not v[name] & 0x7FFF_FFFF
        case "shift":
            return rule.is_nan_or_infinite(v[name])
        case "low":
            return rule.is_nan(v[name])
        case "high":
            low, high = (float(float_of(v[side])) for side in ("low", "high"))
            signs = bool(v["low"] >> 31), bool(v["high"] >> 31)
            return (
                rule.is_nan(v[name]) or high < low or (high == low == 0 and signs == (False, True))
            )
        case "function":
            return v[name] not in set(Function)
        case "y_format":
            return v[name] not in set(ElementFormat) - {ElementFormat.INT32}
        case "a_format" | "b_format":
            return v[name] not in set(ElementFormat)
    return False


def _vector(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    if v["flags"] & Flag.SUM and v["flags"] & Flag.MAX:
        yield Status.BAD_FORMAT, "flags"
    for field in fields(opcode):
        if _constant_broken(opcode, field.name, v):
            yield Status.BAD_FORMAT, field.name
    columns = {"y": 1 if v["flags"] & (Flag.SUM | Flag.MAX) else v["columns"], "a": v["columns"]}
    if "b" in v:
        columns["b"] = 1 if v["flags"] & Flag.BROADCAST else v["columns"]
    size = {n: count * ElementFormat(v[f"{n}_format"]).nbytes for n, count in columns.items()}
    yield from _matrices(v, config, size)
    yield from rule.operands(v, config, _extents(v, size), in_place=True)


def _lookup(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    size = dict.fromkeys(("y", "a"), v["columns"])
    yield from _matrices(v, config, size)
    yield from rule.aligned(v, config.bus_bytes, "table")
    extents = _extents(v, size) | {"table": Extent(1, 0, TABLE_BYTES)}
    yield from rule.operands(v, config, extents, in_place=True, apart=("table",))


def _pair(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    for name in ("y_format", "a_format", "b_format"):
        if v[name] not in BYTE_FORMATS:
            yield Status.BAD_FORMAT, name
    exponents = {"multiplier": MULTIPLIER_EXPONENTS}
    exponents |= dict.fromkeys(("a_ratio", "b_ratio"), RATIO_EXPONENTS)
    for name, bounds in exponents.items():
        if name in v and rule.size_outside(v[name], bounds):
            yield Status.BAD_FORMAT, name
    if "offset" in v and not abs(float(float_of(v["offset"]))) < OFFSET_LIMIT:
        yield Status.BAD_FORMAT, "offset"
    size = dict.fromkeys(("y", "a", "b"), v["columns"])
    if v["flags"] & Flag.BROADCAST:
        size["b"] = 1
    yield from _matrices(v, config, size)
    yield from rule.operands(v, config, _extents(v, size), in_place=True)


def _matrices(v: dict[str, int], config: CardConfig, size: dict[str, int]) -> Broken:
    """Rules of matrices whose rows have so many bytes."""
    limit = 2**32 - 1
    yield from rule.dimensions(v, rows=limit, columns=limit)
    strides = {f"{name}_stride": bytes_ for name, bytes_ in size.items() if v["rows"] > 1}
    if v.get("b_stride") == 0:
        strides.pop("b_stride", None)
    yield from rule.strides(v, **strides)
    yield from rule.aligned(v, config.bus_bytes, *size, *strides)


def _extents(v: dict[str, int], size: dict[str, int]) -> dict[str, Extent]:
    return {n: Extent(v["rows"], v[f"{n}_stride"], nbytes) for n, nbytes in size.items()}


RULES: Mapping[Opcode, rule.Rule] = {
    Opcode.AFFINE: _vector,
    Opcode.ADD: _vector,
    Opcode.MULTIPLY: _vector,
    Opcode.CLAMP: _vector,
    Opcode.QUANTISE: _vector,
    Opcode.LOOKUP: _lookup,
    Opcode.ADD_QUANTISED: _pair,
    Opcode.MULTIPLY_QUANTISED: _pair,
}
