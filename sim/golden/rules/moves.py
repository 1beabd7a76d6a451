"""Rules of LOAD, STORE, COPY, TRANSPOSE and SIGNAL."""

from collections.abc import Mapping

from halfdome.hdl.commands import MATMUL_LIMIT, TRANSPOSED_BYTES, Opcode, Status
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.rules import rule
from halfdome.sim.golden.rules.rule import Broken, Extent

_PCIE_OPERANDS = {(Opcode.LOAD, "source"), (Opcode.STORE, "destination")}


def _move(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    limit = 2**32 - 1
    yield from rule.dimensions(v, rows=limit, row_bytes=limit)
    strides = ("source_stride", "destination_stride") if v["rows"] > 1 else ()
    yield from rule.strides(v, **dict.fromkeys(strides, v["row_bytes"]))
    yield from rule.aligned(v, config.bus_bytes, "source", "destination", *strides)
    extents = {
        name: Extent(v["rows"], v[f"{name}_stride"], v["row_bytes"])
        for name in ("destination", "source")
        if (opcode, name) not in _PCIE_OPERANDS
    }
    yield from rule.operands(v, config, extents, in_place=True)


def _transpose(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    if v["element_bytes"] not in TRANSPOSED_BYTES:
        yield Status.BAD_FORMAT, "element_bytes"
    limits = dict.fromkeys(("rows", "columns", "batches"), MATMUL_LIMIT)
    yield from rule.dimensions(v, **limits)
    sides = {
        "source": (v["rows"], v["columns"] * v["element_bytes"]),
        "destination": (v["columns"], v["rows"] * v["element_bytes"]),
    }
    strides = {f"{name}_stride": size for name, (rows, size) in sides.items() if rows > 1}
    yield from rule.strides(v, **strides)
    batched = [f"{name}_batch_stride" for name in sides] if v["batches"] > 1 else []
    yield from rule.aligned(v, config.bus_bytes, *sides, *strides, *batched)
    extents = {
        name: Extent(
            v["batches"],
            v[f"{name}_batch_stride"],
            rule.span_bytes(rows, v[f"{name}_stride"], size),
        )
        for name, (rows, size) in reversed(sides.items())
    }
    yield from rule.operands(v, config, extents)


def _signal(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    yield from rule.aligned(v, 4, "address")


RULES: Mapping[Opcode, rule.Rule] = {
    Opcode.LOAD: _move,
    Opcode.STORE: _move,
    Opcode.COPY: _move,
    Opcode.TRANSPOSE: _transpose,
    Opcode.SIGNAL: _signal,
}
