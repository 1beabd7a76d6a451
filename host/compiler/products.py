"""Matrix products: of a tensor with weights, and of tensors with each other."""

from collections.abc import Callable, Sequence

import numpy as np

from halfdome.hdl.commands import MATMUL_LIMIT, ElementFormat
from halfdome.host.compiler.commands import Buffer, Extent, Place, Region
from halfdome.host.compiler.lowering import Layout, Lowering, Reading, label, whole
from halfdome.host.compiler.staging import Staging
from halfdome.host.driver.kernels import Window
from halfdome.host.driver.layout import PARAM
from halfdome.host.graph import operator
from halfdome.host.graph import products as operators
from halfdome.host.graph.graph import Node


def spread(weight: np.ndarray, columns: np.ndarray, zero_point: int) -> np.ndarray:
    """[..., k] for elements that lie as `columns` say: what nobody reads is multiplied by the
    weight that stands for zero."""
    laid = np.full((*weight.shape[:-1], len(columns)), zero_point, weight.dtype)
    laid[..., columns >= 0] = weight[..., columns[columns >= 0]]
    return laid


def hold_params(
    lowering: Lowering, node: Node, position: int, bias: np.ndarray, multiplier: np.ndarray,
    part: str = "",
) -> tuple[Place, Region]:  # fmt: skip
    """Bias and multiplier on a card: where, and what a command reads there."""
    held = lowering.hold(
        f"{node.output} params{part}", position, len(bias) * PARAM.itemsize,
        lambda: lowering.target.pack_params(multiplier, bias),
    )  # fmt: skip
    return Place(held), whole(held)


def linear(lowering: Lowering, node: Node, position: int) -> None:
    """x times packed weights, at most `MATMUL_LIMIT` rows at a time."""
    constants, (name, weight, *params) = lowering.graph.constants, node.inputs
    x, y = lowering.layouts[name, position], lowering.output(node.output, position)
    zero_point, columns = operators.weight_zero_point(node), lowering.joins.columns[name]
    held = [constants[each] for each in params]
    matrix = constants[weight].reshape(len(constants[weight]), -1)
    times(
        lowering, node, position, x, (len(matrix), len(columns)),
        lambda: spread(matrix, columns, zero_point), weight_format(matrix),
        zero_point, held, y, lowering.rows(name, position),
    )  # fmt: skip


def times(
    lowering: Lowering, node: Node, position: int, x: Layout, shape: tuple[int, int],
    weight: Callable[[], np.ndarray], kind: ElementFormat, zero_point: int,
    params: Sequence[np.ndarray], y: Layout, rows: int,
) -> None:  # fmt: skip
    """`rows` rows at x of a node's first input times the weights that `weight` makes; `shape` is
    theirs, n and k."""
    target, name = lowering.target, node.inputs[0]
    y_bytes = lowering.format(node.output).nbytes
    n, k = shape
    weights = hold_weights(lowering, node, position, shape, weight)
    place, extra = 0, []
    if params:
        place, region = hold_params(lowering, node, position, *params)
        extra.append(region)
    window = Window((rows, 1), k, n, (rows, 1), (1, 1), (1, 1), (0, 0), (1, 1))
    staging = Staging(lowering, node, position, x, Reading(x.buffer, k, window, 1))
    for strip in staging.strips:
        first, count = strip.out.start, len(strip.out)
        source = staging.rows(0, strip)
        x_bytes, weight_bytes = target.fetched(strip.window(window))
        work = target.linear(
            node, lowering.rows_at(name, source), Place(weights), place,
            lowering.rows_at(node.output, y, first), (count, k, n), kind, zero_point,
        )  # fmt: skip
        lowering.add(
            position, work, label(node),
            reads=[
                source.region(count, k).moving(x_bytes), whole(weights).moving(weight_bytes), *extra
            ],
            writes=[y.region(count, n * y_bytes, first)],
        )  # fmt: skip


