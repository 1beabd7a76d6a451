"""One card as its user sees it: numpy arrays in, numpy arrays out."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from hdl.commands import MATMUL_LIMIT, Flag, Opcode, RowFormat
from host.driver.device import Device
from host.runtime.layout import pack_params, pack_weights, pad_rows, round_up
from host.runtime.memory import Allocator, Block
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


def _checked(name: str, array: np.ndarray, dtype: type, ndim: int) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != dtype or array.ndim != ndim:
        raise ValueError(
            f"{name}: is {array.dtype}[{', '.join(map(str, array.shape))}], "
            f"must be {np.dtype(dtype)} with {ndim} dimension{'s' * (ndim != 1)}"
        )
    return np.ascontiguousarray(array)


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


class Card:
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
        table = _checked("table", table, np.uint8, 2)
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
            weights = _checked("per_sample_weights", per_sample_weights, np.float32, 1)
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
            blocks = self._blocks(stack, *(operand.size for operand in operands), bags * stride)
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
            result = self._download(stack, output, bags * stride, pooled)
        return result.view(np.float32).reshape(bags, -1)[:, :dim].copy()

    def linear(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        multiplier: np.ndarray | float,
        bias: np.ndarray | None = None,
        x_zero_point: int = 0,
        y_zero_point: int = 0,
        relu: bool = False,
    ) -> np.ndarray:
        """Multiplies int8 matrices on the card and requantises.

        Parameters
        ----------
        x : uint8[m, k]
        weight : int8[n, k]
        multiplier : float32[n] or scalar, x_scale * w_scale / y_scale
        bias : int32[n] or None for 0, in units of x_scale * w_scale
        relu : clamp at the output zero point

        Returns
        -------
        uint8[m, n], bit for bit what ONNX Runtime's QLinearMatMul computes.

        Raises `ValueError` for operands that do not fit together and `MemoryError` for operands
        that do not fit the card.
        """
        x = _checked("x", x, np.uint8, 2)
        weight = _checked("weight", weight, np.int8, 2)
        (m, k), n = x.shape, len(weight)
        if weight.shape[1] != k:
            raise ValueError(
                f"weight: int8[{n}, {weight.shape[1]}] does not fit x: uint8[{m}, {k}]"
            )
        if 0 in (m, k, n):
            raise ValueError(
                f"x: uint8[{m}, {k}], weight: int8[{n}, {k}]: no dimension may be zero"
            )
        for name, size in (("m", m), ("k", k), ("n", n)):
            if size > MATMUL_LIMIT:
                raise ValueError(f"{name}={size}: must be at most {MATMUL_LIMIT}")
        for name, value in (("x_zero_point", x_zero_point), ("y_zero_point", y_zero_point)):
            if not (isinstance(value, int | np.integer) and 0 <= value <= 255):
                raise ValueError(f"{name}={value}: must be an integer from 0 to 255")
        multiplier = np.asarray(multiplier, np.float32)
        if multiplier.shape not in ((), (n,)):
            raise ValueError(
                f"multiplier: is {multiplier.dtype}[{', '.join(map(str, multiplier.shape))}], "
                f"must be one number or one for each of {n} output channels"
            )
        multiplier = np.broadcast_to(multiplier, (n,))
        bias = np.zeros(n, np.int32) if bias is None else _checked("bias", bias, np.int32, 1)
        if len(bias) != n:
            raise ValueError(f"bias: {len(bias)} values for {n} output channels")
        x_stride = round_up(k, self.config.bus_bytes)
        y_stride = round_up(n, self.config.bus_bytes)
        operands = [
            pad_rows(x, x_stride),
            pack_weights(weight, self.config),
            pack_params(weight, multiplier, bias, x_zero_point),
        ]
        with ExitStack() as stack:
            blocks = self._blocks(stack, *(operand.size for operand in operands), m * y_stride)
            for block, operand in zip(blocks, operands, strict=False):
                self.upload(block, operand)
            product = self.timeline.issue(
                Opcode.MATMUL,
                flags=Flag.RELU if relu else 0,
                x=blocks[0].address,
                w=blocks[1].address,
                params=blocks[2].address,
                y=blocks[3].address,
                m=m,
                k=k,
                n=n,
                x_stride=x_stride,
                y_stride=y_stride,
                y_zero_point=y_zero_point,
            )
            result = self._download(stack, blocks[3], m * y_stride, product)
        return result.reshape(m, -1)[:, :n].copy()

    def _blocks(self, stack: ExitStack, *sizes: int) -> list[Block]:
        blocks = []
        for size in sizes:
            blocks.append(self.place(size))
            stack.callback(self.release, blocks[-1])
        return blocks

    def _download(self, stack: ExitStack, block: Block, nbytes: int, after: Event) -> np.ndarray:
        """Brings a result home and waits for everything issued, raising what failed first."""
        landing = self.device.bus.map(nbytes)
        stack.callback(landing.release)
        self._move(Opcode.STORE, block.address, landing.address, nbytes, after)
        self.timeline.wait(self.timeline.flush())
        return landing.array[:nbytes].copy()
