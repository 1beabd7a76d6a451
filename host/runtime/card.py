"""One card as its user sees it: numpy arrays in, numpy arrays out."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from hdl.commands import Flag, Opcode, RowFormat
from host.driver.device import Device
from host.runtime.layout import round_up
from host.runtime.memory import Allocator, Block
from host.runtime.products import MatrixProducts, checked
from host.runtime.timeline import Event, Timeline

STAGING_BYTES = 1 << 20
"""Largest piece of an upload: bounds the host memory it needs."""

_FORMATS = {8: RowFormat.INT8, 4: RowFormat.INT4}
_TAIL_BYTES = {8: 8, 4: 4}
"""Bytes of scale and bias behind a row's elements."""


@dataclass(frozen=True)
class Table:
    """An embedding table in the DRAM of card number `card`.

    `preloaded` says that it was placed there without simulating the transfer.
    """

    card: int
    block: Block
    rows: int
    row_bytes: int
    dim: int
    bits: int
    preloaded: bool


def _integers(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.size == 0:
        values = values.astype(np.int32)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: is {values.dtype} with {values.ndim} dimensions, must be 1-D int"
        )
    if values.size and not -(2**31) <= values.min() <= values.max() < 2**31:
        raise ValueError(f"{name}: a value does not fit int32")
    return values.astype(np.int32)


