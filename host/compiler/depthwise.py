"""Convolutions of each channel by itself: a command for each strip of an image.

The vector engine adds up what its windows see, beside the array, which does other products
meanwhile.
"""

from collections.abc import Mapping

import numpy as np

from halfdome.host.compiler.commands import Place
from halfdome.host.compiler.lowering import Lowering, Reading, label, whole
from halfdome.host.compiler.products import hold_params, weight_format
from halfdome.host.compiler.staging import Staging
from halfdome.host.driver.kernels import Window
from halfdome.host.graph import pooling, products
from halfdome.host.graph.graph import Node


def fits(lowering: Lowering, node: Node) -> bool:
    """Whether a convolution is one of each channel by itself that one command can say."""
    value, made = lowering.graph.values[node.inputs[0]], lowering.graph.values[node.output]
    weight = lowering.graph.constants[node.inputs[1]]
    columns = lowering.joins.columns[node.inputs[0]]
    n, *kernel, k = weight.shape
    if k != 1 or not n == value.shape[-1] > 1 or made.format.nbytes != 1:
        return False
    if not np.array_equal(columns, np.arange(n)):
        return False
    return pooling.fits_depthwise(
        value.shape[-3:-1], kernel, *products.window(node), weighted=not _are_ones(node, weight)
    )


def depthwise(lowering: Lowering, node: Node, position: int) -> None:
    """DEPTHWISE of each image and strip."""
    constants, (name, weight_name, *params) = lowering.graph.constants, node.inputs
    value, made = lowering.graph.values[name], lowering.graph.values[node.output]
    x, y = lowering.layouts[name, position], lowering.output(node.output, position)
    weight = constants[weight_name]
    k, *kernel = weight.shape[:-1]
    stride, pads, dilation = products.window(node)
    window = Window(
        value.shape[-3:-1], k, k, made.shape[-3:-1], tuple(kernel), stride, pads[:2], dilation
    )  # type: ignore[arg-type]  # fmt: skip
    bias, multiplier = (constants[each] for each in params)
    params_place, params_region = hold_params(lowering, node, position, bias, multiplier)
    held, reads = None, [params_region]
    if not _are_ones(node, weight):
        buffer = lowering.hold(
            f"{node.output} weights", position, lowering.target.tap_bytes(window),
            lambda: lowering.target.pack_taps(weight[..., 0]),
        )  # fmt: skip
        held = Place(buffer)
        reads.append(whole(buffer))
    pixels, out_pixels = window.image[0] * window.image[1], window.out[0] * window.out[1]
    images = lowering.rows(name, position) // pixels
    reading = Reading(x.buffer, lowering.row_bytes(name), window, alone=True, images=images)
    staging = Staging(lowering, node, position, x, reading)
    for number in range(images):
        for strip in staging.strips:
            source, cut = staging.rows(number * pixels, strip), strip.window(window)
            first = number * out_pixels + strip.out.start * window.out[1]
            work = lowering.target.depthwise(
                node, lowering.rows_at(name, source), held, params_place,
                lowering.rows_at(node.output, y, first), cut, weight_format(weight),
                products.weight_zero_point(node),
            )  # fmt: skip
            size = len(strip.image) * window.image[1]
            lowering.add(
                position, work, label(node),
                reads=[source.region(size, k).moving(lowering.target.fetched_alone(cut)), *reads],
                writes=[y.region(len(strip.out) * window.out[1], k, first)],
            )  # fmt: skip


def far_cycles(lowering: Lowering, memories: Mapping[int, str]) -> list[float]:
    """What far memory is expected to take on each card for what windows see of it, each channel
    alone; `memories` by buffer."""
    target, taken = lowering.target, [0.0] * len(lowering.shares)
    for (output, position), reading in lowering.readings.items():
        is_far = memories[id(reading.buffer)] == target.far
        if reading.alone and is_far and (output, position) not in lowering.cuts:
            taps = target.far_taps(reading.window, reading.row_bytes)
            taken[position] += reading.images * taps
    return taken


def _are_ones(node: Node, weight: np.ndarray) -> bool:
    return bool((weight == products.weight_zero_point(node) + 1).all())
