"""Convolutions of each channel by itself: a command for each strip of an image.

The vector engine adds up what its windows see, beside the array, which does other products
meanwhile.
"""

import numpy as np

from halfdome.host.compiler import windows
from halfdome.host.compiler.commands import Place
from halfdome.host.compiler.lowering import Lowering, whole
from halfdome.host.compiler.products import hold_params, weight_format
from halfdome.host.driver.kernels import Rows, Window, Work
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

    def make(source: Rows, drain: Rows, cut: Window) -> Work:
        return lowering.target.depthwise(
            node, source, held, params_place, drain, cut, weight_format(weight),
            products.weight_zero_point(node),
        )  # fmt: skip

    windows.over_images(lowering, node, position, window, make, reads)


def _are_ones(node: Node, weight: np.ndarray) -> bool:
    return bool((weight == products.weight_zero_point(node) + 1).all())
