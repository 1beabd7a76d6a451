"""Rules of GATHER."""

from collections.abc import Mapping

from halfdome.hdl.commands import POOLED_FORMATS, ElementFormat, Flag, Opcode, RowFormat, Status
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.rules import rule
from halfdome.sim.golden.rules.rule import Broken, Extent


def _gather(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    if v["flags"] & Flag.WARN and v["flags"] & Flag.IGNORE:
        yield Status.BAD_FORMAT, "flags"
    if v["format"] not in set(RowFormat):
        yield Status.BAD_FORMAT, "format"
    if v["output_format"] not in POOLED_FORMATS:
        yield Status.BAD_FORMAT, "output_format"
    element_bytes = ElementFormat(v["output_format"]).nbytes
    if element_bytes == 1 and rule.is_nan_or_infinite(v["multiplier"]):
        yield Status.BAD_FORMAT, "multiplier"
    limit = 2**32 - 1
    yield from rule.dimensions(v, rows=limit, bags=limit, dim=config.max_dim)
    size = RowFormat(v["format"]).row_bytes(v["dim"])
    if v["bags"] > 1:
        yield from rule.strides(v, output_stride=element_bytes * v["dim"])
    if v["rows"] > 1:
        yield from rule.strides(v, row_stride=size)
    weights = ("weights",) if v["flags"] & Flag.WEIGHTED else ()
    yield from rule.aligned(v, config.bus_bytes, "indices", "lengths", *weights)
    integer_bytes = 8 if v["flags"] & Flag.WIDE else 4
    runs = {
        "indices": integer_bytes * v["index_count"],
        "lengths": integer_bytes * v["bags"],
        **dict.fromkeys(weights, 4 * v["index_count"]),
    }
    extents = {
        "output": Extent(v["bags"], v["output_stride"], element_bytes * v["dim"]),
        "table": Extent(v["rows"], v["row_stride"], size),
        **{name: Extent(1, 0, nbytes) for name, nbytes in runs.items()},
    }
    yield from rule.operands(v, config, extents)


RULES: Mapping[Opcode, rule.Rule] = {Opcode.GATHER: _gather}
