"""What the card's descriptor checker says about a descriptor: plain Python, no hardware in sight.

The first rule that a descriptor breaks decides. The order is: header fields; formats, flags and
scales; dimensions; strides that would let rows overlap (too small for a row: a dimension error);
alignment; ranges; overlaps; each group in the order of the fields, but for ranges an operand that
is written comes first. Where there is only one row, its stride is irrelevant and never checked. An
operand of no bytes (the indices of an empty GATHER) must be aligned but may point anywhere. The
params of a product with INT32 output are not looked at.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from halfdome.hdl.commands import (
    BYTE_FORMATS,
    DESCRIPTOR_BYTES,
    EXTENSION,
    FLAGS,
    HEADER,
    MATMUL_LIMIT,
    MOST_AVERAGED,
    MOST_TAPS,
    MULTIPLIER_EXPONENTS,
    NO_COUNTER,
    OFFSET_LIMIT,
    POOLED_FORMATS,
    PRODUCT_FORMATS,
    RATIO_EXPONENTS,
    SCALE_EXPONENTS,
    TABLE_BYTES,
    TRANSPOSED_BYTES,
    ElementFormat,
    Flag,
    Function,
    Opcode,
    RowFormat,
    Status,
    fields,
    offset,
    unpack,
)
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.vector import float_of

_PCIE_OPERANDS = {(Opcode.LOAD, "source"), (Opcode.STORE, "destination")}


def check(descriptor: bytes, config: CardConfig, core: int = 0) -> tuple[Status, int]:
    """The status and detail with which the checker passes the `descriptor` on.

    It has 64 bytes, or 128 with its extension, and is in the ring of `core`.
    """
    header = unpack(HEADER, descriptor)
    if header["opcode"] not in set(Opcode):
        return Status.BAD_OPCODE, header["opcode"]
    opcode = Opcode(header["opcode"])
    values = unpack(fields(opcode), descriptor)
    if values["extension"] == 1:
        values |= unpack(EXTENSION, descriptor[DESCRIPTOR_BYTES:])
    for status, name in _violations(opcode, values, config, core):
        return status, offset(opcode, name)
    return Status.OK, 0


def _violations(opcode: Opcode, v: dict[str, int], config: CardConfig, core: int) -> Iterator:
    """Every broken rule as (status, field), in the order of the module's docstring."""
    if v["core"] != core:
        yield Status.BAD_CORE, "core"
    if v["flags"] & ~int(FLAGS.get(opcode, 0)):
        yield Status.BAD_FORMAT, "flags"
    yield from _counters(v, config, "wait_counter", "signal_counter")
    if v["extension"] > 1:
        yield Status.BAD_FORMAT, "extension"
    if v["extension"] == 1:
        yield from _counters(v, config, "second_wait_counter")
        if v["reserved"]:
            yield Status.BAD_FORMAT, "reserved"
    rules = {
        Opcode.LOAD: _move, Opcode.COPY: _move, Opcode.STORE: _move, Opcode.SIGNAL: _signal,
        Opcode.TRANSPOSE: _transpose,
        Opcode.GATHER: _gather, Opcode.MATMUL: _matmul, Opcode.BATCH_MATMUL: _batch_matmul,
        Opcode.CONV2D: _conv2d, Opcode.AFFINE: _vector, Opcode.ADD: _vector,
        Opcode.MULTIPLY: _vector, Opcode.CLAMP: _vector, Opcode.LOOKUP: _lookup,
        Opcode.QUANTISE: _vector, Opcode.POOL: _pool, Opcode.DEPTHWISE: _depthwise,
        Opcode.ADD_QUANTISED: _pair, Opcode.MULTIPLY_QUANTISED: _pair,
        Opcode.AVERAGE: _average,
    }  # fmt: skip
    if opcode in rules:
        yield from rules[opcode](opcode, v, config)


def _counters(v: dict[str, int], config: CardConfig, *names: str) -> Iterator:
    for name in names:
        if v[name] >= config.counters and v[name] != NO_COUNTER:
            yield Status.BAD_COUNTER, name


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


def _rows(count: int, stride: int, size: int) -> int:
    """Bytes from the start of the first row to the end of the last."""
    return (count - 1) * stride + size


