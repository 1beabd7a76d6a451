"""Products whose x lies in far memory: whether it pays to copy strips of it nearer.

A convolution fetches its image once for each tap and group of outputs, from wherever that lies. A
strip is some rows of y with the rows of x that they are made of, which its neighbours see in part,
too. It is copied once while the array works on the strip before.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import lcm

from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import costs
from halfdome.host.driver.kernels import Window
from halfdome.host.driver.layout import round_up

NEAR = 1 / 2
"""What of near memory strips take, two for each request in flight; twice that if one row of y needs
it."""
SLOWER = 1.02
"""How much longer a product may take of which far memory moves fewer bytes."""
SPARED = 0.5
"""What of the bytes of x that far memory moves must be spared by strips, unless they are faster."""
CUTS = 6
"""Numbers of strips that are looked at, from the least on."""


@dataclass(frozen=True)
class Strip:
    """Rows `out` of y, and the rows of x that they are made of; `pad` more above are zero."""

    out: range
    image: range
    pad: int

    def window(self, whole: Window) -> Window:
        """What it is a convolution of."""
        return replace(
            whole, image=(len(self.image), whole.image[1]), out=(len(self.out), whole.out[1]),
            pad=(self.pad, whole.pad[1]),
        )  # fmt: skip


def strips(window: Window, height: int, alone: bool = False) -> list[Strip]:
    """The strips of `height` rows of y, the last of what is left.

    The image in one if a strip would see nothing of it or, of channels `alone`, a row of it might.
    """
    found = []
    for first in range(0, window.out[0], height):
        strip = strip_of(window, range(first, min(first + height, window.out[0])), alone)
        if strip is None:
            return [Strip(range(window.out[0]), range(window.image[0]), window.pad[0])]
        found.append(strip)
    return found


def strip_of(window: Window, out: range, alone: bool = False) -> Strip | None:
    """The strip for some rows of y. None if it would see nothing of the image or, of channels
    `alone`, a row of it might."""
    start = out.start * window.stride[0] - window.pad[0]
    reach = (len(out) - 1) * window.stride[0] + window.dilation[0] * (window.kernel[0] - 1) + 1
    image = range(max(0, start), min(window.image[0], start + reach))
    pad = max(0, -start)
    if not image or (alone and pad and window.dilation[0] > len(image)):
        return None
    return Strip(out, image, pad)


@lru_cache(1 << 10)
def best_height(
    config: CardConfig, window: Window, blocks: int, row_bytes: int, slots: int, alone: bool = False
) -> int:
    """Rows of y of each strip, 0 if x is best read where it lies.

    A pixel of x has `row_bytes`; each of `blocks` commands reads `window.k` of them, or one each
    channel `alone`. What takes longest of the engine, far memory and the copies decides; of what
    takes about as long, the fewest bytes of far memory.
    """
    rows_bytes = window.image[1] * round_up(row_bytes, config.bus_bytes)
    most = int(config.scratchpad_bytes * NEAR) // (2 * slots) // rows_bytes
    fetched = blocks * costs.fetched(config, window)[0]
    if alone:
        fetched = costs.fetched_alone(config, window)
    cycles, moved = _cost(config, [window], blocks, fetched, alone)
    if alone:
        cycles = max(cycles, costs.far_taps(config, window, row_bytes))
    found = [(cycles, moved, 0)]
    for height in _heights(config, window, most) or _heights(config, window, 2 * most):
        cut = strips(window, height, alone)
        copied = [len(strip.image) * rows_bytes for strip in cut]
        copies = [costs.copy(config, nbytes) for nbytes in copied]
        work, nbytes = _cost(config, [s.window(window) for s in cut], blocks, sum(copied), alone)
        found.append((copies[0] + max(work, sum(copies)), nbytes, height))
    fastest = min(took for took, _, _ in found)
    fitting = [each for each in found if each[0] <= SLOWER * fastest]
    _, least, height = min(fitting, key=lambda each: each[1:])
    spared = moved - least >= SPARED * fetched
    return height if spared or found[0] not in fitting else 0


def _heights(config: CardConfig, window: Window, most: int) -> set[int]:
    """Heights of strips of at most so many rows of x, the largest ones: such as cut y evenly, and
    one of whole blocks of rows of the array."""
    reach = window.dilation[0] * (window.kernel[0] - 1) + 1
    highest = min((most - reach) // window.stride[0] + 1, window.out[0])
    if highest < 1:
        return set()
    fewest = -(-window.out[0] // highest)
    block = lcm(window.out[1], config.activation_rows) // window.out[1]
    found = {-(-window.out[0] // count) for count in range(fewest, fewest + CUTS)}
    return found | ({highest // block * block} - {0})


def _cost(
    config: CardConfig, windows: list[Window], blocks: int, x: int, alone: bool
) -> tuple[float, int]:
    """What so many convolutions take, and the bytes of x, weights and y that far memory moves, `x`
    being those of x."""
    work, moved = 0, x
    for window in windows:
        y = window.out[0] * window.out[1] * window.n
        if alone:
            work += costs.sums(config, window, weighted=True)
            moved += window.kernel[0] * window.kernel[1] * window.k + y
        else:
            work += blocks * costs.convolution(config, window)
            moved += blocks * (costs.fetched(config, window)[1] + y)
    return max(work, moved / costs.dram_bytes_per_cycle(config)), moved
