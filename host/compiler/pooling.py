"""Maxima and averages over windows: a command for each image."""

from collections.abc import Callable
from functools import partial

from halfdome.host.compiler.commands import Work
from halfdome.host.compiler.lowering import Lowering, label
from halfdome.host.driver.kernels import Rows, Window
from halfdome.host.graph import pooling, products
from halfdome.host.graph.graph import Node


def max_pool(lowering: Lowering, node: Node, position: int) -> None:
    """POOL of each image."""
    _pool(lowering, node, position, lowering.target.max_pool)


def average_pool(lowering: Lowering, node: Node, position: int) -> None:
    """AVERAGE of each image."""
    _pool(lowering, node, position, partial(lowering.target.average_pool, node))


def _pool(
    lowering: Lowering, node: Node, position: int, make: Callable[[Rows, Rows, Window], Work]
) -> None:
    """What lies between columns is pooled as they are."""
    (name,) = node.inputs
    value, made = lowering.graph.values[name], lowering.graph.values[node.output]
    x, y = lowering.layouts[name, position], lowering.output(node.output, position)
    k = len(lowering.joins.columns[name])
    stride, pads, dilation = products.window(node)
    image, out = value.shape[-3:-1], made.shape[-3:-1]
    pixels, out_pixels = image[0] * image[1], out[0] * out[1]
    window = Window(image, k, k, out, pooling.kernel_of(node), stride, pads[:2], dilation)  # type: ignore[arg-type]
    for number in range(lowering.rows(name, position) // pixels):
        source, drain = number * pixels, number * out_pixels
        work = make(
            lowering.rows_at(name, x, source), lowering.rows_at(node.output, y, drain), window
        )
        lowering.add(
            position, work, label(node),
            reads=[x.region(pixels, k, source)], writes=[y.region(out_pixels, k, drain)],
        )  # fmt: skip
