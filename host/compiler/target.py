"""What the compiler asks of a kind of accelerator: its memories, its commands, their code."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from halfdome.hdl.commands import ElementFormat, RowFormat
from halfdome.host.compiler.commands import Command, Contents, Place, Symbol
from halfdome.host.compiler.division import Cores
from halfdome.host.compiler.segments import Segments
from halfdome.host.driver.kernels import Rows, Window, Work
from halfdome.host.graph.graph import Node
from halfdome.host.runtime.program import Program

NEAR_SHARE = 0.5
"""What of its near memory is for tables; the rest is for weights and buffers."""


class Target(Protocol):
    """A kind of accelerator. Its commands are made here, and encoded once all is placed.

    Attributes
    ----------
    name, design : str, what its programs say they are for
    word : int, operands and rows begin at multiples of so many bytes
    line : int, buffers begin at multiples of so many bytes
    near, far : str, its small fast memory and its large one
    near_bytes, far_bytes : int
    far_banks : range, addresses at which banks of far memory begin; from its end on they come again
    max_dim : int, elements of an embedding row
    waits : int, events that a command can wait for by itself
    load_bytes : int, so many from the host take much longer than that their transfer begins
    cores : int, of a card
    """

    name: str
    design: str
    word: int
    line: int
    near: str
    far: str
    near_bytes: int
    far_bytes: int
    far_banks: range
    max_dim: int
    waits: int
    load_bytes: int
    cores: int

    def row_stride(self, nbytes: int) -> int:
        """Bytes from one row of a tensor to the next."""
        ...

    def diagonal_tile(self, k: int, n: int, groups: int) -> int:
        """Channels of a tile, if a convolution in such groups is one command whose tiles of outputs
        see their own tile of inputs alone; else 0."""
        ...

    def pack_weights(self, weight: np.ndarray, *, diagonal: bool = False) -> np.ndarray:
        """8-bit [n, k] as the bytes that `linear` wants, or [n, rows, columns, k] as `conv2d`; if
        that is `diagonal`, [n, rows, columns, channels of a tile]."""
        ...

    def weight_bytes(self, shape: Sequence[int]) -> int:
        """How many bytes `pack_weights` makes of weights of this shape."""
        ...

    def pack_taps(self, weight: np.ndarray) -> np.ndarray:
        """8-bit [k, rows, columns] as the bytes that `depthwise` wants."""
        ...

    def tap_bytes(self, window: Window) -> int:
        """How many bytes `pack_taps` makes of the weights of a window."""
        ...

    def pack_params(self, multiplier: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """float32[n] and int32[n] as the bytes that `linear` and `pairs` want."""
        ...

    def row_cycles(self, row_format: RowFormat, dim: int, rows: int, stride: int) -> float:
        """What one of a table's rows, `stride` bytes apart, is expected to take."""
        ...

    def far_row_bytes(self, row_bytes: int, rows: int, stride: int) -> float:
        """Bytes that take far memory in their order as long as one of a table's rows does."""
        ...

    def far_stride(self, row_bytes: int, rows: int) -> int:
        """Bytes from one row of a table to the next at which far memory has least to do."""
        ...

    def far_cycles(self, nbytes: float) -> float:
        """What far memory takes for so many bytes in their order, whoever moves them."""
        ...

    def load(self, source: Place, target: Place, nbytes: int | Symbol, most: int) -> Work:
        """Copies bytes of host memory, `most` at the most, into a card."""
        ...

    def load_rows(
        self, source: Place, source_stride: int, target: Place, target_stride: int, rows: int,
        row_bytes: int,
    ) -> Work:  # fmt: skip
        """Copies rows of host memory into a card."""
        ...

    def store_rows(
        self, source: Place, source_stride: int, target: Place, target_stride: int, rows: int,
        row_bytes: int,
    ) -> Work:  # fmt: skip
        """Copies rows of a card to host memory or a peer."""
        ...

    def move(
        self, source: Place, source_stride: int, target: Place, target_stride: int, rows: int,
        row_bytes: int,
    ) -> Work:  # fmt: skip
        """Copies rows of bytes within a card, beside what it computes."""
        ...

    def strip_height(
        self, window: Window, blocks: int, row_bytes: int, slots: int, alone: bool = False
    ) -> int:
        """Rows of y of the strips in which `blocks` convolutions of one image in far memory are
        best done while so many requests are in flight, 0 if it is best read where it lies. Its
        pixels have `row_bytes`. Each channel may be `alone`."""
        ...

    def fetched(self, window: Window) -> tuple[float, float]:
        """Bytes of x and of weights that a convolution moves, some of them several times."""
        ...

    def fetched_alone(self, window: Window) -> float:
        """Bytes of x that a convolution of each channel by itself moves."""
        ...

    def far_taps(self, window: Window, row_bytes: int) -> float:
        """What far memory is expected to take for those, in pixels of `row_bytes`."""
        ...

    def signal(self) -> Work:
        """Tells a peer that all that was stored there before has arrived."""
        ...

    def fence(self, queue: int) -> Work:
        """Does nothing but wait."""
        ...

    def copy(self, source: Rows, target: Place, stride: int, rows: int, columns: int) -> Work:
        """Copies elements within a card."""
        ...

    def gather(
        self, node: Node, row_format: RowFormat, rows: int, dim: int, mean: float, table: Place,
        stride: int, indices: Place, count: Symbol, lengths: Place, bags: int, output: Rows,
        weights: Place | None, wide: bool,
    ) -> Work:  # fmt: skip
        """Pools bags, of `mean` rows on average, whose table has a row every `stride` bytes."""
        ...

    def linear(
        self, node: Node, x: Rows, weights: Place, params: Place | int, y: Rows,
        shape: Sequence[int], w_format: ElementFormat, w_zero_point: int,
    ) -> Work:  # fmt: skip
        """x[m, k] times packed weights [n, k]; `shape` is m, k, n."""
        ...

    def pairs(
        self, x: Rows, segments: int, segment_stride: int, dim: int, params: Place, y: Rows,
        samples: int,
    ) -> Work:  # fmt: skip
        """The products of each two segments of a sample."""
        ...

    def batch_matmul(
        self, operands: Sequence[tuple[Rows, int]], params: Place | int, shape: Sequence[int], *,
        transposed: bool,
    ) -> Work:  # fmt: skip
        """Products of matrices x[m, k] and w[k, n], or, `transposed`, w[n, k]: y[m, n].

        `operands` are x, w and y, each with the bytes from one matrix to the next; `shape` is their
        number, m, k, n.
        """
        ...

    def conv2d(
        self, node: Node, x: Rows, weights: Place, params: Place | int, y: Rows, window: Window,
        w_format: ElementFormat, w_zero_point: int,
    ) -> Work:  # fmt: skip
        """An image with a kernel."""
        ...

    def depthwise(
        self, node: Node, x: Rows, weights: Place | None, params: Place, y: Rows, window: Window,
        w_format: ElementFormat, w_zero_point: int,
    ) -> Work:  # fmt: skip
        """Each channel of an image with a kernel of its own; of ones if there are no weights."""
        ...

    def vector(
        self, node: Node, y: Rows, inputs: Sequence[Rows], rows: int, columns: int, *,
        column: bool = False,
    ) -> Work:  # fmt: skip
        """An operator that works element by element; of a second input with stride 0 the same row
        always, of a `column` its one element for all of a row."""
        ...

    def pair(
        self, node: Node, y: Rows, a: Rows, b: Rows, rows: int, columns: int, *,
        column: bool = False,
    ) -> Work:  # fmt: skip
        """An add_quantised or multiply_quantised of bytes whose constants are within bounds; b as
        the second input of `vector`."""
        ...

    def max_pool(self, x: Rows, y: Rows, window: Window) -> Work:
        """The largest of each channel over the windows of an image."""
        ...

    def average_pool(self, node: Node, x: Rows, y: Rows, window: Window) -> Work:
        """The mean of each channel over the windows of an image."""
        ...

    def quantise(self, y: Rows, a: Rows, rows: int, columns: int, scale: float) -> Work:
        """Elements over a scale, rounded to bytes."""
        ...

    def transpose(
        self, source: Rows, source_step: int, target: Rows, target_step: int, batches: int,
        rows: int, columns: int,
    ) -> Work:  # fmt: skip
        """Matrices with rows and columns exchanged, each so many bytes behind the one before."""
        ...

    def lookup(self, table: Place, y: Rows, a: Rows, rows: int, columns: int) -> Work:
        """Bytes, each by what stands in its place in a table of 256."""
        ...

    def over_cores(
        self, commands: Sequence[Command], cores: Cores, far: Collection[Contents]
    ) -> list[Command]:
        """The commands, those in parts that several cores of a card do at a time; `far` is known to
        find no near memory."""
        ...

    def fetching(self, commands: Sequence[Command]) -> float:
        """What a card is expected to take to be told of the commands of one request."""
        ...

    def in_bands(self, commands: Sequence[Command]) -> list[Command]:
        """The commands, those in several that others should not have to wait for as a whole."""
        ...

    def encode(
        self, commands: Sequence[Command], waits: Sequence[int], segments: Segments
    ) -> Mapping[str, np.ndarray]:
        """The code of a card's commands, in their order; `waits` says for how many events each
        waits by itself."""
        ...

    def check(self, program: Program) -> None:
        """Raises `HazardError` for a program that could compute something else in another run."""
        ...
