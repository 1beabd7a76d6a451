"""Stems: convolutions of few channels, whose windows the host lays out.

Channels of a pixel fill rows of the array; three of sixteen are few. A row of a kernel, or a whole
kernel, fills more of them, at the price of bytes over the link: neighbouring windows share pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from halfdome.hdl.commands import MATMUL_LIMIT
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import costs
from halfdome.host.driver.kernels import Window
from halfdome.host.driver.layout import round_up
from halfdome.host.frontend.steps import Taps

Pairs = Mapping[str, Sequence[int]]


def laid_out(
    config: CardConfig, kernel: Sequence[int], image: Sequence[int], channels: tuple[int, int],
    window: Pairs,
) -> tuple[Taps, ...]:  # fmt: skip
    """Along which axes the host lays out the windows of an image that it sends: none, the last, or
    both; `channels` are those of image and output, `window` has stride, dilation and pads.

    What takes longest decides, array or link, for the array works while the link brings; then the
    bytes.
    """
    taps = [
        Taps(
            (image[axis] + before + after - dilation * (kernel[axis] - 1) - 1) // stride + 1,
            kernel[axis], stride, dilation, before, after,
        )
        for axis, (stride, dilation, before, after) in enumerate(zip(
            window["stride"], window["dilation"], window["pads"][:2], window["pads"][2:],
            strict=True,
        ))
    ]  # fmt: skip
    if min(each.count for each in taps) < 1:
        return ()
    return min(_ways(taps), key=lambda way: _cost(config, image, channels, taps, way))


def _ways(taps: Sequence[Taps]) -> Iterator[tuple[Taps, ...]]:
    yield ()
    yield tuple(taps[1:])
    yield tuple(taps)


def _cost(
    config: CardConfig, image: Sequence[int], channels: tuple[int, int], taps: Sequence[Taps],
    way: Sequence[Taps],
) -> tuple[float, int]:  # fmt: skip
    """What takes longest, and the bytes that the link brings."""
    left = len(taps) - len(way)
    k = channels[0] * prod(each.taps for each in way)
    rows, columns = (*image[:left], *(each.count for each in way))
    kernel = (*(each.taps for each in taps[:left]), 1, 1)[:2]
    out = taps[0].count, taps[1].count
    ones = (1, 1)
    convolution = Window((rows, columns), k, channels[1], out, kernel, ones, (0, 0), ones)
    nbytes = rows * columns * round_up(k, config.bus_bytes)
    if k > MATMUL_LIMIT:
        return float("inf"), nbytes
    link = nbytes / costs.link_bytes_per_cycle(config)
    return max(costs.convolution(config, convolution), link), nbytes
