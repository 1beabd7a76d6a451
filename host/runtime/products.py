"""The matrix products of a card."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfdome.hdl.commands import MATMUL_LIMIT, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.host import arguments
from halfdome.host.driver import kernels
from halfdome.host.driver.halfdome import HalfdomeAccelerator
from halfdome.host.driver.kernels import Work
from halfdome.host.driver.layout import (
    is_diagonal,
    on_diagonal,
    pack_params,
    pack_taps,
    pack_weights,
    round_up,
)
from halfdome.host.driver.memory import Block
from halfdome.host.driver.session import Session, whole
from halfdome.host.graph.pooling import fits_depthwise
from halfdome.host.graph.values import format_of
from halfdome.host.runtime.left_out import LeftOut
from halfdome.host.runtime.tensors import Call, Tensor, operand

_BYTES = (np.uint8, np.int8)
_OUTPUTS = (np.uint8, np.int8, np.int32)


@dataclass(frozen=True)
class _Output:
    """What is made of the totals: the descriptor's fields and the operand `params`."""

    dtype: np.dtype
    params: np.ndarray
    fields: dict[str, int]


def zero_point(name: str, value: object, dtype: np.dtype) -> int:
    """The zero point of elements of 8 bits as the byte of a descriptor; of others it must be 0."""
    if dtype.itemsize > 1:
        return arguments.integer(name, value, 0, 0)
    limits = np.iinfo(dtype)
    return arguments.integer(name, value, limits.min, limits.max) & 0xFF


def multipliers(name: str, value: ArrayLike, n: int) -> np.ndarray:
    """float32[n], each finite and not zero, of one number or one for each of `n` channels."""
    found = arguments.plain(name, value)
    if found.dtype.kind not in "fiu" or found.shape not in ((), (n,)):
        raise ValueError(
            f"{name}: is {arguments.described(found)}, must be one number or one for each of {n} "
            "output channels"
        )
    with np.errstate(over="ignore", under="ignore"):
        scale = np.broadcast_to(found.astype(np.float32), (n,))
    if len(bad := np.flatnonzero(~np.isfinite(scale) | (scale == 0))):
        raise ValueError(
            f"{name}: output channel {bad[0]} has {scale[bad[0]]}, must be finite and not zero"
        )
    return scale


def _output(
    n: int, x: np.ndarray | Tensor, weight: np.ndarray | Tensor, multiplier: ArrayLike | None,
    bias: ArrayLike | None, x_zero_point: object, weight_zero_point: object, y_zero_point: object,
    relu: object, dtype: DTypeLike, weight_name: str,
) -> _Output:  # fmt: skip
    kind = arguments.dtype("dtype", dtype, _OUTPUTS)
    raw, relu = kind == np.int32, arguments.flag("relu", relu)
    points = {
        "x_zero_point": zero_point("x_zero_point", x_zero_point, x.dtype),
        "w_zero_point": zero_point(f"{weight_name}_zero_point", weight_zero_point, weight.dtype),
        "y_zero_point": zero_point("y_zero_point", y_zero_point, kind),
    }
    if raw and (relu or bias is not None or multiplier is not None):
        raise ValueError(
            "dtype=int32: sums of products as they are take no multiplier, bias, y_zero_point, relu"
        )
    if not raw and multiplier is None:
        raise ValueError(f"multiplier: missing, {kind} outputs need one")
    scale = multipliers("multiplier", 1 if multiplier is None else multiplier, n)
    if bias is None:
        bias = np.zeros(n, np.int32)
    bias = arguments.array("bias", bias, (np.int32,), (None,))
    if len(bias) != n:
        raise ValueError(f"bias: {len(bias)} values for {n} output channels")
    flags = kernels.product_flags(format_of(x.dtype), format_of(weight.dtype), relu)
    params = pack_params(np.zeros((n, 1), np.int8), scale, bias, 0)
    return _Output(kind, params, {"flags": flags, "y_format": int(format_of(kind)), **points})


def _sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if not 1 <= size <= MATMUL_LIMIT:
            raise ValueError(f"{name}={size}: must be from 1 to {MATMUL_LIMIT}")


