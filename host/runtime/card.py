"""One card as its user sees it: numpy arrays in, numpy arrays out."""

import warnings
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from numpy.typing import DTypeLike

from halfdome.hdl.commands import Flag, IndexMode, Opcode, RowFormat, mode_flags
from halfdome.host.driver.device import Device
from halfdome.host.driver.errors import DataLost
from halfdome.host.runtime.embedding import (
    Table,
    bag_starts,
    integers,
    output_format,
    row_format_of,
    table_bytes,
)
from halfdome.host.runtime.layout import round_up
from halfdome.host.runtime.memory import Allocator, Block
from halfdome.host.runtime.products import MatrixProducts, checked
from halfdome.host.runtime.timeline import Event, Timeline

STAGING_BYTES = 1 << 20
"""Largest piece of an upload: bounds the host memory it needs."""


_DOWNLOADS = 4
"""How often a result is stored in host memory at most."""


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
                self.move(Opcode.LOAD, staging.address, block.address + start, len(piece))
                self.timeline.wait(self.timeline.flush())

    def move(
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

    def table(
        self,
        table: np.ndarray,
        *,
        bits: int = 8,
        row_format: RowFormat | None = None,
        preload: bool = False,
        near: bool = False,
    ) -> Table:
        """Places a table in card DRAM, to be used by many `embedding_bag` calls.

        Parameters
        ----------
        table : uint8[rows, row_bytes], rows of elements, then scale and bias; or float32 or
            float16 [rows, dim]
        bits : 8 (fp32 scale and bias) or 4 (fp16), of a uint8 table
        row_format : names the format instead, for one that array and bits do not tell
        preload : place the bytes without simulating the transfer, if they go to DRAM
        near : rather in the scratchpad, if there is room

        Raises `ValueError` for an array that is no such table and `MemoryError` if DRAM is full.
        `release` gives the table's `block` back.
        """
        table = np.asarray(table)
        row_format = row_format_of(table, bits, row_format)
        raw, dim = table_bytes(table, row_format, self.config.max_dim)
        if preload and self._backdoor is None:
            raise ValueError("preload: this platform offers no direct access to card memory")
        with ExitStack() as unless_done:
            block = self.place(raw.size) if near else self.dram.allocate(raw.size)
            unless_done.callback(self.release, block)
            preload &= block.address < self.config.scratchpad_base
            if preload and self._backdoor:
                self._backdoor()[block.address : block.address + raw.size] = raw.reshape(-1)
                self.announce(block)
            else:
                self.upload(block, raw.reshape(-1))
            unless_done.pop_all()
        return Table(self.index, block, len(raw), raw.shape[1], dim, row_format, preload)

    def embedding_bag(
        self,
        table: np.ndarray | Table,
        indices: np.ndarray,
        offsets: np.ndarray,
        bits: int = 8,
        per_sample_weights: np.ndarray | None = None,
        *,
        row_format: RowFormat | None = None,
        mode: str = "sum",
        include_last_offset: bool = False,
        pruned: bool = False,
        bad_indices: IndexMode = IndexMode.FATAL,
        dtype: DTypeLike = np.float32,
        multiplier: float = 1.0,
        zero_point: int = 0,
    ) -> np.ndarray:
        """Pools the rows of each bag on the card.

        Parameters
        ----------
        table : uint8[rows, row_bytes] fused rows, float32 or float16 [rows, dim], or a `Table`
            already on the card
        indices : int[n]
        offsets : int[bags], where each bag starts in `indices`
        bits, row_format : of the rows, see `table`; a `Table` knows its own
        per_sample_weights : float32[n] or None for 1
        mode : "sum", or "mean": divided by the number of rows that were added
        include_last_offset : `offsets` has one entry more, the end of the last bag
        pruned : index -1 stands for a row that contributes nothing
        bad_indices : what an index outside the table means; `WARN` issues a `RuntimeWarning`
        dtype : float32, float16, or uint8 or int8: saturate(round(x * multiplier) + zero_point)

        Returns
        -------
        dtype[bags, dim], bit for bit what PyTorch computes: its quantised embedding bags, or
        `torch.nn.functional.embedding_bag` of float rows with an output of the same dtype.

        Raises `ValueError` for operands that do not fit together and `CommandError` for an index
        outside the table.
        """
        indices = integers("indices", indices)
        starts = bag_starts(offsets, len(indices), include_last_offset).astype(indices.dtype)
        if mode not in ("sum", "mean"):
            raise ValueError(f"mode={mode!r}: must be 'sum' or 'mean'")
        output_type = output_format(dtype, multiplier, zero_point)
        chosen = {
            Flag.WEIGHTED: per_sample_weights is not None,
            Flag.MEAN: mode == "mean",
            Flag.WIDE: indices.dtype == np.int64,
            Flag.OFFSETS: True,
            Flag.PRUNED: pruned,
        }
        flags = sum((flag for flag, on in chosen.items() if on), mode_flags(bad_indices))
        operands = [indices.view(np.uint8), starts.view(np.uint8)]
        if per_sample_weights is not None:
            weights = checked("per_sample_weights", per_sample_weights, (np.float32,), 1)
            if len(weights) != len(indices):
                raise ValueError(
                    f"per_sample_weights: {len(weights)} values for {len(indices)} indices"
                )
            operands.append(weights.view(np.uint8))
        with ExitStack() as stack:
            if not isinstance(table, Table):
                table = self.table(table, bits=bits, row_format=row_format)
                stack.callback(self.dram.release, table.block)
            elif table.card != self.index:
                raise ValueError(f"table: is on card {table.card}, not on card {self.index}")
            bags, stride = len(starts), table.dim * output_type.nbytes
            blocks = self.blocks(stack, *(operand.size for operand in operands), bags * stride)
            for block, operand in zip(blocks, operands, strict=False):
                self.upload(block, operand)
            output = blocks[-1]
            pooled = self.timeline.issue(
                Opcode.GATHER,
                flags=flags,
                table=table.block.address,
                indices=blocks[0].address,
                lengths=blocks[1].address,
                weights=blocks[2].address if flags & Flag.WEIGHTED else 0,
                output=output.address,
                rows=table.rows,
                index_count=len(indices),
                bags=bags,
                row_stride=table.row_bytes,
                dim=table.dim,
                output_stride=stride,
                format=table.row_format,
                output_format=output_type,
                multiplier=int(np.float32(multiplier).view(np.uint32)),
                zero_point=zero_point & 0xFF,
            )
            skipped = 0
            if bad_indices == IndexMode.WARN:
                skipped = self.timeline.wait(self.timeline.flush())[-1].detail
            result = self.download(output, bags * stride, pooled)
        if skipped:
            message = f"{skipped} indices outside the table contributed nothing"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return result.view(dtype).reshape(bags, table.dim)

    def blocks(self, stack: ExitStack, *sizes: int) -> list[Block]:
        """A block for each size, placed as `place` does, until `stack` closes."""
        blocks = []
        for size in sizes:
            blocks.append(self.place(size))
            stack.callback(self.release, blocks[-1])
        return blocks

    def download(self, block: Block, nbytes: int, *after: Event) -> np.ndarray:
        """Brings a block's first bytes home after some events, as uint8[nbytes], and waits for
        everything issued, raising what failed first.

        Once more if there was an alarm: a write may have been refused. Raises `DataLost` if there
        is one each time.
        """
        landing = self.device.bus.map(nbytes)
        try:
            for _ in range(_DOWNLOADS):
                alarms = self.device.alarms
                self.move(Opcode.STORE, block.address, landing.address, nbytes, *after)
                self.timeline.wait(self.timeline.flush())
                if self.device.alarms == alarms:
                    return landing.array[:nbytes].copy()
        finally:
            landing.release()
        raise DataLost(f"card {self.index}: its writes are refused, the result did not arrive")
