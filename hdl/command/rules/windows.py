"""POOL, DEPTHWISE and AVERAGE, and how images and windows are described."""

from collections.abc import Iterator

from amaranth import Value, ValueLike
from amaranth.lib import data
from amaranth.utils import exact_log2

from halfdome.hdl.command.rules.rule import (
    Access,
    Operand,
    Rule,
    RulesOf,
    exponent_outside,
    has,
    is_one_of,
    misaligned,
    operand,
    rows,
    view,
)
from halfdome.hdl.commands import (
    BYTE_FORMATS,
    MOST_AVERAGED,
    MOST_TAPS,
    SCALE_EXPONENTS,
    Flag,
    Opcode,
    Status,
)
from halfdome.hdl.config import CardConfig

IMAGE_SIDES = ("height", "width", "k", "out_height", "out_width")
WINDOW_SIDES = tuple(
    f"{name}_{side}" for name in ("kernel", "stride", "dilation") for side in ("height", "width")
)
PADS = {"height": "pad_top", "width": "pad_left"}


def rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    """Of commands over windows of images."""
    yield from _pool_rules(descriptor, config)
    yield from _depthwise_rules(descriptor, config)
    yield from _average_rules(descriptor, config)


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What commands over windows read and write."""

    def images(opcode):
        v = view(opcode, descriptor)
        pixels = {"y": v.out_height * v.out_width, "x": v.height * v.width}
        return [
            rows(opcode, v, name, count, v.k, Access.WRITE if name == "y" else Access.READ)
            for name, count in pixels.items()
        ]

    op, v = Opcode.DEPTHWISE, view(Opcode.DEPTHWISE, descriptor)
    words = (v.k + (config.bus_bytes - 1)) >> exact_log2(config.bus_bytes)
    kernel_row = words << exact_log2(config.bus_bytes)
    weighted = ~has(v, Flag.ONES)
    return {
        **{opcode: images(opcode) for opcode in (Opcode.POOL, Opcode.AVERAGE)},
        op: [
            *images(op),
            operand(op, v, "w", _taps(v), kernel_row, v.k, weighted),
            operand(op, v, "params", 1, 0, v.k, scale=3),
        ],
    }


def _pool_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.POOL,)), view(Opcode.POOL, descriptor)
    yield from _window_rules(rule, v, config, {})


def _depthwise_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.DEPTHWISE,)), view(Opcode.DEPTHWISE, descriptor)
    weighted = ~has(v, Flag.ONES)
    yield rule(~is_one_of(v.y_format, BYTE_FORMATS), Status.BAD_FORMAT, "y_format")
    yield rule(weighted & (_taps(v) > MOST_TAPS), Status.BAD_DIMENSION, "kernel_height")
    yield from _window_rules(rule, v, config, {"w": weighted, "params": 1})


def _average_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.AVERAGE,)), view(Opcode.AVERAGE, descriptor)
    for name in ("x_scale", "y_scale"):
        broken = v[name][31] | exponent_outside(v[name], SCALE_EXPONENTS)
        yield rule(broken, Status.BAD_FORMAT, name)
    yield rule(~is_one_of(v.y_format, BYTE_FORMATS), Status.BAD_FORMAT, "y_format")
    yield rule(_taps(v) > MOST_AVERAGED, Status.BAD_DIMENSION, "kernel_height")
    yield from _window_rules(rule, v, config, {})


def _taps(v: data.View) -> Value:
    return v.kernel_height * v.kernel_width


def _window_rules(
    rule: RulesOf, v: data.View, config: CardConfig, others: dict[str, ValueLike]
) -> Iterator[Rule]:
    """Of images channel by channel; `others` are what else is aligned, and when."""
    for name in (*IMAGE_SIDES, *WINDOW_SIDES):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    many = {
        "x_stride": (v.height > 1) | (v.width > 1),
        "y_stride": (v.out_height > 1) | (v.out_width > 1),
    }
    # A tap of every window is inside: the first begins before the image's end, as the last does.
    for side, pad in (("height", v.pad_top), ("width", v.pad_left)):
        out, kernel, stride, dilation = (
            v[f"{name}_{side}"] for name in ("out", "kernel", "stride", "dilation")
        )
        reach = (kernel - 1)[:8] * dilation
        last = (out - 1)[:16] * stride
        yield rule(pad > reach, Status.BAD_DIMENSION, PADS[side])
        yield rule(pad.any() & (dilation > v[side]), Status.BAD_DIMENSION, f"dilation_{side}")
        yield rule(last >= v[side] + pad, Status.BAD_DIMENSION, f"out_{side}")
    for name, condition in ({"x": 1, "y": 1} | others | many).items():
        bad = condition & misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)
