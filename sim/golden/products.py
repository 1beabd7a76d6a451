"""What the matrix products do to card memory: MATMUL, BATCH_MATMUL, CONV2D."""

import numpy as np

from halfdome.hdl.commands import ElementFormat, Flag, Opcode, Status
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.matmul import (
    PARAM,
    product,
    requantise,
    tile_order,
    triangle,
    unpack_weights,
)
from halfdome.sim.golden.windows import tap_positions

_DTYPES = {
    ElementFormat.UINT8: np.uint8,
    ElementFormat.INT8: np.int8,
    ElementFormat.INT32: np.int32,
}


def convolution(
    x: np.ndarray,
    w: np.ndarray,
    *,
    out: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    x_zero_point: int = 0,
    w_zero_point: int = 0,
) -> np.ndarray:
    """int32[*out, n]: sums of products of an image with a kernel, ONNX's ConvInteger.

    x uint8 or int8 [height, width, k]; w uint8 or int8 [kernel_height, kernel_width, k, n]. What
    lies outside the image, `pad` rows above it and columns left of it and as many as `out` needs
    beyond, stands for zero.
    """
    rows, columns = tap_positions((w.shape[0], w.shape[1]), out, stride, pad, dilation)
    total = np.zeros((*out, w.shape[-1]), np.int32)
    for ky in range(w.shape[0]):
        for kx in range(w.shape[1]):
            y_at, x_at = rows[:, ky], columns[:, kx]
            inside = np.ix_((y_at >= 0) & (y_at < x.shape[0]), (x_at >= 0) & (x_at < x.shape[1]))
            taken = np.full((*out, x.shape[2]), x_zero_point, x.dtype)
            picked = np.ix_(np.clip(y_at, 0, x.shape[0] - 1), np.clip(x_at, 0, x.shape[1] - 1))
            taken[inside] = x[picked][inside]
            total += product(taken, w[ky, kx], x_zero_point, w_zero_point)
    return total


def execute(
    opcode: Opcode, v: dict[str, int], memory: np.ndarray, config: CardConfig
) -> tuple[Status, int]:
    """Does what a checked descriptor's fields `v` say to `memory`; returns status and detail."""
    x_type = np.int8 if v["flags"] & Flag.X_INT8 else np.uint8
    w_type = np.uint8 if v["flags"] & Flag.W_UINT8 else np.int8

    def taken(address: int, dtype: type, counts: tuple, strides: tuple) -> np.ndarray:
        """A strided operand; its last axis is contiguous."""
        return memory[_places(address, counts, strides)].view(dtype)

    zero_points = {
        "x_zero_point": _signed(v["x_zero_point"], x_type),
        "w_zero_point": _signed(v["w_zero_point"], w_type),
    }
    k, n = v["k"], v["n"]
    if opcode is Opcode.CONV2D:
        taps = v["kernel_height"], v["kernel_width"]
        x = taken(v["x"], x_type, (v["height"] * v["width"], k), (v["x_stride"], 1))
        total = convolution(
            x.reshape(v["height"], v["width"], k),
            _tiles(v, memory, config, taps[0] * taps[1]).view(w_type).reshape(*taps, k, n),
            out=(v["out_height"], v["out_width"]),
            stride=(v["stride_height"], v["stride_width"]),
            pad=(v["pad_top"], v["pad_left"]),
            dilation=(v["dilation_height"], v["dilation_width"]),
            **zero_points,
        ).reshape(1, -1, n)
    elif opcode is Opcode.BATCH_MATMUL:
        transposed = v["flags"] & Flag.TRANSPOSED
        w_shape = (v["batches"], n, k) if transposed else (v["batches"], k, n)
        x_steps, w_steps = (
            (v[f"{name}_batch_stride"], v[f"{name}_stride"], 1) for name in ("x", "w")
        )
        x = taken(v["x"], x_type, (v["batches"], v["m"], k), x_steps)
        w = taken(v["w"], w_type, w_shape, w_steps)
        total = product(x, w.swapaxes(1, 2) if transposed else w, **zero_points)
    else:
        x = taken(v["x"], x_type, (1, v["m"], k), (0, v["x_stride"], 1))
        total = product(x, _tiles(v, memory, config, 1).view(w_type), **zero_points)

    y_format = ElementFormat(v["y_format"])
    status = Status.OK, 0
    if y_format is ElementFormat.INT32:
        y = total
    else:
        params = memory[v["params"] : v["params"] + n * PARAM.itemsize].view(PARAM)
        bad = ~np.isfinite(params["multiplier"]) | (params["multiplier"] == 0)
        if bad.any():
            status = Status.BAD_MULTIPLIER, int(bad.argmax())
        dtype = _DTYPES[y_format]
        zero_point, relu = _signed(v["y_zero_point"], dtype), bool(v["flags"] & Flag.RELU)
        y = requantise(total, params["bias"], params["multiplier"], zero_point, relu, dtype)
    batch_stride = v.get("y_batch_stride", 0)
    if v["flags"] & Flag.TRIANGLE:
        y = triangle(y)[:, None, :]
    y = np.ascontiguousarray(y).view(np.uint8)
    memory[_places(v["y"], y.shape, (batch_stride, v["y_stride"], 1))] = y
    return status


def _signed(value: int, dtype: type) -> int:
    return int(np.uint8(value).view(dtype))


def _places(address: int, counts: tuple, strides: tuple) -> np.ndarray:
    """Where in memory each byte of a strided operand lies."""
    places = np.array(address, np.int64)
    for count, stride in zip(counts, strides, strict=True):
        places = places[..., None] + np.arange(count) * stride
    return places


def _tiles(v: dict[str, int], memory: np.ndarray, config: CardConfig, taps: int) -> np.ndarray:
    diagonal = bool(v["flags"] & Flag.DIAGONAL)
    order = tile_order(v["k"], v["n"], taps, config, diagonal=diagonal)
    packed = memory[v["w"] : v["w"] + len(order) * config.weight_tile_bytes]
    return unpack_weights(
        packed, v["k"], v["n"], config, taps, diagonal=diagonal, zero_point=v["w_zero_point"]
    )
