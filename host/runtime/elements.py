"""What a card does element by element, and along rows: the commands of its vector engine."""

from collections import deque
from enum import Enum
from math import prod

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfdome.hdl.commands import (
    MATMUL_LIMIT,
    MOST_AVERAGED,
    MULTIPLIER_EXPONENTS,
    OFFSET_LIMIT,
    RATIO_EXPONENTS,
    SCALE_EXPONENTS,
    TABLE_BYTES,
    Flag,
    Function,
    Opcode,
)
from halfdome.hdl.config import CardConfig
from halfdome.host import arguments
from halfdome.host.driver import kernels
from halfdome.host.driver.halfdome import HalfdomeAccelerator
from halfdome.host.driver.kernels import Rows, Window
from halfdome.host.driver.layout import round_up
from halfdome.host.driver.memory import Block
from halfdome.host.driver.session import Session, whole
from halfdome.host.graph.pooling import windows
from halfdome.host.graph.values import format_of
from halfdome.host.runtime.products import zero_point as point_of
from halfdome.host.runtime.tensors import Call, Tensor, operand

_INPUTS = (np.float32, np.float16, np.uint8, np.int8, np.int32)
_OUTPUTS = (np.float32, np.float16, np.uint8, np.int8)
_BYTES = (np.uint8, np.int8)


class Reduce(Enum):
    """What becomes of the elements of a row."""

    NONE = None
    SUM = "sum"
    MAX = "max"


class Inner(Enum):
    """Which operand of a quantised sum the offset is added to first."""

    A = "a"
    B = "b"


_FLAGS = {Reduce.NONE: 0, Reduce.SUM: int(Flag.SUM), Reduce.MAX: int(Flag.MAX)}


def _finite(name: str, value: object, *, zero: bool) -> np.float32:
    """A float32 that is finite, and not zero unless it may be."""
    with np.errstate(over="ignore", under="ignore"):
        number = np.float32(arguments.number(name, value))
    if not np.isfinite(number) or not (zero or number):
        rule = "finite" if zero else "finite and not zero"
        raise ValueError(f"{name}={value!r}: must be {rule} as a float32")
    return number


def _sized(name: str, value: object, exponents: range) -> np.float32:
    """A float32 whose size is that of a power of two of these exponents, up to the next."""
    number = _finite(name, value, zero=False)
    if not 2.0**exponents.start <= abs(number) < 2.0**exponents.stop:
        raise ValueError(
            f"{name}={value!r}: must be from 2^{exponents.start} to below 2^{exponents.stop}, "
            "or so far below 0"
        )
    return number


def _scale(name: str, value: object) -> np.float32:
    """A scale of an average."""
    number = _finite(name, value, zero=False)
    first, stop = SCALE_EXPONENTS.start, SCALE_EXPONENTS.stop
    if not 2.0**first <= number < 2.0**stop:
        raise ValueError(f"{name}={value!r}: must be from 2^{first} to below 2^{stop}")
    return number


def _not_empty(name: str, matrix: np.ndarray | Tensor) -> tuple[int, int]:
    """Rows and columns of a matrix that has some."""
    rows, columns = matrix.shape
    if not rows or not columns:
        raise ValueError(f"{name}: {list(matrix.shape)}: no dimension may be zero")
    return rows, columns


