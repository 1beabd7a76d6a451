"""Convolutions: a command for each strip of an image, and for each block of groups.

A pixel of an image is a row of its channels. Groups that divide a tile of the array share one
command, of which each tile of outputs sees its own channels alone. Of others, those whose channels
together begin and end at bus words do. Weights for the channels of other groups stand for zero.
"""

from dataclasses import dataclass

import numpy as np

from halfdome.host.compiler import depthwise, products
from halfdome.host.compiler.commands import Place, Region
from halfdome.host.compiler.lowering import Lowering, Reading, label, whole
from halfdome.host.compiler.products import hold_params, hold_weights, spread, weight_format
from halfdome.host.compiler.staging import Staging
from halfdome.host.driver.kernels import Window
from halfdome.host.driver.layout import on_diagonal
from halfdome.host.graph import products as operators
from halfdome.host.graph.graph import Node


@dataclass(frozen=True)
class _Block:
    """Groups that share a command: their bytes of x and y, what is held for them, and the window
    of a whole image."""

    x_byte: int
    y_byte: int
    weights: Region
    params: Region | None
    window: Window


def conv2d(lowering: Lowering, node: Node, position: int) -> None:
    """CONV2D of each image, strip and block; DEPTHWISE of channels by themselves; or the product
    that it is."""
    if depthwise.fits(lowering, node):
        depthwise.depthwise(lowering, node, position)
        return
    if _sees_pixels(lowering, node):
        products.linear(lowering, node, position)
        return
    (name, *_), output = node.inputs, node.output
    value, made = lowering.graph.values[name], lowering.graph.values[output]
    x, y = lowering.layouts[name, position], lowering.output(output, position)
    blocks = _blocks(lowering, node, position)
    reading = Reading(x.buffer, lowering.row_bytes(name), blocks[0].window, len(blocks))
    staging = Staging(lowering, node, position, x, reading)
    width, out_width = value.shape[-2], made.shape[-2]
    for number in range(lowering.rows(name, position) // (value.shape[-3] * width)):
        for strip in staging.strips:
            source = staging.rows(number * value.shape[-3] * width, strip)
            first = (number * made.shape[-3] + strip.out.start) * out_width
            sizes = len(strip.image) * width, len(strip.out) * out_width
            for block in blocks:
                window = strip.window(block.window)
                x_bytes, weight_bytes = lowering.target.fetched(window)
                work = lowering.target.conv2d(
                    node, lowering.rows_at(name, source, 0, block.x_byte),
                    Place(block.weights.buffer), Place(block.params.buffer) if block.params else 0,
                    lowering.rows_at(output, y, first, block.y_byte), window,
                    weight_format(lowering.graph.constants[node.inputs[1]]),
                    operators.weight_zero_point(node),
                )  # fmt: skip
                lowering.add(
                    position, work, label(node),
                    reads=[
                        source.region(sizes[0], window.k, 0, block.x_byte).moving(x_bytes),
                        block.weights.moving(weight_bytes),
                        *([block.params] if block.params else []),
                    ],
                    writes=[
                        y.region(sizes[1], window.n * made.format.nbytes, first, block.y_byte)
                    ],
                )  # fmt: skip


def _sees_pixels(lowering: Lowering, node: Node) -> bool:
    """Whether each pixel of y is made of the same one of x: then rows of x that lie in one line of
    memory are read together."""
    weight = lowering.graph.constants[node.inputs[1]]
    stride, pads, _ = operators.window(node)
    alone = weight.shape[1:-1] == (1, 1) and tuple(stride) == (1, 1) and not any(pads)
    return alone and node.attributes.get("groups", 1) == 1


def _blocks(lowering: Lowering, node: Node, position: int) -> list[_Block]:
    """What each command of a strip is for."""
    constants, (name, weight_name, *params) = lowering.graph.constants, node.inputs
    value, made = lowering.graph.values[name], lowering.graph.values[node.output]
    weight, columns = constants[weight_name], lowering.joins.columns[name]
    zero_point = operators.weight_zero_point(node)
    stride, pads, dilation = operators.window(node)
    kernel = weight.shape[1:-1]
    tile = _diagonal_tile(lowering, node, weight, columns)
    cuts = _cuts(node, weight, columns, lowering.target.word, made.format.nbytes)
    if tile:
        cuts = [(0, len(weight), slice(0, len(columns)))]
    found = []
    for first, count, inputs in cuts:

        def dense(first=first, count=count, inputs=inputs) -> np.ndarray:
            if tile:
                return on_diagonal(weight, tile, zero_point)
            alone = _dense(weight[first : first + count], node, len(weight), zero_point)
            return spread(alone, columns[inputs] - inputs.start, zero_point)

        part = "" if count == len(weight) else f" {first}"
        k = inputs.stop - inputs.start
        shape = (count, *kernel, tile or k)
        held = hold_weights(lowering, node, position, shape, dense, part, diagonal=tile > 0)
        region = None
        if params:
            bias, multiplier = (constants[each][first : first + count] for each in params)
            _, region = hold_params(lowering, node, position, bias, multiplier, part)
        window = Window(
            value.shape[-3:-1], k, count, made.shape[-3:-1], kernel, stride, pads[:2], dilation,
            tile > 0,
        )  # type: ignore[arg-type]  # fmt: skip
        out_byte = first * made.format.nbytes
        found.append(_Block(inputs.start, out_byte, whole(held), region, window))
    return found


def _diagonal_tile(lowering: Lowering, node: Node, weight: np.ndarray, columns: np.ndarray) -> int:
    """Channels of a tile if tiles of outputs may see their own channels alone: never more work than
    blocks are. Else 0."""
    groups = int(node.attributes.get("groups", 1))  # type: ignore[arg-type]
    if not np.array_equal(columns, np.arange(len(columns))):
        return 0
    return lowering.target.diagonal_tile(weight.shape[-1], len(weight) // groups, groups)


def _cuts(
    node: Node, weight: np.ndarray, columns: np.ndarray, word: int, out_bytes: int
) -> list[tuple[int, int, slice]]:
    """First output channel, their number and the bytes of x that they see, for each command."""
    n, k = len(weight), weight.shape[-1]
    groups = int(node.attributes.get("groups", 1))  # type: ignore[arg-type]
    everything = [(0, n, slice(0, len(columns)))]
    if groups == 1 or not np.array_equal(columns, np.arange(len(columns))):
        return everything
    each = n // groups
    together = next(
        (
            count for count in range(1, groups)
            if groups % count == 0 and not count * k % word and not count * each * out_bytes % word
        ),
        groups,
    )  # fmt: skip
    return [
        (first * each, together * each, slice(first * k, (first + together) * k))
        for first in range(0, groups, together)
    ]


def _dense(weight: np.ndarray, node: Node, n: int, zero_point: int) -> np.ndarray:
    """[count, rows, columns, k] of some groups as [count, rows, columns, groups * k]: each group
    sees its inputs alone."""
    groups = int(node.attributes.get("groups", 1))  # type: ignore[arg-type]
    k, each = weight.shape[-1], n // groups
    together = len(weight) // each
    full = np.full((*weight.shape[:-1], together * k), zero_point, weight.dtype)
    for group in range(together):
        rows = slice(group * each, (group + 1) * each)
        full[rows, ..., group * k : (group + 1) * k] = weight[rows]
    return full
