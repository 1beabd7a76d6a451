"""The meaning of DEPTHWISE: weighted sums over windows of an image, each channel by itself."""

import numpy as np

from halfdome.hdl.commands import ElementFormat, Flag, Status
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.matmul import PARAM, requantise
from halfdome.sim.golden.windows import tap_positions


def depthwise(
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
    """int32[*out, k]: sums of products over windows, ONNX's ConvInteger of k groups.

    x uint8 or int8 [height, width, k]; w uint8 or int8 [kernel_height, kernel_width, k]. The first
    window begins `pad` rows above x and columns left of it. What lies outside x stands for zero.
    """
    rows, columns = tap_positions((w.shape[0], w.shape[1]), out, stride, pad, dilation)
    left, right = (v.astype(np.int32) - z for v, z in ((x, x_zero_point), (w, w_zero_point)))
    total = np.zeros((*out, x.shape[2]), np.int32)
    for ky, down in enumerate(rows.T):
        y_inside = (down >= 0) & (down < x.shape[0])
        for kx, beside in enumerate(columns.T):
            x_inside = (beside >= 0) & (beside < x.shape[1])
            taken = left[np.ix_(down[y_inside], beside[x_inside])]
            total[np.ix_(y_inside, x_inside)] += taken * right[ky, kx]
    return total


def execute(v: dict[str, int], memory: np.ndarray, config: CardConfig) -> tuple[Status, int]:
    """Does what a checked descriptor's fields `v` say to `memory`; returns status and detail."""
    k, flags = v["k"], Flag(v["flags"])
    x_type = np.int8 if flags & Flag.X_INT8 else np.uint8
    w_type = np.uint8 if flags & Flag.W_UINT8 else np.int8

    def sides(name: str) -> tuple[int, int]:
        return v[f"{name}_height"], v[f"{name}_width"]

    def places(name: str, rows: int, stride: int) -> np.ndarray:
        return v[name] + np.arange(rows)[:, None] * stride + np.arange(k)

    height, width = v["height"], v["width"]
    x = memory[places("x", height * width, v["x_stride"])].view(x_type)
    kernel, out = sides("kernel"), sides("out")
    if flags & Flag.ONES:
        w, w_zero_point = np.ones((*kernel, k), w_type), 0
    else:
        row = -(-k // config.bus_bytes) * config.bus_bytes
        w = memory[places("w", kernel[0] * kernel[1], row)].view(w_type).reshape(*kernel, k)
        w_zero_point = _signed(v["w_zero_point"], w_type)
    total = depthwise(
        x.reshape(height, width, k), w, out=out, stride=sides("stride"),
        pad=(v["pad_top"], v["pad_left"]), dilation=sides("dilation"),
        x_zero_point=_signed(v["x_zero_point"], x_type), w_zero_point=w_zero_point,
    )  # fmt: skip

    params = memory[v["params"] : v["params"] + k * PARAM.itemsize].view(PARAM)
    y_type = np.int8 if v["y_format"] == ElementFormat.INT8 else np.uint8
    zero_point, relu = _signed(v["y_zero_point"], y_type), bool(flags & Flag.RELU)
    y = requantise(total, params["bias"], params["multiplier"], zero_point, relu, y_type)
    memory[places("y", out[0] * out[1], v["y_stride"])] = y.reshape(-1, k).view(np.uint8)
    bad = ~np.isfinite(params["multiplier"]) | (params["multiplier"] == 0)
    return (Status.BAD_MULTIPLIER, int(bad.argmax())) if bad.any() else (Status.OK, 0)


def _signed(value: int, dtype: type) -> int:
    return int(np.uint8(value).view(dtype))
