"""Rules of MATMUL, BATCH_MATMUL and CONV2D."""

from collections.abc import Mapping

from halfdome.hdl.commands import MATMUL_LIMIT, PRODUCT_FORMATS, ElementFormat, Flag, Opcode, Status
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.rules import rule
from halfdome.sim.golden.rules.rule import Broken, Extent


def _product_format(v: dict[str, int], *, triangle: bool = False) -> Broken:
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
    v: dict[str, int], config: CardConfig, *, x: Extent, w: Extent, y: Extent
) -> Broken:
    extents = {"y": y, "x": x, "w": w}
    if v["y_format"] != ElementFormat.INT32:
        extents["params"] = Extent(1, 0, 8 * v["n"])
    yield from rule.operands(v, config, extents)


def _weights(v: dict[str, int], config: CardConfig, taps: int, *, diagonal: bool = False) -> Extent:
    """Packed weights, one run for each tile along k."""
    k_tiles, n_tiles = -(-v["k"] // config.array_rows), -(-v["n"] // config.array_columns)
    if diagonal:
        k_tiles = 1
    run = n_tiles * config.weight_tile_bytes
    return Extent(taps * k_tiles, run, run)


def _matmul(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    yield from _product_format(v)
    yield from rule.dimensions(v, m=MATMUL_LIMIT, k=MATMUL_LIMIT, n=MATMUL_LIMIT)
    y_row = _output_bytes(v)
    if v["m"] > 1:
        yield from rule.strides(v, y_stride=y_row, x_stride=v["k"])
    strides = ("x_stride", "y_stride") if v["m"] > 1 else ()
    yield from rule.aligned(v, config.bus_bytes, "x", "w", *_params(v), "y", *strides)
    yield from _product_operands(
        v,
        config,
        x=Extent(v["m"], v["x_stride"], v["k"]),
        w=_weights(v, config, 1),
        y=Extent(v["m"], v["y_stride"], y_row),
    )


def _batch_matmul(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    triangle, transposed = (bool(v["flags"] & flag) for flag in (Flag.TRIANGLE, Flag.TRANSPOSED))
    yield from _product_format(v, triangle=triangle)
    limits = dict.fromkeys(("m", "k", "n", "batches"), MATMUL_LIMIT)
    yield from rule.dimensions(v, **limits)
    if triangle and v["m"] != v["n"]:
        yield Status.BAD_DIMENSION, "n"
    y_row = _output_bytes(v)
    w_rows, w_row = (v["n"], v["k"]) if transposed else (v["k"], v["n"])
    matrices = {"x": (v["m"], v["k"]), "w": (w_rows, w_row)}
    if not triangle:
        matrices["y"] = (v["m"], y_row)
    many = [name for name, (rows, _) in matrices.items() if rows > 1]
    yield from rule.strides(v, **{f"{name}_stride": matrices[name][1] for name in many})
    outputs = () if triangle else ("y",)
    yield from rule.aligned(v, config.bus_bytes, "x", "w", *_params(v), *outputs)
    yield from rule.aligned(v, config.bus_bytes, *(f"{name}_stride" for name in many))
    if v["batches"] > 1:
        yield from rule.aligned(v, config.bus_bytes, *(f"{name}_batch_stride" for name in matrices))
    size = {
        name: rule.span_bytes(rows, v[f"{name}_stride"], row)
        for name, (rows, row) in matrices.items()
    }
    if triangle:
        size["y"] = v["n"] * (v["n"] - 1) // 2
    extents = {
        name: Extent(v["batches"], v[f"{name}_batch_stride"], one) for name, one in size.items()
    }
    yield from _product_operands(v, config, **extents)


def _conv2d(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
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
    yield from rule.dimensions(v, **dict.fromkeys((*sizes, *steps), MATMUL_LIMIT))
    if diagonal and v["n"] != v["k"]:
        yield Status.BAD_DIMENSION, "n"
    y_row = _output_bytes(v)
    pixels = {"x": v["height"] * v["width"], "y": v["out_height"] * v["out_width"]}
    many = [name for name, count in pixels.items() if count > 1]
    row = {"x": v["k"], "y": y_row}
    yield from rule.strides(v, **{f"{name}_stride": row[name] for name in reversed(many)})
    yield from rule.aligned(v, config.bus_bytes, "x", "w", *_params(v), "y")
    yield from rule.aligned(v, config.bus_bytes, *(f"{name}_stride" for name in many))
    extents = {
        name: Extent(count, v[f"{name}_stride"], row[name]) for name, count in pixels.items()
    }
    taps = v["kernel_height"] * v["kernel_width"]
    w = _weights(v, config, taps, diagonal=diagonal)
    yield from _product_operands(v, config, w=w, **extents)


RULES: Mapping[Opcode, rule.Rule] = {
    Opcode.MATMUL: _matmul,
    Opcode.BATCH_MATMUL: _batch_matmul,
    Opcode.CONV2D: _conv2d,
}
