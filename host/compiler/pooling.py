"""Maxima and averages over windows: a command for each strip of an image."""

from collections.abc import Callable
from functools import partial

from halfdome.host.compiler import windows
from halfdome.host.compiler.lowering import Lowering
from halfdome.host.driver.kernels import Rows, Window, Work
from halfdome.host.graph import pooling, products
from halfdome.host.graph.graph import Node


def max_pool(lowering: Lowering, node: Node, position: int) -> None:
    """POOL of each image and strip."""
    _pool(lowering, node, position, lowering.target.max_pool)


def average_pool(lowering: Lowering, node: Node, position: int) -> None:
    """AVERAGE of each image and strip."""
    _pool(lowering, node, position, partial(lowering.target.average_pool, node))


def _pool(
    lowering: Lowering, node: Node, position: int, make: Callable[[Rows, Rows, Window], Work]
) -> None:
    """What lies between columns is pooled as they are."""
    (name,) = node.inputs
    image, out = (lowering.graph.values[each].shape[-3:-1] for each in (name, node.output))
    k = len(lowering.joins.columns[name])
    stride, pads, dilation = products.window(node)
    window = Window(image, k, k, out, pooling.kernel_of(node), stride, pads[:2], dilation)  # type: ignore[arg-type]
    windows.over_images(lowering, node, position, window, make)
