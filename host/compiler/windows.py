"""Commands over windows of each channel by itself: one for each image and strip."""

from collections.abc import Callable, Mapping, Sequence

from halfdome.host.compiler.commands import Region
from halfdome.host.compiler.lowering import Lowering, Reading, label
from halfdome.host.compiler.staging import Staging
from halfdome.host.driver.kernels import Rows, Window, Work
from halfdome.host.graph.graph import Node


def over_images(
    lowering: Lowering, node: Node, position: int, window: Window,
    make: Callable[[Rows, Rows, Window], Work], reads: Sequence[Region] = (),
) -> None:  # fmt: skip
    """What `make` says of rows of x and y and a window, for all images of a node's first input;
    every command `reads` that, too."""
    name = node.inputs[0]
    x, y = lowering.layouts[name, position], lowering.output(node.output, position)
    pixels, out_pixels = window.image[0] * window.image[1], window.out[0] * window.out[1]
    images = lowering.rows(name, position) // pixels
    reading = Reading(x.buffer, lowering.row_bytes(name), window, alone=True, images=images)
    staging = Staging(lowering, node, position, x, reading)
    for number in range(images):
        for strip in staging.strips:
            source, cut = staging.rows(number * pixels, strip), strip.window(window)
            first = number * out_pixels + strip.out.start * window.out[1]
            work = make(
                lowering.rows_at(name, source), lowering.rows_at(node.output, y, first), cut
            )
            seen = source.region(len(strip.image) * window.image[1], window.k)
            lowering.add(
                position, work, label(node),
                reads=[seen.moving(lowering.target.fetched_alone(cut)), *reads],
                writes=[y.region(len(strip.out) * window.out[1], window.k, first)],
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
