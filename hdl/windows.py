"""Windows over an image: where the first tap lies, and the steps from one to the next."""

from amaranth import Module, Signal, Value
from amaranth.lib import data

from halfdome.hdl.config import CardConfig

STEP_CYCLES = 11
"""Cycles from `start` to the last of them."""


def step_bits(config: CardConfig) -> dict[str, int]:
    """What is calculated, with its bits: pixels of the output; bytes from a window to the next to
    the right and below, and from a tap to the next to the right and below."""
    steps = ("pixel_step", "line_step", "tap_step", "tap_line_step")
    return {"rows": config.count_bits} | dict.fromkeys(steps, config.address_bits)


def calculate_steps(m: Module, v: data.View, job: data.View, start: Value) -> Value:
    """Sets `step_bits` of a job from the fields `v` of a command, which do not change meanwhile.

    Takes `pad_top` lines and `pad_left` pixels from `job.x`, the address of the image, which may
    wrap below 0. One product a cycle on one multiplier; its operands are chosen in the cycle
    before, so that no clock has both to do. Returns whether this is the last cycle.
    """
    bits = len(job.x)
    image_line, beside, above = (
        Signal(bits, name=name) for name in ("image_line", "beside", "above")
    )
    factor, term = Signal(16), Signal(32)
    product = Signal(max(len(job.rows), bits))
    products = (
        (v.width, v.x_stride, image_line),
        (v.out_height, v.out_width, job.rows),
        (v.stride_width, v.x_stride, job.pixel_step),
        (v.dilation_width, v.x_stride, job.tap_step),
        (v.stride_height, image_line, job.line_step),
        (v.dilation_height, image_line, job.tap_line_step),
        (v.pad_left, v.x_stride, beside),
        (v.pad_top, image_line, above),
    )
    # Then the address of the first tap, in two steps.
    step = Signal(range(len(products) + 3))
    working = Signal()
    done = Signal()
    m.d.comb += product.eq(factor * term)
    with m.If(working):
        m.d.sync += step.eq(step + 1)
        with m.Switch(step):
            for number, (a, b, _) in enumerate(products):
                with m.Case(number):
                    m.d.sync += [factor.eq(a), term.eq(b)]
        with m.Switch(step):
            for number, (_, _, target) in enumerate(products, start=1):
                with m.Case(number):
                    m.d.sync += target.eq(product)
            with m.Case(len(products) + 1):
                m.d.sync += job.x.eq(job.x - beside)
            with m.Case(len(products) + 2):
                m.d.comb += done.eq(1)
                m.d.sync += [job.x.eq(job.x - above), working.eq(0)]
    with m.If(start):
        m.d.sync += [step.eq(0), working.eq(1)]
    return done
