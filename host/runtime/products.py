"""The matrix products of a card: numpy arrays in, numpy arrays out."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import MATMUL_LIMIT, ElementFormat, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.host.runtime.layout import pack_params, pack_weights, pad_rows, round_up
from halfdome.host.runtime.memory import Block
from halfdome.host.runtime.timeline import Event, Timeline

_FORMATS = {
    np.dtype(np.uint8): ElementFormat.UINT8,
    np.dtype(np.int8): ElementFormat.INT8,
    np.dtype(np.int32): ElementFormat.INT32,
}
_BYTES = (np.dtype(np.uint8), np.dtype(np.int8))


def checked(name: str, array: np.ndarray, dtypes: tuple, ndim: int) -> np.ndarray:
    """`array`, contiguous. Raises `ValueError` for another dtype or number of dimensions."""
    array = np.asarray(array)
    if array.dtype not in dtypes or array.ndim != ndim:
        raise ValueError(
            f"{name}: is {array.dtype}[{', '.join(map(str, array.shape))}], "
            f"must be {' or '.join(str(np.dtype(d)) for d in dtypes)} "
            f"with {ndim} dimension{'s' * (ndim != 1)}"
        )
    return np.ascontiguousarray(array)


@dataclass(frozen=True)
class _Output:
    """What is made of the totals: the descriptor's fields and the operand `params`."""

    dtype: np.dtype
    params: np.ndarray
    fields: dict[str, int]


def _zero_point(name: str, value: int, dtype: np.dtype) -> int:
    """The zero point as the byte of a descriptor."""
    limits = np.iinfo(dtype)
    if not (isinstance(value, int | np.integer) and limits.min <= value <= limits.max):
        raise ValueError(f"{name}={value}: must be an integer from {limits.min} to {limits.max}")
    return int(value) & 0xFF


def _output(
    n: int, x: np.ndarray, weight: np.ndarray, multiplier: np.ndarray | float | None,
    bias: np.ndarray | None, x_zero_point: int, weight_zero_point: int, y_zero_point: int,
    relu: bool, dtype: type,
) -> _Output:  # fmt: skip
    kind = np.dtype(dtype)
    if kind not in _FORMATS:
        raise ValueError(f"dtype={kind}: must be uint8, int8 or int32")
    raw = kind == np.int32
    if raw and (relu or bias is not None or y_zero_point or multiplier is not None):
        raise ValueError(
            "dtype=int32: sums of products as they are take no multiplier, bias, y_zero_point, relu"
        )
    if not raw and multiplier is None:
        raise ValueError(f"multiplier: missing, {kind} outputs need one")
    scale = np.asarray(1 if multiplier is None else multiplier, np.float32)
    if scale.shape not in ((), (n,)):
        raise ValueError(
            f"multiplier: is {scale.dtype}[{', '.join(map(str, scale.shape))}], "
            f"must be one number or one for each of {n} output channels"
        )
    bias = np.zeros(n, np.int32) if bias is None else checked("bias", bias, (np.int32,), 1)
    if len(bias) != n:
        raise ValueError(f"bias: {len(bias)} values for {n} output channels")
    flags = Flag.RELU if relu else Flag(0)
    if x.dtype == np.int8:
        flags |= Flag.X_INT8
    if weight.dtype == np.uint8:
        flags |= Flag.W_UINT8
    return _Output(
        kind,
        pack_params(np.zeros((n, 1), np.int8), np.broadcast_to(scale, (n,)), bias, 0),
        {
            "flags": int(flags),
            "y_format": int(_FORMATS[kind]),
            "x_zero_point": _zero_point("x_zero_point", x_zero_point, x.dtype),
            "w_zero_point": _zero_point("weight_zero_point", weight_zero_point, weight.dtype),
            "y_zero_point": 0 if raw else _zero_point("y_zero_point", y_zero_point, kind),
        },
    )


def _sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if not 1 <= size <= MATMUL_LIMIT:
            raise ValueError(f"{name}={size}: must be from 1 to {MATMUL_LIMIT}")


