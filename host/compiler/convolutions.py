"""Convolutions: a command for each image, and for each block of groups.

A pixel of an image is a row of its channels. Groups whose channels together begin and end at bus
words share a command, each with weights that stand for zero for the channels of the others.
"""

from dataclasses import replace

import numpy as np

from halfdome.host.compiler.commands import Place
from halfdome.host.compiler.lowering import Lowering, label, whole
from halfdome.host.compiler.products import hold_params, hold_weights, spread, weight_format
from halfdome.host.driver.kernels import Window
from halfdome.host.graph import products
from halfdome.host.graph.graph import Node


def conv2d(lowering: Lowering, node: Node, position: int) -> None:
    """CONV2D of each image and block."""
    target, constants = lowering.target, lowering.graph.constants
    name, weight_name, *params = node.inputs
    value, made = lowering.graph.values[name], lowering.graph.values[node.output]
    x, y = lowering.layouts[name, position], lowering.output(node.output, position)
    weight, columns = constants[weight_name], lowering.joins.columns[name]
    zero_point = products.weight_zero_point(node)
    stride, pads, dilation = products.window(node)
    image, out = value.shape[-3:-1], made.shape[-3:-1]
    pixels, out_pixels = image[0] * image[1], out[0] * out[1]
    window = Window(image, 0, 0, out, weight.shape[1:3], stride, pads[:2], dilation)  # type: ignore[arg-type]
    for first, count, inputs in _blocks(node, weight, columns, target.word, made.format.nbytes):

        def block(first=first, count=count, inputs=inputs) -> np.ndarray:
            dense = _dense(weight[first : first + count], node, len(weight), zero_point)
            return spread(dense, columns[inputs], zero_point)

        part = "" if count == len(weight) else f" {first}"
        k = inputs.stop - inputs.start
        held = hold_weights(
            lowering, node, position, (count, *weight.shape[1:-1], k), block, part
        )  # fmt: skip
        reads, place = [whole(held)], 0
        if params:
            bias, multiplier = (constants[each][first : first + count] for each in params)
            place, region = hold_params(lowering, node, position, bias, multiplier, part)
            reads.append(region)
        shape = replace(window, k=k, n=count)
        out_byte, out_bytes = first * made.format.nbytes, count * made.format.nbytes
        for number in range(lowering.rows(name, position) // pixels):
            source, drain = number * pixels, number * out_pixels
            work = target.conv2d(
                node, lowering.rows_at(name, x, source, inputs.start), Place(held), place,
                lowering.rows_at(node.output, y, drain, out_byte), shape, weight_format(weight),
                zero_point,
            )  # fmt: skip
            lowering.add(
                position, work, label(node),
                reads=[x.region(pixels, k, source, inputs.start), *reads],
                writes=[y.region(out_pixels, out_bytes, drain, out_byte)],
            )  # fmt: skip


def _blocks(
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
