"""What the card's descriptor checker says about a descriptor: plain Python, no hardware in sight.

The first rule that a descriptor breaks decides. The order is: header fields; formats, flags and
scales; dimensions; strides that would let rows overlap (too small for a row: a dimension error);
alignment; ranges; each group in the order of the fields. Where there is only one row, its stride is
irrelevant and never checked. An operand of no bytes (the indices of an empty GATHER) must be
aligned but may point anywhere.
"""

from collections.abc import Iterator

from hdl.commands import (
    FLAGS,
    HEADER,
    MATMUL_LIMIT,
    NO_COUNTER,
    IndexMode,
    Opcode,
    RowFormat,
    Status,
    fields,
    offset,
    unpack,
)
from hdl.config import CardConfig

_PCIE_OPERANDS = {(Opcode.LOAD, "source"), (Opcode.STORE, "destination")}


def row_size(row_format: RowFormat, dim: int) -> int:
    """Bytes of an embedding row with its scale and bias."""
    return dim + 8 if row_format == RowFormat.INT8 else (dim + 1) // 2 + 4


def check(descriptor: bytes, config: CardConfig) -> tuple[Status, int]:
    """The status and detail with which the checker passes the 64-byte `descriptor` on."""
    header = unpack(HEADER, descriptor)
    if header["opcode"] not in set(Opcode):
        return Status.BAD_OPCODE, header["opcode"]
    opcode = Opcode(header["opcode"])
    values = unpack(fields(opcode), descriptor)
    for status, name in _violations(opcode, values, config):
        return status, offset(opcode, name)
    return Status.OK, 0


def _violations(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    """Every broken rule as (status, field), in the order of the module's docstring."""
    if v["core"] >= config.cores:
        yield Status.BAD_CORE, "core"
    if v["flags"] & ~int(FLAGS.get(opcode, 0)):
        yield Status.BAD_FORMAT, "flags"
    for name in ("wait_counter", "signal_counter"):
        if v[name] >= config.counters and v[name] != NO_COUNTER:
            yield Status.BAD_COUNTER, name
    if v["reserved"]:
        yield Status.BAD_FORMAT, "reserved"
    rules = {
        Opcode.LOAD: _move, Opcode.COPY: _move, Opcode.STORE: _move, Opcode.SIGNAL: _signal,
        Opcode.GATHER: _gather, Opcode.MATMUL: _matmul, Opcode.QUANTISE: _quantise,
    }  # fmt: skip
    if opcode in rules:
        yield from rules[opcode](opcode, v, config)


def _dimensions(v: dict[str, int], **limits: int) -> Iterator:
    for name, limit in limits.items():
        if not 1 <= v[name] <= limit:
            yield Status.BAD_DIMENSION, name


def _strides(v: dict[str, int], **row_bytes: int) -> Iterator:
    for name, size in row_bytes.items():
        if v[name] < size:
            yield Status.BAD_DIMENSION, name


def _aligned(v: dict[str, int], unit: int, *names: str) -> Iterator:
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


def _ranges(v: dict[str, int], config: CardConfig, **sizes: int) -> Iterator:
    for name, size in sizes.items():
        if not _inside(config, v["core"], v[name], size):
            yield Status.BAD_RANGE, name


def _rows(count: int, stride: int, size: int) -> int:
    """Bytes from the start of the first row to the end of the last."""
    return (count - 1) * stride + size


def _move(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    limit = 2**32 - 1
    yield from _dimensions(v, rows=limit, row_bytes=limit)
    strides = ("source_stride", "destination_stride") if v["rows"] > 1 else ()
    yield from _strides(v, **dict.fromkeys(strides, v["row_bytes"]))
    yield from _aligned(v, config.bus_bytes, "source", "destination", *strides)
    for name in ("source", "destination"):
        if (opcode, name) not in _PCIE_OPERANDS:
            size = _rows(v["rows"], v[f"{name}_stride"], v["row_bytes"])
            yield from _ranges(v, config, **{name: size})


def _signal(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    yield from _aligned(v, 4, "address")


def _gather(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    if v["format"] not in set(RowFormat):
        yield Status.BAD_FORMAT, "format"
    if v["mode"] not in set(IndexMode):
        yield Status.BAD_FORMAT, "mode"
    limit = 2**32 - 1
    yield from _dimensions(v, rows=limit, bags=limit, dim=config.max_dim)
    size = row_size(RowFormat(v["format"]), v["dim"])
    if v["rows"] > 1:
        yield from _strides(v, row_stride=size)
    if v["bags"] > 1:
        yield from _strides(v, output_stride=4 * v["dim"])
    weights = ("weights",) if v["flags"] else ()
    yield from _aligned(v, config.bus_bytes, "indices", "lengths", *weights, "output")
    if v["bags"] > 1:
        yield from _aligned(v, config.bus_bytes, "output_stride")
    sizes = {
        "table": _rows(v["rows"], v["row_stride"], size),
        "indices": 4 * v["index_count"],
        "lengths": 4 * v["bags"],
        **dict.fromkeys(weights, 4 * v["index_count"]),
        "output": _rows(v["bags"], v["output_stride"], 4 * v["dim"]),
    }
    yield from _ranges(v, config, **sizes)


def _matmul(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    yield from _dimensions(v, m=MATMUL_LIMIT, k=MATMUL_LIMIT, n=MATMUL_LIMIT)
    if v["m"] > 1:
        yield from _strides(v, x_stride=v["k"], y_stride=v["n"])
    strides = ("x_stride", "y_stride") if v["m"] > 1 else ()
    yield from _aligned(v, config.bus_bytes, "x", "w", "params", "y", *strides)
    tiles = -(-v["k"] // config.array_rows) * -(-v["n"] // config.array_columns)
    yield from _ranges(
        v,
        config,
        x=_rows(v["m"], v["x_stride"], v["k"]),
        w=tiles * config.weight_tile_bytes,
        params=8 * v["n"],
        y=_rows(v["m"], v["y_stride"], v["n"]),
    )


def _quantise(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    exponent_mask = 0x7F80_0000
    if v["multiplier"] & exponent_mask == exponent_mask:
        yield Status.BAD_FORMAT, "multiplier"
    limit = 2**32 - 1
    yield from _dimensions(v, rows=limit, columns=limit)
    sizes = {"source": 4 * v["columns"], "destination": v["columns"]}
    strides = {f"{name}_stride": size for name, size in sizes.items()} if v["rows"] > 1 else {}
    yield from _strides(v, **strides)
    yield from _aligned(v, config.bus_bytes, "source", "destination", *strides)
    for name, size in sizes.items():
        extent = _rows(v["rows"], v[f"{name}_stride"], size)
        yield from _ranges(v, config, **{name: extent})