class _Extent(NamedTuple):
    """`count` rows of `size` bytes, `stride` apart."""

    count: int
    stride: int
    size: int

    @property
    def nbytes(self) -> int:
        return _rows(self.count, self.stride, self.size) if self.size else 0


def _operands(
    v: dict[str, int], config: CardConfig, extents: dict[str, _Extent], *, in_place: bool = False,
    apart: tuple[str, ...] = (),
) -> Iterator:  # fmt: skip
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


def _overlap(y: int, output: _Extent, x: int, extent: _Extent) -> bool:
    """Whether they meet, but for rows of one stride in different columns."""
    if not (output.nbytes and extent.nbytes):
        return False
    if y + output.nbytes <= x or x + extent.nbytes <= y:
        return False
    first, second = sorted([(y, output.size), (x, extent.size)])
    gap = second[0] - first[0]
    beside = first[1] <= gap and gap + second[1] <= output.stride
    return not (extent.count > 1 and extent.stride == output.stride and beside)


def _move(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    limit = 2**32 - 1
    yield from _dimensions(v, rows=limit, row_bytes=limit)
    strides = ("source_stride", "destination_stride") if v["rows"] > 1 else ()
    yield from _strides(v, **dict.fromkeys(strides, v["row_bytes"]))
    yield from _aligned(v, config.bus_bytes, "source", "destination", *strides)
    extents = {
        name: _Extent(v["rows"], v[f"{name}_stride"], v["row_bytes"])
        for name in ("destination", "source")
        if (opcode, name) not in _PCIE_OPERANDS
    }
    yield from _operands(v, config, extents, in_place=True)


def _transpose(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    if v["element_bytes"] not in TRANSPOSED_BYTES:
        yield Status.BAD_FORMAT, "element_bytes"
    limits = dict.fromkeys(("rows", "columns", "batches"), MATMUL_LIMIT)
    yield from _dimensions(v, **limits)
    sides = {
        "source": (v["rows"], v["columns"] * v["element_bytes"]),
        "destination": (v["columns"], v["rows"] * v["element_bytes"]),
    }
    strides = {f"{name}_stride": size for name, (rows, size) in sides.items() if rows > 1}
    yield from _strides(v, **strides)
    batched = [f"{name}_batch_stride" for name in sides] if v["batches"] > 1 else []
    yield from _aligned(v, config.bus_bytes, *sides, *strides, *batched)
    extents = {
        name: _Extent(
            v["batches"], v[f"{name}_batch_stride"], _rows(rows, v[f"{name}_stride"], size)
        )
        for name, (rows, size) in reversed(sides.items())
    }
    yield from _operands(v, config, extents)


def _signal(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    yield from _aligned(v, 4, "address")


def _gather(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    if v["flags"] & Flag.WARN and v["flags"] & Flag.IGNORE:
        yield Status.BAD_FORMAT, "flags"
    if v["format"] not in set(RowFormat):
        yield Status.BAD_FORMAT, "format"
    if v["output_format"] not in POOLED_FORMATS:
        yield Status.BAD_FORMAT, "output_format"
    element_bytes = ElementFormat(v["output_format"]).nbytes
    if element_bytes == 1 and _is_nan_or_infinite(v["multiplier"]):
        yield Status.BAD_FORMAT, "multiplier"
    limit = 2**32 - 1
    yield from _dimensions(v, rows=limit, bags=limit, dim=config.max_dim)
    size = RowFormat(v["format"]).row_bytes(v["dim"])
    if v["rows"] > 1:
        yield from _strides(v, row_stride=size)
    if v["bags"] > 1:
        yield from _strides(v, output_stride=element_bytes * v["dim"])
    weights = ("weights",) if v["flags"] & Flag.WEIGHTED else ()
    yield from _aligned(v, config.bus_bytes, "indices", "lengths", *weights)
    integer_bytes = 8 if v["flags"] & Flag.WIDE else 4
    runs = {
        "indices": integer_bytes * v["index_count"],
        "lengths": integer_bytes * v["bags"],
        **dict.fromkeys(weights, 4 * v["index_count"]),
    }
    extents = {
        "output": _Extent(v["bags"], v["output_stride"], element_bytes * v["dim"]),
        "table": _Extent(v["rows"], v["row_stride"], size),
        **{name: _Extent(1, 0, nbytes) for name, nbytes in runs.items()},
    }
    yield from _operands(v, config, extents)


def _product_format(v: dict[str, int], *, triangle: bool = False) -> Iterator:
    if v["y_format"] not in set(PRODUCT_FORMATS):
        yield Status.BAD_FORMAT, "y_format"
    if v["y_format"] == ElementFormat.INT32 and (v["flags"] & Flag.RELU or triangle):
        yield Status.BAD_FORMAT, "y_format"


def _output_bytes(v: dict[str, int]) -> int:
    """Bytes of a row of a product."""
    return v["n"] * (4 if v["y_format"] == ElementFormat.INT32 else 1)


def _params(v: dict[str, int]) -> tuple[str, ...]:
    return () if v["y_format"] == ElementFormat.INT32 else ("params",)


def _product_operands(
    v: dict[str, int], config: CardConfig, *, x: _Extent, w: _Extent, y: _Extent
) -> Iterator:
    extents = {"y": y, "x": x, "w": w}
    if v["y_format"] != ElementFormat.INT32:
        extents["params"] = _Extent(1, 0, 8 * v["n"])
    yield from _operands(v, config, extents)


def _weights(
    v: dict[str, int], config: CardConfig, taps: int, *, diagonal: bool = False
) -> _Extent:
    """Packed weights, one run for each tile along k."""
    k_tiles, n_tiles = -(-v["k"] // config.array_rows), -(-v["n"] // config.array_columns)
    if diagonal:
        k_tiles = 1
    run = n_tiles * config.weight_tile_bytes
    return _Extent(taps * k_tiles, run, run)


def _matmul(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    yield from _product_format(v)
    yield from _dimensions(v, m=MATMUL_LIMIT, k=MATMUL_LIMIT, n=MATMUL_LIMIT)
    y_row = _output_bytes(v)
    if v["m"] > 1:
        yield from _strides(v, x_stride=v["k"], y_stride=y_row)
    strides = ("x_stride", "y_stride") if v["m"] > 1 else ()
    yield from _aligned(v, config.bus_bytes, "x", "w", *_params(v), "y", *strides)
    yield from _product_operands(
        v,
        config,
        x=_Extent(v["m"], v["x_stride"], v["k"]),
        w=_weights(v, config, 1),
        y=_Extent(v["m"], v["y_stride"], y_row),
    )


def _batch_matmul(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    triangle, transposed = (bool(v["flags"] & flag) for flag in (Flag.TRIANGLE, Flag.TRANSPOSED))
    yield from _product_format(v, triangle=triangle)
    limits = dict.fromkeys(("m", "k", "n", "batches"), MATMUL_LIMIT)
    yield from _dimensions(v, **limits)
    if triangle and v["m"] != v["n"]:
        yield Status.BAD_DIMENSION, "n"
    y_row = _output_bytes(v)
    w_rows, w_row = (v["n"], v["k"]) if transposed else (v["k"], v["n"])
    matrices = {"x": (v["m"], v["k"]), "w": (w_rows, w_row)}
    if not triangle:
        matrices["y"] = (v["m"], y_row)
    many = [name for name, (rows, _) in matrices.items() if rows > 1]
    yield from _strides(v, **{f"{name}_stride": matrices[name][1] for name in many})
    outputs = () if triangle else ("y",)
    yield from _aligned(v, config.bus_bytes, "x", "w", *_params(v), *outputs)
    yield from _aligned(v, config.bus_bytes, *(f"{name}_stride" for name in many))
    if v["batches"] > 1:
        yield from _aligned(v, config.bus_bytes, *(f"{name}_batch_stride" for name in matrices))
    size = {name: _rows(rows, v[f"{name}_stride"], row) for name, (rows, row) in matrices.items()}
    if triangle:
        size["y"] = v["n"] * (v["n"] - 1) // 2
    extents = {
        name: _Extent(v["batches"], v[f"{name}_batch_stride"], one) for name, one in size.items()
    }
    yield from _product_operands(v, config, **extents)


def _conv2d(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    diagonal = bool(v["flags"] & Flag.DIAGONAL)
    if diagonal and not config.diagonal_tiles:
        yield Status.BAD_FORMAT, "flags"
    yield from _product_format(v)
    sizes = ("height", "width", "k", "n", "out_height", "out_width")
    steps = [
        f"{name}_{side}"
        for name in ("kernel", "stride", "dilation")
        for side in ("height", "width")
    ]
    yield from _dimensions(v, **dict.fromkeys((*sizes, *steps), MATMUL_LIMIT))
    if diagonal and v["n"] != v["k"]:
        yield Status.BAD_DIMENSION, "n"
    y_row = _output_bytes(v)
    pixels = {"x": v["height"] * v["width"], "y": v["out_height"] * v["out_width"]}
    many = [name for name, count in pixels.items() if count > 1]
    row = {"x": v["k"], "y": y_row}
    yield from _strides(v, **{f"{name}_stride": row[name] for name in many})
    yield from _aligned(v, config.bus_bytes, "x", "w", *_params(v), "y")
    yield from _aligned(v, config.bus_bytes, *(f"{name}_stride" for name in many))
    extents = {
        name: _Extent(count, v[f"{name}_stride"], row[name]) for name, count in pixels.items()
    }
    taps = v["kernel_height"] * v["kernel_width"]
    w = _weights(v, config, taps, diagonal=diagonal)
    yield from _product_operands(v, config, w=w, **extents)


def _is_nan_or_infinite(bits: int) -> bool:
    exponent_mask = 0x7F80_0000
    return bits & exponent_mask == exponent_mask


def _is_nan(bits: int) -> bool:
    return bits & 0x7FFF_FFFF > 0x7F80_0000


def _constant_broken(opcode: Opcode, name: str, v: dict[str, int]) -> bool:
    """Whether a constant of a vector command has no meaning."""
    match name:
        case "scale" if opcode is Opcode.QUANTISE:
            return not np.finfo(np.float32).tiny <= float_of(v[name]) < np.inf
        case "y_format" if opcode is Opcode.QUANTISE:
            return v[name] not in (ElementFormat.UINT8, ElementFormat.INT8)
        case "multiplier" | "scale":
            return _is_nan_or_infinite(v[name]) or not v[name] & 0x7FFF_FFFF
        case "shift":
            return _is_nan_or_infinite(v[name])
        case "low":
            return _is_nan(v[name])
        case "high":
            low, high = (float(float_of(v[side])) for side in ("low", "high"))
            signs = bool(v["low"] >> 31), bool(v["high"] >> 31)
            return _is_nan(v[name]) or high < low or (high == low == 0 and signs == (False, True))
        case "function":
            return v[name] not in set(Function)
        case "y_format":
            return v[name] not in set(ElementFormat) - {ElementFormat.INT32}
        case "a_format" | "b_format":
            return v[name] not in set(ElementFormat)
    return False


def _vector(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
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
    yield from _operands(v, config, _extents(v, size), in_place=True)


def _lookup(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    size = dict.fromkeys(("y", "a"), v["columns"])
    yield from _matrices(v, config, size)
    yield from _aligned(v, config.bus_bytes, "table")
    extents = _extents(v, size) | {"table": _Extent(1, 0, TABLE_BYTES)}
    yield from _operands(v, config, extents, in_place=True, apart=("table",))


def _size_outside(bits: int, exponents: range) -> bool:
    """Whether a float32 is as large as no power of two of these exponents or up to the next."""
    return not 2.0**exponents.start <= abs(float(float_of(bits))) < 2.0**exponents.stop


def _pair(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    for name in ("y_format", "a_format", "b_format"):
        if v[name] not in BYTE_FORMATS:
            yield Status.BAD_FORMAT, name
    exponents = {"multiplier": MULTIPLIER_EXPONENTS}
    exponents |= dict.fromkeys(("a_ratio", "b_ratio"), RATIO_EXPONENTS)
    for name, bounds in exponents.items():
        if name in v and _size_outside(v[name], bounds):
            yield Status.BAD_FORMAT, name
    if "offset" in v and not abs(float(float_of(v["offset"]))) < OFFSET_LIMIT:
        yield Status.BAD_FORMAT, "offset"
    size = dict.fromkeys(("y", "a", "b"), v["columns"])
    if v["flags"] & Flag.BROADCAST:
        size["b"] = 1
    yield from _matrices(v, config, size)
    yield from _operands(v, config, _extents(v, size), in_place=True)


def _matrices(v: dict[str, int], config: CardConfig, size: dict[str, int]) -> Iterator:
    """Rules of matrices whose rows have so many bytes."""
    limit = 2**32 - 1
    yield from _dimensions(v, rows=limit, columns=limit)
    strides = {f"{name}_stride": bytes_ for name, bytes_ in size.items() if v["rows"] > 1}
    if v.get("b_stride") == 0:
        strides.pop("b_stride", None)
    yield from _strides(v, **strides)
    yield from _aligned(v, config.bus_bytes, *size, *strides)


def _extents(v: dict[str, int], size: dict[str, int]) -> dict[str, _Extent]:
    return {n: _Extent(v["rows"], v[f"{n}_stride"], nbytes) for n, nbytes in size.items()}


def _pool(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    yield from _windows(v, config)
    yield from _operands(v, config, _images(v))


def _depthwise(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    weighted, taps = not v["flags"] & Flag.ONES, v["kernel_height"] * v["kernel_width"]
    if v["y_format"] not in (ElementFormat.UINT8, ElementFormat.INT8):
        yield Status.BAD_FORMAT, "y_format"
    if weighted and taps > MOST_TAPS:
        yield Status.BAD_DIMENSION, "kernel_height"
    yield from _windows(v, config, *(("w",) if weighted else ()), "params")
    row = -(-v["k"] // config.bus_bytes) * config.bus_bytes
    kernel = {"w": _Extent(taps, row, v["k"])} if weighted else {}
    params = {"params": _Extent(1, 0, 8 * v["k"])}
    yield from _operands(v, config, _images(v) | kernel | params)


def _average(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Iterator:
    for name in ("x_scale", "y_scale"):
        if float_of(v[name]) < 0 or _size_outside(v[name], SCALE_EXPONENTS):
            yield Status.BAD_FORMAT, name
    if v["y_format"] not in BYTE_FORMATS:
        yield Status.BAD_FORMAT, "y_format"
    if v["kernel_height"] * v["kernel_width"] > MOST_AVERAGED:
        yield Status.BAD_DIMENSION, "kernel_height"
    yield from _windows(v, config)
    yield from _operands(v, config, _images(v))


def _windows(v: dict[str, int], config: CardConfig, *others: str) -> Iterator:
    """Rules of images channel by channel; `others` are what else is aligned."""
    steps = [
        f"{name}_{side}"
        for name in ("kernel", "stride", "dilation")
        for side in ("height", "width")
    ]
    sizes = ("height", "width", "k", "out_height", "out_width", *steps)
    yield from _dimensions(v, **dict.fromkeys(sizes, MATMUL_LIMIT))
    many = [f"{name}_stride" for name, count in _pixels(v).items() if count > 1]
    yield from _strides(v, **dict.fromkeys(many, v["k"]))
    for side, pad in (("height", "pad_top"), ("width", "pad_left")):
        dilation = v[f"dilation_{side}"]
        if v[pad] > (v[f"kernel_{side}"] - 1) * dilation:
            yield Status.BAD_DIMENSION, pad
        if v[pad] and dilation > v[side]:
            yield Status.BAD_DIMENSION, f"dilation_{side}"
        if (v[f"out_{side}"] - 1) * v[f"stride_{side}"] - v[pad] >= v[side]:
            yield Status.BAD_DIMENSION, f"out_{side}"
    yield from _aligned(v, config.bus_bytes, "x", "y", *others, *many)


def _pixels(v: dict[str, int]) -> dict[str, int]:
    return {"x": v["height"] * v["width"], "y": v["out_height"] * v["out_width"]}


def _images(v: dict[str, int]) -> dict[str, _Extent]:
    pixels = _pixels(v)
    return {name: _Extent(pixels[name], v[f"{name}_stride"], v["k"]) for name in ("y", "x")}