class Elements:
    """What `Card` can do with its vector engine.

    Matrices are [rows, columns] of float32, float16, uint8, int8 or, as operands, int32. A result
    is `function(...) * multiplier` in fp32, of each row the sum or largest element if `reduce` is
    "sum" or "max", rounded to `dtype` (by default float32), `saturate(round(y) + y_zero_point)` of
    8 bits. Operands of 8 bits stand for `q - zero_point`. A result is a tensor if an operand is
    one. Raises `ValueError` for operands that do not fit together.
    """

    accelerator: HalfdomeAccelerator
    config: CardConfig
    session: Session
    _garbage: deque[Block]

    @whole
    def affine(
        self, a: "ArrayLike | Tensor", scale: float = 1.0, shift: float = -0.0, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        y_zero_point: int = 0,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`function(a * scale + shift)`: conversions, too. A shift of -0 changes no sign."""
        constants = {
            "scale": _finite("scale", scale, zero=False),
            "shift": _finite("shift", shift, zero=True),
        }
        return self._vector(Opcode.AFFINE, a, None, constants, function, multiplier, reduce, dtype,
                            a_zero_point, 0, y_zero_point)  # fmt: skip

    @whole
    def add(
        self, a: "ArrayLike | Tensor", b: "ArrayLike | Tensor", scale: float = 1.0, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        b_zero_point: int = 0, y_zero_point: int = 0,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`function(a + b * scale)`; b may be one row, or one element a row."""
        constants = {"scale": _finite("scale", scale, zero=False)}
        return self._vector(Opcode.ADD, a, b, constants, function, multiplier, reduce, dtype,
                            a_zero_point, b_zero_point, y_zero_point)  # fmt: skip

    @whole
    def multiply(
        self, a: "ArrayLike | Tensor", b: "ArrayLike | Tensor", shift: float = -0.0, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        b_zero_point: int = 0, y_zero_point: int = 0,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`function(a * b + shift)`; b may be one row, or one element a row."""
        constants = {"shift": _finite("shift", shift, zero=True)}
        return self._vector(Opcode.MULTIPLY, a, b, constants, function, multiplier, reduce, dtype,
                            a_zero_point, b_zero_point, y_zero_point)  # fmt: skip

    @whole
    def clamp(
        self, a: "ArrayLike | Tensor", low: float = -np.inf, high: float = np.inf, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        y_zero_point: int = 0,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`function(min(max(a, low), high))`."""
        with np.errstate(over="ignore"):
            bounds = {
                name: np.float32(arguments.number(name, value, infinite=True))
                for name, value in (("low", low), ("high", high))
            }
        if bounds["low"] > bounds["high"]:
            raise ValueError(f"low={low}, high={high}: low must not be above high")
        return self._vector(Opcode.CLAMP, a, None, bounds, function, multiplier, reduce, dtype,
                            a_zero_point, 0, y_zero_point)  # fmt: skip

    @whole
    def quantise(
        self, x: "ArrayLike | Tensor", multiplier: float, zero_point: int = 0,
        dtype: DTypeLike = np.uint8,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """float32 to 8 bits: saturate(round_half_even(x * multiplier) + zero_point)."""
        kind = arguments.dtype("dtype", dtype, _BYTES)
        point_of("zero_point", zero_point, kind)
        x = self._matrix("x", x)
        return self.affine(x, multiplier=multiplier, dtype=kind, y_zero_point=zero_point)

    @whole
    def quantise_linear(
        self, x: "ArrayLike | Tensor", scale: float, zero_point: int = 0,
        dtype: DTypeLike = np.uint8,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`x` [rows, columns] to 8 bits: saturate(round_half_even(x / scale) + zero_point), the
        quotient rounded to float32 first; the least of NaN. ONNX's QuantizeLinear.

        `scale` is positive and a normal float32.
        """
        a = self._matrix("x", x)
        rows, columns = a.shape
        kind = arguments.dtype("dtype", dtype, _BYTES)
        point = point_of("zero_point", zero_point, kind)
        divisor = _finite("scale", scale, zero=False)
        if divisor < np.finfo(np.float32).tiny:
            raise ValueError(f"scale={scale!r}: must be positive and normal as a float32")
        call = Call(self.accelerator, self._garbage)
        y = call.result((rows, columns), kind)
        target = Rows(y.block.address, y.stride, format_of(kind), point)
        call.run(kernels.quantise(target, call.rows(a), rows, columns, divisor))
        return call.finish(y, stays=isinstance(a, Tensor))

    @whole
    def sigmoid(
        self, x: "ArrayLike | Tensor", scale: float = 1.0, zero_point: int = 0
    ) -> "np.ndarray | Tensor":
        """To float32: 1 / (1 + exp(-(x - zero_point) * scale))."""
        x = self._matrix("x", x)
        point_of("zero_point", zero_point, x.dtype)
        return self.affine(x, scale, function=Function.SIGMOID, a_zero_point=zero_point)

    def _matrix(self, name: str, value: "ArrayLike | Tensor") -> "np.ndarray | Tensor":
        """An operand with elements of any format."""
        matrix = operand(name, value, _INPUTS, (None, None), self.accelerator)
        _not_empty(name, matrix)
        return matrix

    @whole
    def lookup(self, a: "ArrayLike | Tensor", table: "ArrayLike | Tensor") -> "np.ndarray | Tensor":
        """`table[a]`, any function of uint8 or int8 [rows, columns].

        `table` is uint8 or int8 [256]: entry `a` for uint8, `a mod 256` for int8, so that -1 is the
        last. The result has its dtype.
        """
        x = operand("a", a, _BYTES, (None, None), self.accelerator)
        rows, columns = _not_empty("a", x)
        entries = operand("table", table, _BYTES, (TABLE_BYTES,), self.accelerator)
        call = Call(self.accelerator, self._garbage)
        y = call.result((rows, columns), entries.dtype)
        call.run(kernels.lookup(
            call.rows(entries).address, Rows(y.block.address, y.stride), call.rows(x), rows,
            columns, self.config.bus_bytes,
        ))  # fmt: skip
        return call.finish(y, stays=isinstance(x, Tensor) or isinstance(entries, Tensor))

    @whole
    def add_quantised(
        self, a: "ArrayLike | Tensor", b: "ArrayLike | Tensor", a_ratio: float, b_ratio: float,
        offset: float = 0.0, *, inner: str = "b", dtype: DTypeLike = np.uint8,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`saturate(round(fma(a, a_ratio, fma(b, b_ratio, offset))))` of bytes as they are; with
        a and b in each other's place if `inner` is "a". ONNX Runtime's QLinearAdd.

        b may be one row, or one element a row. Ratios are from 2^-16 to below 2^8, or so far below
        0, and the offset is less than 2^17 from it.
        """
        first = arguments.choice("inner", inner, Inner)
        flags = int(Flag.INNER_A) if first is Inner.A else 0
        constants = {
            "a_ratio": _sized("a_ratio", a_ratio, RATIO_EXPONENTS),
            "b_ratio": _sized("b_ratio", b_ratio, RATIO_EXPONENTS),
            "offset": _finite("offset", offset, zero=True),
        }
        if not abs(constants["offset"]) < OFFSET_LIMIT:
            raise ValueError(f"offset={offset!r}: must be less than {OFFSET_LIMIT} from 0")
        return self._pair(Opcode.ADD_QUANTISED, a, b, flags, constants, dtype, (0, 0, 0))

    @whole
    def multiply_quantised(
        self, a: "ArrayLike | Tensor", b: "ArrayLike | Tensor", multiplier: float, *,
        dtype: DTypeLike = np.uint8, a_zero_point: int = 0, b_zero_point: int = 0,
        y_zero_point: int = 0,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`saturate(round((a - a_zero_point) * (b - b_zero_point) * multiplier + y_zero_point))`,
        the product and the sum rounded to float32 before. ONNX Runtime's QLinearMul.

        b may be one row, or one element a row. The multiplier is from 2^-16 to below 4, or so far
        below 0.
        """
        constants = {"multiplier": _sized("multiplier", multiplier, MULTIPLIER_EXPONENTS)}
        points = a_zero_point, b_zero_point, y_zero_point
        return self._pair(Opcode.MULTIPLY_QUANTISED, a, b, 0, constants, dtype, points)

    def _pair(
        self, opcode: Opcode, a: object, b: object, flags: int, constants: dict[str, np.float32],
        dtype: DTypeLike, points: tuple[object, object, object],
    ) -> "np.ndarray | Tensor":  # fmt: skip
        kind = arguments.dtype("dtype", dtype, _BYTES)
        first = operand("a", a, _BYTES, (None, None), self.accelerator)
        rows, columns = _not_empty("a", first)
        second = self._second(b, _BYTES, rows, columns)
        zeros = [
            point_of(f"{name}_zero_point", point, of)
            for name, point, of in zip(
                "aby", points, (first.dtype, second.dtype, kind), strict=True
            )
        ]
        if second.shape[1] == 1 != columns:
            flags |= Flag.BROADCAST
        call = Call(self.accelerator, self._garbage)
        y = call.result((rows, columns), kind)
        call.run(kernels.pair(
            opcode, Rows(y.block.address, y.stride, format_of(kind), zeros[2]),
            call.rows(first, zeros[0]), self._laid(call, second, rows, zeros[1]), rows, columns,
            self.config.bus_bytes, flags=flags, **constants,
        ))  # fmt: skip
        return call.finish(y, stays=isinstance(first, Tensor) or isinstance(second, Tensor))

    def _second(
        self, b: object, kinds: tuple[type, ...], rows: int, columns: int
    ) -> "np.ndarray | Tensor":
        """A second operand."""
        second = operand("b", b, kinds, (None, None), self.accelerator)
        if second.shape not in ((rows, columns), (1, columns), (rows, 1)):
            raise ValueError(
                f"b: {list(second.shape)}: must be {[rows, columns]}, one row or one column"
            )
        return second

    @staticmethod
    def _laid(call: Call, second: "np.ndarray | Tensor", rows: int, point: int) -> Rows:
        """Where a second operand lies; one row for all if it has one."""
        laid = call.rows(second, point)
        stride = 0 if second.shape[0] == 1 < rows else laid.stride
        return Rows(laid.address, stride, laid.format, laid.zero_point)

    @whole
    def max_pool(
        self, x: "ArrayLike | Tensor", kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1, pads: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """The largest of each channel over windows of uint8 or int8 [height, width, channels].

        `kernel`, `stride` and `dilation` are along height and width, or one for both; `pads` as in
        `conv2d`, but what lies outside takes no part, and no window may lie there: `ValueError`.
        The result is [out_height, out_width, channels], ONNX's MaxPool; a tensor if `x` is one.
        """
        image = operand("x", x, _BYTES, (None, None, None), self.accelerator)
        window = self._window(image, kernel, stride, pads, dilation)
        call = Call(self.accelerator, self._garbage)
        y = call.result((*window.out, window.k), image.dtype)
        call.run(kernels.max_pool(call.rows(image), Rows(y.block.address, y.stride), window))
        return call.finish(y, stays=isinstance(image, Tensor))

    @whole
    def average_pool(
        self, x: "ArrayLike | Tensor", kernel: int | tuple[int, int], x_scale: float,
        y_scale: float, stride: int | tuple[int, int] = 1, pads: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1, *, include_pads: bool = False,
        dtype: DTypeLike = np.uint8, x_zero_point: int = 0, y_zero_point: int = 0,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """`saturate(round(mean / y_scale + y_zero_point))` of `(x - x_zero_point) * x_scale` over
        windows as in `max_pool`, each step in float32. ONNX Runtime's QLinearAveragePool.

        A window has 255 elements at the most. Of those, elements outside of x count as zeros if
        `include_pads`, else not. Scales are from 2^-40 to below 2^40.
        """
        image = operand("x", x, _BYTES, (None, None, None), self.accelerator)
        window = self._window(image, kernel, stride, pads, dilation)
        if prod(window.kernel) > MOST_AVERAGED:
            raise ValueError(f"kernel={kernel!r}: must have {MOST_AVERAGED} elements or fewer")
        scales = {
            name: _scale(name, value)
            for name, value in (("x_scale", x_scale), ("y_scale", y_scale))
        }
        kind = arguments.dtype("dtype", dtype, _BYTES)
        zero_points = [
            point_of(f"{name}_zero_point", point, of)
            for name, point, of in (("x", x_zero_point, image.dtype), ("y", y_zero_point, kind))
        ]
        call = Call(self.accelerator, self._garbage)
        y = call.result((*window.out, window.k), kind)
        call.run(kernels.average_pool(
            call.rows(image, zero_points[0]),
            Rows(y.block.address, y.stride, format_of(kind), zero_points[1]), window,
            outside=arguments.flag("include_pads", include_pads), **scales,
        ))  # fmt: skip
        return call.finish(y, stays=isinstance(image, Tensor))

    def _window(
        self, image: "np.ndarray | Tensor", kernel: object, stride: object, pads: object,
        dilation: object,
    ) -> Window:  # fmt: skip
        """Windows over an image, of which each sees something."""
        taps, steps, spread = (
            arguments.integers(name, value, 2, 1, 255)
            for name, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation))
        )
        sides = arguments.pads(pads)
        height, width, k = image.shape
        for name, size in (("height", height), ("width", width), ("channels", k)):
            arguments.integer(f"x: {name}", size, 1, MATMUL_LIMIT)
        arguments.integer(
            "x: bytes of a pixel", round_up(k, self.config.bus_bytes), 1, MATMUL_LIMIT
        )
        out = windows((height, width), taps, steps, sides, spread)
        return Window((height, width), k, k, out, *(
            (pair[0], pair[1]) for pair in (taps, steps, sides, spread)
        ))  # fmt: skip

    def _vector(
        self, opcode: Opcode, a: "ArrayLike | Tensor", b: object, constants: dict[str, np.float32],
        function: object, multiplier: object, reduce: object, dtype: DTypeLike,
        a_zero_point: object, b_zero_point: object, y_zero_point: object,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        first = self._matrix("a", a)
        rows, columns = first.shape
        kind = arguments.dtype("dtype", dtype, _OUTPUTS)
        flags = _FLAGS[arguments.choice("reduce", reduce, Reduce)]
        chosen = arguments.choice("function", function, Function)
        scale = _finite("multiplier", multiplier, zero=False)
        points = [point_of("a_zero_point", a_zero_point, first.dtype)]
        result_point = point_of("y_zero_point", y_zero_point, kind)
        second = None
        if opcode in (Opcode.ADD, Opcode.MULTIPLY):
            second = self._second(b, _INPUTS, rows, columns)
            points.append(point_of("b_zero_point", b_zero_point, second.dtype))
            if second.shape[1] == 1 != columns:
                flags |= Flag.BROADCAST
        call = Call(self.accelerator, self._garbage)
        y = call.result((rows, 1 if flags & (Flag.SUM | Flag.MAX) else columns), kind)
        others = []
        if second is not None:
            others.append(self._laid(call, second, rows, points[1]))
        call.run(kernels.vector(
            opcode, Rows(y.block.address, y.stride, format_of(kind), result_point),
            call.rows(first, points[0]), rows, columns, *others, flags=flags, function=chosen,
            multiplier=scale, **constants,
        ))  # fmt: skip
        stays = isinstance(first, Tensor) or isinstance(second, Tensor)
        return call.finish(y, stays=stays)