class MatrixProducts:
    """What `Card` can do with its array."""

    accelerator: HalfdomeAccelerator
    config: CardConfig
    session: Session
    _garbage: deque[Block]

    @whole
    def linear(
        self, x: "ArrayLike | Tensor", weight: ArrayLike, multiplier: ArrayLike | None = None,
        bias: ArrayLike | None = None, x_zero_point: int = 0, y_zero_point: int = 0,
        relu: bool = False, *, weight_zero_point: int = 0, dtype: DTypeLike = np.uint8,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """Multiplies 8-bit matrices on the card and requantises.

        Parameters
        ----------
        x : uint8 or int8 [m, k]
        weight : int8 or uint8 [n, k]
        multiplier : float32[n] or scalar, x_scale * w_scale / y_scale, finite and not zero
        bias : int32[n] or None for 0, in units of x_scale * w_scale
        relu : clamp at the output zero point
        dtype : uint8 or int8; or int32 for the sums of products as they are

        Returns
        -------
        dtype[m, n], bit for bit what ONNX Runtime's QLinearMatMul, or MatMulInteger, computes; a
        tensor if `x` is one.

        Raises `ValueError` for operands that do not fit together and `MemoryError` for operands
        that do not fit the card.
        """
        x = operand("x", x, _BYTES, (None, None), self.accelerator)
        weight = arguments.array("weight", weight, _BYTES, (None, None))
        (m, k), n = x.shape, len(weight)
        if weight.shape[1] != k:
            raise ValueError(
                f"weight: {arguments.described(weight)} does not fit x: {arguments.described(x)}"
            )
        if 0 in (m, k, n):
            raise ValueError(
                f"x: {arguments.described(x)}, weight: {arguments.described(weight)}: "
                "no dimension may be zero"
            )
        _sizes(m=m, k=k, n=n)
        output = _output(n, x, weight, multiplier, bias, x_zero_point, weight_zero_point,
                         y_zero_point, relu, dtype, "weight")  # fmt: skip
        call = Call(self.accelerator, self._garbage)
        y = call.result((m, n), output.dtype)
        weights = call.put(pack_weights(weight, self.config))
        self._multiply(call, Opcode.MATMUL, output, y, x, weights, m=m, k=k, n=n)
        return call.finish(y, stays=isinstance(x, Tensor))

    @whole
    def matmul(
        self, x: "ArrayLike | Tensor", w: "ArrayLike | Tensor",
        multiplier: ArrayLike | None = None, bias: ArrayLike | None = None,
        x_zero_point: int = 0, w_zero_point: int = 0, y_zero_point: int = 0, *,
        transposed: bool = False, triangle: bool = False, dtype: DTypeLike = np.uint8,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """Multiplies batches of two activations on the card.

        Parameters
        ----------
        x : uint8 or int8 [batches, m, k]
        w : uint8 or int8 [batches, k, n]; [batches, n, k] if `transposed`
        multiplier, bias, dtype : as in `linear`
        triangle : of each product only row i's columns j < i, one row after the other; m = n

        Returns
        -------
        dtype[batches, m, n] or dtype[batches, n * (n - 1) / 2]; a tensor if `x` or `w` is one.
        Raises as `linear` does.
        """
        x = operand("x", x, _BYTES, (None, None, None), self.accelerator)
        w = operand("w", w, _BYTES, (None, None, None), self.accelerator)
        transposed = arguments.flag("transposed", transposed)
        triangle = arguments.flag("triangle", triangle)
        batches, m, k = x.shape
        n = w.shape[1 if transposed else 2]
        if w.shape != ((batches, n, k) if transposed else (batches, k, n)):
            raise ValueError(f"w: {list(w.shape)} does not fit x: {list(x.shape)}")
        _sizes(batches=batches, m=m, k=k, n=n)
        output = _output(n, x, w, multiplier, bias, x_zero_point, w_zero_point, y_zero_point,
                         False, dtype, "w")  # fmt: skip
        if triangle and (m != n or output.dtype == np.int32):
            raise ValueError("triangle: needs as many rows as columns, of uint8 or int8")
        chosen = {Flag.TRANSPOSED: transposed, Flag.TRIANGLE: triangle}
        output.fields["flags"] |= int(sum(flag for flag, on in chosen.items() if on))
        call = Call(self.accelerator, self._garbage)
        y = call.result((batches, n * (n - 1) // 2) if triangle else (batches, m, n), output.dtype)
        right = call.rows(w)
        word = self.config.bus_bytes
        strides = {
            "w_stride": right.stride, "w_batch_stride": w.shape[1] * right.stride,
            "x_batch_stride": m * round_up(k, word),
            "y_batch_stride": max(word, y.stride) if triangle else m * y.stride,
        } | ({"y_stride": 0} if triangle else {})  # fmt: skip
        sizes = {"m": m, "k": k, "n": n, "batches": batches}
        self._multiply(call, Opcode.BATCH_MATMUL, output, y, x, right.address, **sizes, **strides)
        return call.finish(y, stays=isinstance(x, Tensor) or isinstance(w, Tensor))

    @whole
    def conv2d(
        self, x: "ArrayLike | Tensor", weight: ArrayLike, multiplier: ArrayLike | None = None,
        bias: ArrayLike | None = None, x_zero_point: int = 0, y_zero_point: int = 0,
        relu: bool = False, *, weight_zero_point: int = 0, dtype: DTypeLike = np.uint8,
        stride: int | tuple[int, int] = 1, pads: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1,
    ) -> "np.ndarray | Tensor":  # fmt: skip
        """Convolves an image on the card, reading each pixel where it lies.

        Parameters
        ----------
        x : uint8 or int8 [height, width, channels]
        weight : int8 or uint8 [n, kernel_height, kernel_width, channels / groups]
        pads : rows above, columns left, rows below, columns right that stand for zero; two numbers
            are rows above and below, columns left and right; one is for all sides
        stride, dilation : along height and width, or one for both
        groups : one command if they divide a weight tile and have as many outputs as inputs; else
            a command each, but groups that together fit one weight tile share it; channels by
            themselves are summed up by the vector engine in one, if it takes their windows
        others : as in `linear`

        Returns
        -------
        dtype[out_height, out_width, n], bit for bit what ONNX Runtime's QLinearConv, or
        ConvInteger, computes; a tensor if `x` is one. Raises as `linear` does.
        """
        x = operand("x", x, _BYTES, (None, None, None), self.accelerator)
        weight = arguments.array("weight", weight, _BYTES, (None, None, None, None))
        (height, width, channels), (n, *kernel, k) = x.shape, weight.shape
        groups = arguments.integer("groups", groups, 1)
        steps = arguments.integers("stride", stride, 2, 1, 255)
        dilations = arguments.integers("dilation", dilation, 2, 1, 255)
        sides = arguments.pads(pads)
        if k * groups != channels or n % groups:
            raise ValueError(
                f"weight: {list(weight.shape)} with groups={groups} does not fit x: {list(x.shape)}"
            )
        for name, size in zip(("height", "width"), kernel, strict=True):
            arguments.integer(f"weight: kernel {name}", size, 1, 255)
        _sizes(height=height, width=width, k=k, n=n)
        diagonal = is_diagonal(self.config, k, n // groups, groups)
        output = _output(n, x, weight, multiplier, bias, x_zero_point, weight_zero_point,
                         y_zero_point, relu, dtype, "weight")  # fmt: skip
        out = []
        for axis, side in enumerate(("height", "width")):
            padded = x.shape[axis] + sides[axis] + sides[axis + 2]
            reach = dilations[axis] * (kernel[axis] - 1) + 1
            if reach > padded:
                raise ValueError(
                    f"weight: kernel {side} {kernel[axis]} with dilation={dilations[axis]} covers "
                    f"{reach} pixels, the {side} of x with its pads is {padded}"
                )
            out.append((padded - reach) // steps[axis] + 1)
        _sizes(out_height=out[0], out_width=out[1])
        fields = {
            f"{name}_{side}": value
            for name, pair in (("kernel", kernel), ("stride", steps), ("dilation", dilations))
            for side, value in zip(("height", "width"), pair, strict=True)
        } | {
            "height": height, "width": width, "out_height": out[0], "out_width": out[1],
            "pad_top": sides[0], "pad_left": sides[1],
        }  # fmt: skip
        if groups == n == channels > 1 and output.dtype != np.int32 and fits_depthwise(
            (height, width), kernel, steps, sides, dilations
        ):  # fmt: skip
            call = Call(self.accelerator, self._garbage)
            y = call.result((out[0], out[1], n), output.dtype)
            weights = call.put(pack_taps(weight[..., 0], self.config))
            self._multiply(call, Opcode.DEPTHWISE, output, y, x, weights, k=n, **fields)
            return call.finish(y, stays=isinstance(x, Tensor))
        if groups > 1 and not diagonal and isinstance(x, Tensor):
            raise ValueError(f"groups={groups}: of a tensor only 1, bring it home with .numpy()")
        if diagonal:
            laid = on_diagonal(weight, self.config.array_rows, weight_zero_point)
            output.fields["flags"] |= int(Flag.DIAGONAL)
            call = Call(self.accelerator, self._garbage)
            y = call.result((*out, n), output.dtype)
            weights = call.put(pack_weights(laid, self.config, diagonal=True))
            self._multiply(call, Opcode.CONV2D, output, y, x, weights, k=channels, n=n, **fields)
            return call.finish(y, stays=isinstance(x, Tensor))
        together = groups_per_tile(self.config, k, n // groups, groups)
        planes = []
        for first in range(0, groups, together):
            inputs = slice(first * k, (first + together) * k)
            outputs = slice(first * n // groups, (first + together) * n // groups)
            piece = _side_by_side(weight[outputs], together, weight_zero_point)
            params = output.params.reshape(n, -1)[outputs].reshape(-1)
            part = _Output(output.dtype, params, output.fields)
            image = x if isinstance(x, Tensor) else np.ascontiguousarray(x[:, :, inputs])
            call = Call(self.accelerator, self._garbage)
            y = call.result((*out, len(piece)), output.dtype)
            weights = call.put(pack_weights(piece, self.config))
            channels = {"k": piece.shape[-1], "n": len(piece)}
            self._multiply(call, Opcode.CONV2D, part, y, image, weights, **channels, **fields)
            planes.append(call.finish(y, stays=isinstance(x, Tensor)))
        if len(planes) == 1:
            return planes[0]
        if not self.session.values:
            left_out: Any = LeftOut((*out, n), output.dtype)
            return left_out
        return np.concatenate(planes, axis=2)

    def _multiply(
        self, call: Call, opcode: Opcode, output: _Output, y: Tensor, x: np.ndarray | Tensor,
        w: int, **fields: int,
    ) -> None:  # fmt: skip
        """Places what is left of the operands and runs the command."""
        left = call.rows(x)
        places = {
            "x": left.address, "x_stride": left.stride, "w": w, "params": call.put(output.params),
            "y": y.block.address, "y_stride": max(self.config.bus_bytes, y.stride),
        }  # fmt: skip
        call.run(Work(opcode, places | output.fields | fields))


def groups_per_tile(config: CardConfig, k: int, n: int, groups: int) -> int:
    """Groups of `k` inputs and `n` outputs that share a weight tile, block beside block.

    They use `together * k * n` of its `array_rows * array_columns` processing elements.
    """
    fitting = max(1, min(config.array_rows // k, config.array_columns // n, groups))
    return max(count for count in range(1, fitting + 1) if groups % count == 0)


def _side_by_side(weight: np.ndarray, groups: int, zero_point: int) -> np.ndarray:
    """[groups * n, ..., k] as [groups * n, ..., groups * k]: each group sees its inputs alone."""
    n, k = len(weight) // groups, weight.shape[-1]
    full = np.full((*weight.shape[:-1], groups * k), zero_point, weight.dtype)
    for group in range(groups):
        rows = slice(group * n, (group + 1) * n)
        full[rows, ..., group * k : (group + 1) * k] = weight[rows]
    return full
