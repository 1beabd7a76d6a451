"""Rules of POOL, DEPTHWISE and AVERAGE: images channel by channel."""

from collections.abc import Mapping

from halfdome.hdl.commands import (
    BYTE_FORMATS,
    MATMUL_LIMIT,
    MOST_AVERAGED,
    MOST_TAPS,
    SCALE_EXPONENTS,
    ElementFormat,
    Flag,
    Opcode,
    Status,
)
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.rules import rule
from halfdome.sim.golden.rules.rule import Broken, Extent
from halfdome.sim.golden.vector import float_of


def _pool(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    yield from _windows(v, config)
    yield from rule.operands(v, config, _images(v))


def _depthwise(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    weighted, taps = not v["flags"] & Flag.ONES, v["kernel_height"] * v["kernel_width"]
    if v["y_format"] not in (ElementFormat.UINT8, ElementFormat.INT8):
        yield Status.BAD_FORMAT, "y_format"
    if weighted and taps > MOST_TAPS:
        yield Status.BAD_DIMENSION, "kernel_height"
    yield from _windows(v, config, *(("w",) if weighted else ()), "params")
    row = -(-v["k"] // config.bus_bytes) * config.bus_bytes
    kernel = {"w": Extent(taps, row, v["k"])} if weighted else {}
    params = {"params": Extent(1, 0, 8 * v["k"])}
    yield from rule.operands(v, config, _images(v) | kernel | params)


def _average(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Broken:
    for name in ("x_scale", "y_scale"):
        if float_of(v[name]) < 0 or rule.size_outside(v[name], SCALE_EXPONENTS):
            yield Status.BAD_FORMAT, name
    if v["y_format"] not in BYTE_FORMATS:
        yield Status.BAD_FORMAT, "y_format"
    if v["kernel_height"] * v["kernel_width"] > MOST_AVERAGED:
        yield Status.BAD_DIMENSION, "kernel_height"
    yield from _windows(v, config)
    yield from rule.operands(v, config, _images(v))


def _windows(v: dict[str, int], config: CardConfig, *others: str) -> Broken:
    """Rules of images channel by channel; `others` are what else is aligned."""
    steps = [
        f"{name}_{side}"
        for name in ("kernel", "stride", "dilation")
        for side in ("height", "width")
    ]
    sizes = ("height", "width", "k", "out_height", "out_width", *steps)
    yield from rule.dimensions(v, **dict.fromkeys(sizes, MATMUL_LIMIT))
    many = [f"{name}_stride" for name, count in _pixels(v).items() if count > 1]
    for side, pad in (("height", "pad_top"), ("width", "pad_left")):
        dilation = v[f"dilation_{side}"]
        if v[pad] > (v[f"kernel_{side}"] - 1) * dilation:
            yield Status.BAD_DIMENSION, pad
        if v[pad] and dilation > v[side]:
            yield Status.BAD_DIMENSION, f"dilation_{side}"
        if (v[f"out_{side}"] - 1) * v[f"stride_{side}"] - v[pad] >= v[side]:
            yield Status.BAD_DIMENSION, f"out_{side}"
    yield from rule.strides(v, **dict.fromkeys(reversed(many), v["k"]))
    yield from rule.aligned(v, config.bus_bytes, "x", "y", *others, *many)


def _pixels(v: dict[str, int]) -> dict[str, int]:
    return {"x": v["height"] * v["width"], "y": v["out_height"] * v["out_width"]}


def _images(v: dict[str, int]) -> dict[str, Extent]:
    pixels = _pixels(v)
    return {name: Extent(pixels[name], v[f"{name}_stride"], v["k"]) for name in ("y", "x")}


RULES: Mapping[Opcode, rule.Rule] = {
    Opcode.POOL: _pool,
    Opcode.DEPTHWISE: _depthwise,
    Opcode.AVERAGE: _average,
}
