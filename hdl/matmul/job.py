"""One form for every matrix product: what the descriptors of the three commands ask for."""

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.matmul.array import OPERAND_BITS
from halfdome.hdl.windows import STEP_CYCLES, calculate_steps, step_bits

SIZE_BITS = 16
"""Width of k, n and of the sides of an image."""


class Weights(enum.Enum, shape=2):
    """How the second operand lies in memory."""

    #: Tiles in the order in which the array takes them.
    PACKED = 0
    #: k rows of n.
    ROWS = 1
    #: n rows of k.
    COLUMNS = 2


def job_layout(config: CardConfig) -> data.StructLayout:
    """A batch of products of `rows` x (`kernel_height` * `kernel_width` * `k`) with that x `n`.

    Row r of x is made of taps of k bytes. With oy, ox = divmod(r, out_width), tap ky, kx lies at
    `x + oy * line_step + ox * pixel_step + ky * tap_line_step + kx * tap_step`, and stands for zero
    unless 0 <= oy * stride_height - pad_top + ky * dilation_height < height, likewise for x.
    If `is_matrix`, x has no padding and `out_width` is all rows, so that rows are `pixel_step`
    apart. If `diagonal`, an output tile sees k-tile t of each tap alone, t being its own number; n
    is k. `x` is the address of the first row's first tap, which may lie in the padding; `x_inside`
    that of the operand, where a tap can be read.
    """
    return data.StructLayout(
        {
            "x": config.address_bits,
            "x_inside": config.address_bits,
            "w": config.address_bits,
            "params": config.address_bits,
            "y": config.address_bits,
            **step_bits(config),
            "k": SIZE_BITS,
            "n": SIZE_BITS,
            "batches": SIZE_BITS,
            # The walk over x. A row of the product is a pixel of the output image.
            "out_width": SIZE_BITS,
            "height": SIZE_BITS,
            "width": SIZE_BITS,
            "kernel_height": 8,
            "kernel_width": 8,
            "stride_height": 8,
            "stride_width": 8,
            "pad_top": 8,
            "pad_left": 8,
            "dilation_height": 8,
            "dilation_width": 8,
            "is_matrix": 1,
            "y_stride": config.address_bits,
            "w_stride": SIZE_BITS,
            "x_batch_stride": 24,
            "w_batch_stride": 24,
            "y_batch_stride": 24,
            "weights": Weights,
            "x_int8": 1,
            "w_int8": 1,
            "x_zero_point": signed(OPERAND_BITS),
            "w_zero_point": signed(OPERAND_BITS),
            "y_zero_point": 8,
            "y_format": ElementFormat,
            "relu": 1,
            "triangle": 1,
            "diagonal": 1,
        }
    )


class JobDecoder(wiring.Component):
    """From a descriptor of any of the engine's commands to a job.

    Members
    -------
    descriptor : In(512), held until the job is done
    start : In(1), the descriptor is a new one
    job : Out(`job_layout`), constant while `valid`
    valid : Out(1), from `latency` (CONV2D: `convolution_latency`) cycles after `start` to the next
        `start`
    """

    latency = 1
    convolution_latency = STEP_CYCLES + 1

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "descriptor": In(DESCRIPTOR_BITS),
                "start": In(1),
                "job": Out(job_layout(config)),
                "valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = self.job
        matmul, batch, convolution = (
            data.View(layout(fields(opcode)), self.descriptor)
            for opcode in (Opcode.MATMUL, Opcode.BATCH_MATMUL, Opcode.CONV2D)
        )
        flags = matmul.flags

        def has(flag: Flag) -> Value:
            return (flags & int(flag)).any()

        def operand(value: Value, is_int8: Value) -> Value:
            """An 8-bit number as a signed one of 9 bits."""
            return Mux(is_int8, value.as_signed(), value)

        one_product = {
            "batches": 1,
            "height": 1,
            **dict.fromkeys(("kernel_height", "kernel_width"), 1),
            **dict.fromkeys(("stride_height", "stride_width"), 1),
            **dict.fromkeys(("dilation_height", "dilation_width"), 1),
            **dict.fromkeys(("pad_top", "pad_left"), 0),
            "weights": Weights.PACKED,
            "triangle": 0,
            "diagonal": 0,
        }
        is_convolution = Signal()
        m.d.comb += is_convolution.eq(matmul.opcode == Opcode.CONV2D)
        with m.If(self.start):
            m.d.sync += [
                job.x.eq(matmul.x),
                job.x_inside.eq(matmul.x),
                job.w.eq(matmul.w),
                job.params.eq(matmul.params),
                job.y.eq(matmul.y),
                job.x_int8.eq(has(Flag.X_INT8)),
                job.w_int8.eq(~has(Flag.W_UINT8)),
                job.relu.eq(has(Flag.RELU)),
                job.is_matrix.eq(~is_convolution),
                *(job[name].eq(value) for name, value in one_product.items()),
            ]
            with m.Switch(matmul.opcode):
                with m.Case(Opcode.MATMUL):
                    self._take(m, matmul, "k", "n", "y_stride", "y_format", "y_zero_point")
                    m.d.sync += [
                        job.rows.eq(matmul.m),
                        job.out_width.eq(matmul.m),
                        job.width.eq(matmul.m),
                        job.pixel_step.eq(matmul.x_stride),
                        job.x_zero_point.eq(operand(matmul.x_zero_point, has(Flag.X_INT8))),
                        job.w_zero_point.eq(operand(matmul.w_zero_point, ~has(Flag.W_UINT8))),
                    ]
                with m.Case(Opcode.BATCH_MATMUL):
                    self._take(
                        m, batch, "k", "n", "y_stride", "y_format", "y_zero_point", "batches",
                        "w_stride", "x_batch_stride", "w_batch_stride", "y_batch_stride",
                    )  # fmt: skip
                    m.d.sync += [
                        job.rows.eq(batch.m),
                        job.out_width.eq(batch.m),
                        job.width.eq(batch.m),
                        job.pixel_step.eq(batch.x_stride),
                        job.weights.eq(
                            Mux(has(Flag.TRANSPOSED), Weights.COLUMNS.value, Weights.ROWS.value)
                        ),
                        job.triangle.eq(has(Flag.TRIANGLE)),
                        job.x_zero_point.eq(operand(batch.x_zero_point, has(Flag.X_INT8))),
                        job.w_zero_point.eq(operand(batch.w_zero_point, ~has(Flag.W_UINT8))),
                    ]
                with m.Case(Opcode.CONV2D):
                    self._take(
                        m, convolution, "k", "n", "y_stride", "y_format", "y_zero_point",
                        "out_width", "height", "width", "kernel_height", "kernel_width",
                        "stride_height", "stride_width", "pad_top", "pad_left", "dilation_height",
                        "dilation_width",
                    )  # fmt: skip
                    m.d.sync += [
                        job.diagonal.eq(has(Flag.DIAGONAL)),
                        job.x_zero_point.eq(operand(convolution.x_zero_point, has(Flag.X_INT8))),
                        job.w_zero_point.eq(operand(convolution.w_zero_point, ~has(Flag.W_UINT8))),
                    ]
        begin = self.start & is_convolution
        with m.If(calculate_steps(m, convolution, job, begin)):
            m.d.sync += self.valid.eq(1)
        with m.If(self.start):
            m.d.sync += self.valid.eq(~is_convolution)
        return m

    def _take(self, m: Module, view: data.View, *names: str) -> None:
        m.d.sync += [self.job[name].eq(view[name]) for name in names]