class MatrixProducts:
    """What `Card` can do with its array."""

    config: CardConfig
    timeline: Timeline
    blocks: Callable[..., list[Block]]
    upload: Callable[[Block, np.ndarray], None]
    download: Callable[..., np.ndarray]

    def linear(
        self, x: np.ndarray, weight: np.ndarray, multiplier: np.ndarray | float | None = None,
        bias: np.ndarray | None = None, x_zero_point: int = 0, y_zero_point: int = 0,
        relu: bool = False, *, weight_zero_point: int = 0, dtype: type = np.uint8,
    ) -> np.ndarray:  # fmt: skip
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
        dtype[m, n], bit for bit what ONNX Runtime's QLinearMatMul, or MatMulInteger, computes.

        Raises `ValueError` for operands that do not fit together, `MemoryError` for operands that
        do not fit the card and `CommandError` naming the channel of a bad multiplier.
        """
        x = checked("x", x, _BYTES, 2)
        weight = checked("weight", weight, _BYTES, 2)
        (m, k), n = x.shape, len(weight)
        if weight.shape[1] != k:
            raise ValueError(
                f"weight: {weight.dtype}[{n}, {weight.shape[1]}] does not fit "
                f"x: {x.dtype}[{m}, {k}]"
            )
        if 0 in (m, k, n):
            raise ValueError(
                f"x: {x.dtype}[{m}, {k}], weight: {weight.dtype}[{n}, {k}]: "
                "no dimension may be zero"
            )
        _sizes(m=m, k=k, n=n)
        output = _output(n, x, weight, multiplier, bias, x_zero_point, weight_zero_point,
                         y_zero_point, relu, dtype)  # fmt: skip
        with ExitStack() as stack:
            packed = pack_weights(weight, self.config)
            return self._multiply(stack, Opcode.MATMUL, output, (m, n), x, packed, m=m, k=k, n=n)()

    def matmul(
        self, x: np.ndarray, w: np.ndarray, multiplier: np.ndarray | float | None = None,
        bias: np.ndarray | None = None, x_zero_point: int = 0, w_zero_point: int = 0,
        y_zero_point: int = 0, *, transposed: bool = False, triangle: bool = False,
        dtype: type = np.uint8,
    ) -> np.ndarray:  # fmt: skip
        """Multiplies batches of two activations on the card.

        Parameters
        ----------
        x : uint8 or int8 [batches, m, k]
        w : uint8 or int8 [batches, k, n]; [batches, n, k] if `transposed`
        multiplier, bias, dtype : as in `linear`
        triangle : of each product only row i's columns j < i, one row after the other; m = n

        Returns
        -------
        dtype[batches, m, n] or dtype[batches, n * (n - 1) / 2]. Raises as `linear` does.
        """
        x, w = checked("x", x, _BYTES, 3), checked("w", w, _BYTES, 3)
        batches, m, k = x.shape
        n = w.shape[1 if transposed else 2]
        if w.shape != ((batches, n, k) if transposed else (batches, k, n)):
            raise ValueError(f"w: {list(w.shape)} does not fit x: {list(x.shape)}")
        _sizes(batches=batches, m=m, k=k, n=n)
        if triangle and (m != n or np.dtype(dtype) == np.int32):
            raise ValueError("triangle: needs as many rows as columns, of uint8 or int8")
        output = _output(n, x, w, multiplier, bias, x_zero_point, w_zero_point, y_zero_point,
                         False, dtype)  # fmt: skip
        wanted = Flag.TRANSPOSED if transposed else Flag(0)
        if triangle:
            wanted |= Flag.TRIANGLE
        w_stride = round_up(w.shape[2], self.config.bus_bytes)
        x_stride = round_up(k, self.config.bus_bytes)
        size = np.dtype(dtype).itemsize
        y_rows, y_columns = (batches, n * (n - 1) // 2) if triangle else (batches * m, n)
        y_stride = round_up(max(1, y_columns * size), self.config.bus_bytes)
        output.fields["flags"] |= int(wanted)
        with ExitStack() as stack:
            result = self._multiply(
                stack, Opcode.BATCH_MATMUL, output, (y_rows, y_columns), x.reshape(-1, k),
                pad_rows(w.reshape(-1, w.shape[2]).view(np.uint8), w_stride), m=m, k=k, n=n,
                batches=batches, w_stride=w_stride, x_batch_stride=m * x_stride,
                w_batch_stride=w.shape[1] * w_stride,
                **({"y_stride": 0} if triangle else {}),
                y_batch_stride=y_stride if triangle else m * y_stride,
            )()  # fmt: skip
        return result if triangle else result.reshape(batches, m, n)

    def conv2d(
        self, x: np.ndarray, weight: np.ndarray, multiplier: np.ndarray | float | None = None,
        bias: np.ndarray | None = None, x_zero_point: int = 0, y_zero_point: int = 0,
        relu: bool = False, *, weight_zero_point: int = 0, dtype: type = np.uint8,
        stride: tuple[int, int] = (1, 1), pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: tuple[int, int] = (1, 1), groups: int = 1,
    ) -> np.ndarray:  # fmt: skip
        """Convolves an image on the card, reading each pixel where it lies.

        Parameters
        ----------
        x : uint8 or int8 [height, width, channels]
        weight : int8 or uint8 [n, kernel_height, kernel_width, channels / groups]
        pads : rows above, columns left, rows below, columns right that stand for zero
        stride, dilation : along height and width
        groups : a command each, but groups that together fit one weight tile share it
        others : as in `linear`

        Returns
        -------
        dtype[out_height, out_width, n], bit for bit what ONNX Runtime's QLinearConv, or
        ConvInteger, computes. Raises as `linear` does.
        """
        x, weight = checked("x", x, _BYTES, 3), checked("weight", weight, _BYTES, 4)
        (height, width, channels), (n, *kernel, k) = x.shape, weight.shape
        if groups < 1 or k * groups != channels or n % groups:
            raise ValueError(
                f"weight: {list(weight.shape)} with groups={groups} does not fit x: {list(x.shape)}"
            )
        output = _output(n, x, weight, multiplier, bias, x_zero_point, weight_zero_point,
                         y_zero_point, relu, dtype)  # fmt: skip
        out = [
            (x.shape[axis] + pads[axis] + pads[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1)
            // stride[axis] + 1
            for axis in (0, 1)
        ]  # fmt: skip
        _sizes(height=height, width=width, k=k, n=n, out_height=out[0], out_width=out[1])
        together = groups_per_tile(self.config, k, n // groups, groups)
        pairs = {"kernel": kernel, "stride": stride, "dilation": dilation}
        steps = {
            f"{name}_{side}": value
            for name, pair in pairs.items()
            for side, value in zip(("height", "width"), pair, strict=True)
        }
        with ExitStack() as stack:
            pending = []
            for first in range(0, groups, together):
                inputs = slice(first * k, (first + together) * k)
                outputs = slice(first * n // groups, (first + together) * n // groups)
                piece = _side_by_side(weight[outputs], together, weight_zero_point)
                part = _Output(output.dtype, output.params.reshape(n, -1)[outputs].reshape(-1),
                               output.fields)  # fmt: skip
                pending.append(self._multiply(
                    stack, Opcode.CONV2D, part, (out[0] * out[1], len(piece)),
                    x[:, :, inputs].reshape(height * width, -1), pack_weights(piece, self.config),
                    height=height, width=width, k=piece.shape[-1], n=len(piece),
                    out_height=out[0], out_width=out[1], pad_top=pads[0], pad_left=pads[1], **steps,
                ))  # fmt: skip
            planes = [finish() for finish in pending]
        return np.concatenate(planes, axis=1).reshape(*out, n)

    def _multiply(
        self, stack: ExitStack, opcode: Opcode, output: _Output, shape: tuple[int, int],
        x: np.ndarray, w: np.ndarray, **fields: int,
    ) -> Callable[[], np.ndarray]:  # fmt: skip
        """Places the operands and issues the command; returns what waits for y[shape]."""
        rows, columns = shape
        bus_bytes = self.config.bus_bytes
        x_stride = round_up(x.shape[1], bus_bytes)
        y_stride = round_up(max(1, columns * output.dtype.itemsize), bus_bytes)
        operands = [pad_rows(x.view(np.uint8), x_stride), w, output.params]
        # The output has the first claim to the scratchpad: to DRAM it goes in whole lines, later.
        y, *blocks = self.blocks(stack, rows * y_stride, *(operand.size for operand in operands))
        for block, operand in zip(blocks, operands, strict=True):
            self.upload(block, operand)
        x_block, w_block, params = blocks
        named = {"x": x_block, "w": w_block, "params": params, "y": y}
        addresses = {name: block.address for name, block in named.items()}
        strides = {"x_stride": x_stride, "y_stride": y_stride}
        product: Event = self.timeline.issue(
            opcode, **(addresses | strides | output.fields | fields)
        )

        def finish() -> np.ndarray:
            raw = self.download(y, rows * y_stride, product).view(output.dtype)
            return raw.reshape(rows, -1)[:, :columns].copy()

        return finish


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
