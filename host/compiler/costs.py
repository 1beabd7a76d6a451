"""What commands are expected to take, in card cycles: closed forms of the engines' dataflow.

Good enough to decide who does what and in which order; `halfdome.sim` tells what it really takes.
"""

from collections.abc import Sequence
from functools import cache
from math import gcd

import numpy as np

from halfdome.hdl.commands import TABLE_BYTES, ElementFormat, RowFormat
from halfdome.hdl.config import DRAM_ROW_BYTES, LINE_BYTES, CardConfig
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES
from halfdome.host.driver.kernels import Window
from halfdome.host.driver.layout import PARAM, round_up

START_CYCLES = 64
"""From a command's turn to its completion, beyond what its work takes; part of all below."""
LINK_LATENCY_CYCLES = 300
"""From a PCIe request to the first byte of its answer, through the switch."""
PEER_LATENCY_CYCLES = 160
"""From a SIGNAL to what waits for it on another card."""
LEAST_PASS_CYCLES = 3
"""Least that rows take to pass a weight tile."""
ONE_BAG_CYCLES = 4
"""Least that a bag takes a gather unit."""
TABLE_CYCLES = TABLE_BYTES // 4
"""What a LOOKUP takes to keep its table."""
RANDOM_SHARE = 0.49
"""What lines of 64 bytes, read at random, get of the bandwidth of DRAM: `sim.dram.replay`."""
ROWS_SHARE = 0.95
"""The most of it that they get if they find their DRAM row open as a rule."""
QUEUED_READS = 48
"""Reads among which a channel of DRAM chooses: those of the row that is open come first."""
STREAMS_SHARE = 0.9
"""What several cores that read rows and weights at once get of it."""
TAPS_SHARE = 0.85
"""What the taps of windows get of it, which come back to the same rows: 0.845 to 0.894 on `timing`,
where they take longer than the lanes."""

_GIGATRANSFERS = {1: 2.5 * 8 / 10, 2: 5 * 8 / 10, 3: 8 * 128 / 130, 4: 16 * 128 / 130,
                  5: 32 * 128 / 130}  # fmt: skip
"""Usable Gbit/s of a lane by PCIe generation."""
_TLP_BYTES = 24
"""What a TLP adds to its payload on the wire."""


def link_bytes_per_cycle(config: CardConfig) -> float:
    """Payload that a card's link carries each way."""
    raw = _GIGATRANSFERS[config.pcie_generation] * config.pcie_lanes / 8 * 1e3 / config.clock_mhz
    return raw * config.max_payload_bytes / (config.max_payload_bytes + _TLP_BYTES)


def read_bytes_per_cycle(config: CardConfig) -> float:
    """What a card's reads bring it over the link: as many are in flight as there are tags, but for
    the one of descriptors."""
    in_flight = (config.dma_tags - 1) * config.max_read_request_bytes
    return min(link_bytes_per_cycle(config), in_flight / LINK_LATENCY_CYCLES)


def dram_bytes_per_cycle(config: CardConfig) -> float:
    """What the card's DRAM moves in a card cycle at its peak: 4 bytes a transfer and channel."""
    megatransfers = int(config.dram_preset.rpartition("-")[2])
    return 4 * megatransfers * config.dram_channels / config.clock_mhz


def streamed_bytes_per_cycle(config: CardConfig) -> float:
    """What it moves of bytes in their order for all cores together."""
    return STREAMS_SHARE * dram_bytes_per_cycle(config)