def hold_weights(
    lowering: Lowering, node: Node, position: int, shape: Sequence[int],
    weight: Callable[[], np.ndarray], part: str = "", *, diagonal: bool = False,
) -> Buffer:  # fmt: skip
    """The weights of this shape that `weight` makes, on a card as its commands take them."""
    target = lowering.target
    return lowering.hold(
        f"{node.output} weights{part}", position, target.weight_bytes(shape),
        lambda: target.pack_weights(weight(), diagonal=diagonal),
    )  # fmt: skip


def weight_format(weight: np.ndarray) -> ElementFormat:
    """How weights come to the array."""
    return ElementFormat.INT8 if weight.dtype == np.int8 else ElementFormat.UINT8


def hold_alike(lowering: Lowering, node: Node, position: int, count: int) -> tuple[Place, Region]:
    """One multiplier for so many channels, and no bias."""
    multiplier = np.full(count, node.attributes.get("multiplier", 1), np.float32)
    return hold_params(lowering, node, position, np.zeros(count, np.int32), multiplier)


def batch_matmul(lowering: Lowering, node: Node, position: int) -> None:
    """Products of matrices of two tensors: one command for as many as lie evenly."""
    values = [lowering.graph.values[name] for name in (*node.inputs, node.output)]
    transposed = operators.is_transposed(node)
    x, _, y = values
    for name in node.inputs:
        check_packed(lowering, node, name)
    shares = lowering.samples(position)
    leading = (shares, *y.shape[1:-2])
    firsts = []  # the first row of each matrix, as far as operands differ
    for value in values:
        rows = value.shape[-2]
        own = (shares, *value.shape[1:-2])
        numbers = np.arange(int(np.prod(own, dtype=np.int64))).reshape(own) * rows
        firsts.append(np.broadcast_to(numbers, leading).reshape(-1))
    (m, k), n = x.shape[-2:], y.shape[-1]
    place: Place | int = 0
    reads = []
    if y.format is not ElementFormat.INT32:
        place, region = hold_alike(lowering, node, position, n)
        reads.append(region)
    names = (*node.inputs, node.output)
    layouts = [lowering.layouts[name, position] for name in node.inputs]
    layouts.append(lowering.output(node.output, position))
    for start, count in _runs(firsts):
        operands, regions = [], []
        for name, value, layout, first in zip(names, values, layouts, firsts, strict=True):
            step = int(first[start + 1] - first[start]) if count > 1 else 0
            rows = (count - 1) * step + value.shape[-2]
            at = int(first[start])
            operands.append((lowering.rows_at(name, layout, at), step * layout.stride))
            region = layout.region(rows, lowering.row_bytes(name), at)
            if step not in (0, value.shape[-2]):  # as far as anybody can say
                extent = region.extent
                region = Region(
                    region.buffer, Extent(extent.start, 1, extent.end - extent.start, 0)
                )
            regions.append(region)
        work = lowering.target.batch_matmul(
            operands, place, (count, m, k, n), transposed=transposed
        )
        lowering.add(position, work, label(node), reads=[*regions[:2], *reads], writes=regions[2:])


def check_packed(lowering: Lowering, node: Node, name: str) -> None:
    """Refuses a tensor that does not lie as it is: what it meets would have to lie alike."""
    columns = lowering.joins.columns[name]
    if not np.array_equal(columns, np.arange(len(columns))):
        raise operator.refuse(node, f"{name} lies in another order of columns than its own")


def _runs(firsts: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Start and length of the longest runs along which every operand advances evenly."""
    steps = np.stack([np.diff(first) for first in firsts])
    runs, start, count = [], 0, len(firsts[0])
    while start < count:
        end = start + 1
        while end < count and (end == start + 1 or (steps[:, end - 1] == steps[:, start]).all()):
            end += 1
            if end - start == MATMUL_LIMIT:
                break
        runs.append((start, end - start))
        start = end
    return runs