class Card(MatrixProducts):
    """One card. Operands are copied to it over PCIe, results copied back.

    Parameters
    ----------
    device : Device
    backdoor : function that returns the card's DRAM as a uint8 array, where the platform has one
    """

    def __init__(self, device: Device, backdoor: Callable[[], np.ndarray] | None = None):
        config = device.config
        self.device = device
        self.config = config
        self.timeline = Timeline(device)
        self.dram = Allocator(f"card {device.index} DRAM", 0, config.dram_bytes, 64)
        self.scratchpad = Allocator(
            f"card {device.index} scratchpad",
            config.scratchpad_address(0),
            config.scratchpad_bytes,
            64,
        )
        self._backdoor = backdoor

    @property
    def index(self) -> int:
        """The card's number."""
        return self.device.index

    def counters(self) -> dict[str, int]:
        """Cycle and byte counts, see `Device.counters`."""
        return self.device.counters()

    def place(self, nbytes: int) -> Block:
        """A block in the scratchpad, or in DRAM if it does not fit there."""
        try:
            return self.scratchpad.allocate(nbytes)
        except MemoryError:
            return self.dram.allocate(nbytes)

    def release(self, block: Block) -> None:
        """Gives a block back to the memory it came from."""
        in_dram = block.address < self.config.scratchpad_base
        (self.dram if in_dram else self.scratchpad).release(block)

    def upload(self, block: Block, values: np.ndarray) -> None:
        """Copies uint8[n] into card memory over PCIe and waits."""
        with ExitStack() as stack:
            size = min(len(values), STAGING_BYTES)
            staging = self.device.bus.map(max(1, size))
            stack.callback(staging.release)
            for start in range(0, len(values), STAGING_BYTES):
                piece = values[start : start + STAGING_BYTES]
                staging.array[: len(piece)] = piece
                self._move(Opcode.LOAD, staging.address, block.address + start, len(piece))
                self.timeline.wait(self.timeline.flush())

    def _move(
        self, opcode: Opcode, source: int, destination: int, nbytes: int, *after: Event
    ) -> Event:
        stride = round_up(nbytes, self.config.bus_bytes)
        return self.timeline.issue(
            opcode,
            after=after,
            source=source,
            destination=destination,
            rows=1,
            row_bytes=nbytes,
            source_stride=stride,
            destination_stride=stride,
        )

    def announce(self, block: Block) -> None:
        """Tells the card that DRAM in a block was changed behind its back, for its hot-row cache.

        Writes the first bytes of the block through the window, as they are.
        """
        if self.config.gather_cache_bytes and self._backdoor:
            first = self._backdoor()[block.address : block.address + 4].tobytes()
            self.device.bus.write(self.device.bar2 + block.address, first)

    def table(self, table: np.ndarray, *, bits: int = 8, preload: bool = False) -> Table:
        """Places fused rows in card DRAM, to be used by many `embedding_bag` calls.

        Parameters
        ----------
        table : uint8[rows, row_bytes], rows of `bits`-bit elements, then scale and bias
        bits : 8 (fp32 scale and bias) or 4 (fp16)
        preload : place the bytes without simulating the transfer

        Raises `ValueError` for an array that is no such table and `MemoryError` if DRAM is full.
        `release` gives the table's `block` back.
        """
        if bits not in _FORMATS:
            raise ValueError(f"bits={bits}: must be 8 or 4")
        table = checked("table", table, (np.uint8,), 2)
        rows, row_bytes = table.shape
        dim = (row_bytes - _TAIL_BYTES[bits]) * (8 // bits)
        if rows < 1 or not 1 <= dim <= self.config.max_dim:
            raise ValueError(
                f"table: uint8[{rows}, {row_bytes}] has {rows} rows of {dim} elements, must have "
                f"at least one row and 1 to max_dim={self.config.max_dim} elements"
            )
        if preload and self._backdoor is None:
            raise ValueError("preload: this platform offers no direct access to card memory")
        with ExitStack() as unless_done:
            block = self.dram.allocate(table.size)
            unless_done.callback(self.dram.release, block)
            if preload and self._backdoor:
                self._backdoor()[block.address : block.address + table.size] = table.reshape(-1)
                self.announce(block)
            else:
                self.upload(block, table.reshape(-1))
            unless_done.pop_all()
        return Table(self.index, block, rows, row_bytes, dim, bits, preload)

    def embedding_bag(
        self,
        table: np.ndarray | Table,
        indices: np.ndarray,
        offsets: np.ndarray,
        bits: int = 8,
        per_sample_weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Sums the rows of each bag on the card.

        Parameters
        ----------
        table : uint8[rows, row_bytes] fused rows, or a `Table` already on the card
        indices : int[n]
        offsets : int[bags], where each bag starts in `indices`
        bits : 8 or 4, of the rows' elements; a `Table` knows its own
        per_sample_weights : float32[n] or None for 1

        Returns
        -------
        float32[bags, dim], bit for bit what PyTorch's quantised embedding bag computes.

        Raises `ValueError` for operands that do not fit together and `CommandError` for an index
        outside the table.
        """
        indices = _integers("indices", indices)
        offsets = _integers("offsets", offsets)
        if len(offsets) == 0:
            raise ValueError("offsets: empty, must name the start of at least one bag")
        lengths = np.diff(offsets, append=np.int32(len(indices))).astype(np.int32)
        if offsets[0] != 0 or (lengths < 0).any():
            raise ValueError(
                f"offsets: must start at 0, not decrease and stay within {len(indices)} indices"
            )
        weighted = per_sample_weights is not None
        operands = [indices.view(np.uint8), lengths.view(np.uint8)]
        if weighted:
            weights = checked("per_sample_weights", per_sample_weights, (np.float32,), 1)
            if len(weights) != len(indices):
                raise ValueError(
                    f"per_sample_weights: {len(weights)} values for {len(indices)} indices"
                )
            operands.append(weights.view(np.uint8))
        with ExitStack() as stack:
            if not isinstance(table, Table):
                table = self.table(table, bits=bits)
                stack.callback(self.dram.release, table.block)
            elif table.card != self.index:
                raise ValueError(f"table: is on card {table.card}, not on card {self.index}")
            bags, dim = len(lengths), table.dim
            stride = round_up(4 * dim, self.config.bus_bytes)
            blocks = self.blocks(stack, *(operand.size for operand in operands), bags * stride)
            for block, operand in zip(blocks, operands, strict=False):
                self.upload(block, operand)
            output = blocks[-1]
            pooled = self.timeline.issue(
                Opcode.GATHER,
                flags=Flag.WEIGHTED if weighted else 0,
                table=table.block.address,
                indices=blocks[0].address,
                lengths=blocks[1].address,
                weights=blocks[2].address if weighted else 0,
                output=output.address,
                rows=table.rows,
                index_count=len(indices),
                bags=bags,
                row_stride=table.row_bytes,
                dim=dim,
                output_stride=stride,
                format=_FORMATS[table.bits],
            )
            result = self.download(output, bags * stride, pooled)
        return result.view(np.float32).reshape(bags, -1)[:, :dim].copy()

    def blocks(self, stack: ExitStack, *sizes: int) -> list[Block]:
        """A block for each size, placed as `place` does, until `stack` closes."""
        blocks = []
        for size in sizes:
            blocks.append(self.place(size))
            stack.callback(self.release, blocks[-1])
        return blocks

    def download(self, block: Block, nbytes: int, *after: Event) -> np.ndarray:
        """Brings a block's first bytes home after some events, as uint8[nbytes], and waits for
        everything issued, raising what failed first."""
        landing = self.device.bus.map(nbytes)
        try:
            self._move(Opcode.STORE, block.address, landing.address, nbytes, *after)
            self.timeline.wait(self.timeline.flush())
            return landing.array[:nbytes].copy()
        finally:
            landing.release()