def tiles(config: CardConfig, k: int, n: int) -> int:
    """Weight tiles of a product."""
    return -(-k // config.array_rows) * -(-n // config.array_columns)


def tap_tiles(config: CardConfig, window: Window) -> int:
    """Weight tiles of a tap of a convolution."""
    k = config.array_rows if window.diagonal else window.k
    return tiles(config, k, window.n)


def product(config: CardConfig, m: int, k: int, n: int) -> int:
    """Its passes through the array, each as long as it has rows or as its tile takes to load."""
    load = max(config.tile_load_cycles, LEAST_PASS_CYCLES)
    whole, rest = divmod(m, config.activation_rows)
    rows = whole * max(config.activation_rows, load) + (max(rest, load) if rest else 0)
    return START_CYCLES + tiles(config, k, n) * rows


def convolution(config: CardConfig, window: Window) -> int:
    """The passes of every tap."""
    height, width = window.out
    rows, taps = height * width, window.kernel[0] * window.kernel[1]
    passes = taps * tap_tiles(config, window)
    return START_CYCLES + passes * (product(config, rows, 1, 1) - START_CYCLES)


def fetched(config: CardConfig, window: Window) -> tuple[int, int]:
    """Bytes of x and of packed weights that a convolution fetches.

    x comes once for each tap and group of output tiles that sees it, or once if a pixel is one line
    and the kernel one tap; weights come once for each block of rows.
    """
    rows, taps = window.out[0] * window.out[1], window.kernel[0] * window.kernel[1]
    groups = -(-window.n // (config.group_tiles * config.array_columns))
    if window.diagonal or (taps == 1 and window.k <= config.line_bytes):
        groups = 1
    x = rows * taps * groups * round_up(window.k, config.bus_bytes)
    blocks = -(-rows // config.activation_rows)
    return x, blocks * taps * tap_tiles(config, window) * config.weight_tile_bytes


def fetched_alone(config: CardConfig, window: Window) -> int:
    """Bytes of x that a DEPTHWISE fetches: once for each window that sees them."""
    return taps_inside(window) * round_up(window.k, config.bus_bytes)


def batch_product(config: CardConfig, batches: int, m: int, k: int, n: int) -> int:
    """BATCH_MATMUL with a transposed second operand, whose columns are collected first."""
    rows = max(m, n + config.tile_load_cycles)
    return START_CYCLES + batches * tiles(config, k, n) * rows


def vector(config: CardConfig, rows: int, columns: int, nbytes: int = 0) -> float:
    """A vector command: `vector_lanes` elements a cycle, or as fast as DRAM moves their bytes."""
    elements = rows * -(-columns // config.vector_lanes)
    return START_CYCLES + max(elements, nbytes / dram_bytes_per_cycle(config))


def copy(config: CardConfig, nbytes: int) -> float:
    """A COPY of what lies in DRAM: a word a cycle, if that has it."""
    return START_CYCLES + nbytes / min(config.bus_bytes, dram_bytes_per_cycle(config))


def pair(config: CardConfig, rows: int, columns: int) -> int:
    """An ADD_QUANTISED or MULTIPLY_QUANTISED: `byte_lanes` elements of a row a cycle."""
    return START_CYCLES + rows * -(-columns // config.byte_lanes)


def transposition(
    config: CardConfig, batches: int, rows: int, columns: int, nbytes: int = 1
) -> float:
    """A TRANSPOSE: the words of each block in or out, whichever are more; or what DRAM has."""
    side = config.line_bytes // nbytes
    per_word = config.bus_bytes // nbytes
    turned = 0
    for height, down in _parts(rows, side):
        for width, across in _parts(columns, side):
            longer = max(height * -(-width // per_word), width * -(-height // per_word) + 1)
            turned += down * across * longer
    slower = max(1.0, config.bus_bytes / dram_bytes_per_cycle(config))
    return START_CYCLES + batches * turned * slower


def _parts(count: int, side: int) -> list[tuple[int, int]]:
    """Sizes into which so many are cut, and how often each comes."""
    whole, rest = divmod(count, side)
    return [(size, times) for size, times in ((side, whole), (rest, 1)) if size and times]


def lookup(config: CardConfig, rows: int, columns: int) -> int:
    """A LOOKUP: its table, then likewise."""
    return TABLE_CYCLES + pair(config, rows, columns)


@cache  # many images see one window
def _taps(window: Window, axis: int) -> np.ndarray:
    """Taps along an axis inside of the image, of each window."""
    first = np.arange(window.out[axis]) * window.stride[axis] - window.pad[axis]
    read = first[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
    return ((read >= 0) & (read < window.image[axis])).sum(axis=1)


def taps_inside(window: Window) -> int:
    """How often windows read a pixel: taps outside of the image are not read."""
    return int(_taps(window, 0).sum() * _taps(window, 1).sum())


def maxima(config: CardConfig, window: Window) -> int:
    """A POOL: `byte_lanes` bytes of a tap a cycle."""
    return START_CYCLES + taps_inside(window) * -(-window.k // config.byte_lanes)


def sums(config: CardConfig, window: Window, *, weighted: bool) -> int:
    """A DEPTHWISE: `byte_lanes` bytes of a tap a cycle, but for a word that it writes at the least
    what its parameters take, on average over a row of windows; before that the weights and
    parameters of the first line of channels."""
    line = min(-(-window.k // config.bus_bytes), config.burst_words)
    loads = line * (PARAM.itemsize + weighted * window.kernel[0] * window.kernel[1])
    return START_CYCLES + loads + _summed(config, window, -(-window.k // config.byte_lanes))


def averages(config: CardConfig, window: Window) -> int:
    """An AVERAGE likewise; of a tap's line of `byte_lanes` bytes or fewer a cycle more."""
    groups, most = -(-window.k // config.byte_lanes), config.line_bytes // config.byte_lanes
    alone = groups if most == 1 else int(groups % most == 1)
    return START_CYCLES + _summed(config, window, groups + alone)


def _summed(config: CardConfig, window: Window, of_tap: int) -> int:
    """Sums of taps that take so many cycles each, and what is made of them."""
    groups = -(-window.k // config.byte_lanes)
    written = max(1, PARAM.itemsize // config.byte_word_cycles) * groups * window.out[1]
    added = _taps(window, 0) * _taps(window, 1).sum() * of_tap
    return int(np.maximum(added, written).sum())


def far_taps(config: CardConfig, window: Window, row_bytes: int) -> float:
    """What DRAM takes for the taps of a DEPTHWISE: whole memory lines, whatever is used of them."""
    stride = round_up(row_bytes, config.bus_bytes)
    whole, rest = divmod(round_up(window.k, config.bus_bytes), config.line_bytes)
    pieces = [config.line_bytes] * whole + [rest] * (rest > 0)
    lines = sum(1 + (piece - gcd(stride, piece, LINE_BYTES)) / LINE_BYTES for piece in pieces)
    nbytes = taps_inside(window) * lines * LINE_BYTES
    return nbytes / (TAPS_SHARE * dram_bytes_per_cycle(config))


def fetch(config: CardConfig, commands: Sequence[int]) -> float:
    """What it takes to fetch so many commands of each core: one read after the other, each of as
    many as it holds."""
    batch = config.max_read_request_bytes // DESCRIPTOR_BYTES
    return LINK_LATENCY_CYCLES * sum(-(-count // batch) for count in commands)


def load(config: CardConfig, nbytes: int) -> float:
    """A LOAD over the card's link."""
    return START_CYCLES + LINK_LATENCY_CYCLES + nbytes / read_bytes_per_cycle(config)


def long_load(config: CardConfig) -> int:
    """Bytes of a LOAD whose start is 5 % of it."""
    return int(20 * (START_CYCLES + LINK_LATENCY_CYCLES) * read_bytes_per_cycle(config))


def store(config: CardConfig, nbytes: int) -> float:
    """A STORE over the card's link."""
    return START_CYCLES + LINK_LATENCY_CYCLES + nbytes / link_bytes_per_cycle(config)


def row_cycles(
    config: CardConfig, row_format: RowFormat, dim: int, rows: int, stride: int, *, near: bool
) -> float:
    """What one of a table's rows, `stride` bytes apart, takes a gather unit: its lanes, or the
    memory that it lies in."""
    row_bytes = row_format.row_bytes(dim)
    if near:
        memory = _units_touched(row_bytes, stride, config.bus_bytes)
    else:
        memory = far_row(config, row_bytes, rows, stride)
    return max(-(-dim // config.lanes), memory)


def far_row(config: CardConfig, row_bytes: int, rows: int, stride: int) -> float:
    """What one of a table's rows, `stride` bytes apart, takes DRAM that all cores together keep
    busy with them.

    A line waits for its DRAM row to be opened. Of the reads that are queued the fewer want the same
    row, the more DRAM rows the table has in each channel.
    """
    lines = _units_touched(row_bytes, stride, LINE_BYTES)
    dram_rows = rows * stride / (DRAM_ROW_BYTES * config.dram_channels)
    share = min(RANDOM_SHARE * (1 + QUEUED_READS / dram_rows), ROWS_SHARE)
    return lines * LINE_BYTES / (share * dram_bytes_per_cycle(config))


def far_stride(config: CardConfig, row_bytes: int, rows: int) -> int:
    """The distance of a table's rows at which they take DRAM least, in bytes; the shortest of those
    that take as long. Rows that begin at multiples of more bytes touch fewer lines, and lie in more
    DRAM rows."""
    strides = [round_up(row_bytes, 1 << bits) for bits in range(LINE_BYTES.bit_length())]
    return min(strides, key=lambda stride: (far_row(config, row_bytes, rows, stride), stride))


def _units_touched(row_bytes: int, stride: int, unit_bytes: int) -> float:
    """Words or lines that a row touches on average.

    Rows begin at every multiple of the greatest common divisor, each as often.
    """
    step = gcd(stride, unit_bytes)
    return 1 + (round_up(row_bytes, step) - step) / unit_bytes


def pooling(
    config: CardConfig, dim: int, bags: float, rows_cycles: float, output: ElementFormat
) -> float:
    """A GATHER of so many bags, whose rows together take `rows_cycles`."""
    leaving = max(ONE_BAG_CYCLES, -(-dim * output.nbytes // config.bus_bytes) + 1)
    return START_CYCLES + max(rows_cycles, bags * leaving)
