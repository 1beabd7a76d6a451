"""One card as its user sees it: arrays in, arrays out, or tensors that stay on the card."""

import warnings
from collections import deque
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfdome.hdl.commands import (
    MATMUL_LIMIT,
    Flag,
    IndexMode,
    Opcode,
    RowFormat,
    mode_flags,
)
from halfdome.hdl.config import CardConfig
from halfdome.host import arguments
from halfdome.host.driver import kernels
from halfdome.host.driver.device import Device
from halfdome.host.driver.halfdome import HalfdomeAccelerator
from halfdome.host.driver.kernels import Rows
from halfdome.host.driver.memory import Allocator, Block
from halfdome.host.driver.session import Session, whole
from halfdome.host.graph.values import DTYPES, format_of
from halfdome.host.runtime.elements import Elements
from halfdome.host.runtime.embedding import (
    OUTPUTS,
    Table,
    bag_starts,
    integers,
    row_elements,
    row_format_of,
)
from halfdome.host.runtime.products import MatrixProducts, zero_point
from halfdome.host.runtime.tensors import Call, Tensor, operand


class Card(MatrixProducts, Elements):
    """One card. Operands that are arrays are copied to it over PCIe, and so are their results.

    Calls may come from any thread and are answered one after the other. A call that raises has
    changed nothing: all operands are looked at before the card is, and what was under way ends.

    Parameters
    ----------
    accelerator : HalfdomeAccelerator
    """

    def __init__(self, accelerator: HalfdomeAccelerator):
        self.accelerator = accelerator
        self._garbage: deque[Block] = deque()

    @property
    def device(self) -> Device:
        """Its driver."""
        return self.accelerator.device

    @property
    def config(self) -> CardConfig:
        """What it was built from."""
        return self.accelerator.config

    @property
    def session(self) -> Session:
        """That of the platform."""
        return self.accelerator.session

    @property
    def index(self) -> int:
        """The card's number."""
        return self.accelerator.index

    @property
    def dram(self) -> Allocator:
        """Who owns which part of its DRAM."""
        return self.accelerator.memories["dram"]

    @property
    def scratchpad(self) -> Allocator:
        """Who owns which part of its scratchpad."""
        return self.accelerator.memories["scratchpad"]

    @whole
    def counters(self) -> dict[str, int]:
        """Cycle and byte counts, see `Device.counters`."""
        return self.device.counters()

    @whole
    def release(self, table: Table | Block) -> None:
        """Gives the memory of a table back; its block stands for it.

        Raises `ValueError` if that was done before, or for what is not of this card.
        """
        block = table.block if isinstance(table, Table) else table
        if not isinstance(block, Block):
            raise ValueError(f"table: is a {type(table).__name__}, must be a Table or its block")
        self.accelerator.release(block)

    @whole
    def tensor(self, array: ArrayLike) -> Tensor:
        """Places an array in card memory, to be an operand of many calls.

        uint8, int8, int32, float16 or float32, of at least one dimension. Raises `ValueError` for
        others, and `MemoryError` if the card is full.
        """
        found = arguments.plain("array", array)
        if found.dtype not in DTYPES.values() or not found.ndim or not found.size:
            known = ", ".join(map(str, DTYPES.values()))
            raise ValueError(
                f"array: is {arguments.described(found)}, must be {known} and not empty"
            )
        call = Call(self.accelerator, self._garbage)
        tensor = call.result(found.shape, found.dtype)
        raw = np.zeros((tensor.rows, tensor.stride), np.uint8)
        rows = np.ascontiguousarray(found).reshape(tensor.rows, -1).view(np.uint8)
        raw[:, : rows.shape[1]] = rows
        self.accelerator.upload(tensor.block, raw.reshape(-1))
        return tensor

    @whole
    def copy(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor of this card, made by the card."""
        if not isinstance(tensor, Tensor):
            raise ValueError(f"tensor: is a {type(tensor).__name__}, must be a Tensor")
        if tensor.accelerator is not self.accelerator:
            raise ValueError(
                f"tensor: is on card {tensor.accelerator.index}, not on card {self.index}"
            )
        call = Call(self.accelerator, self._garbage)
        result = call.result(tensor.shape, tensor.dtype)
        nbytes = tensor.rows * tensor.stride
        call.run(kernels.move(
            Opcode.COPY, tensor.block.address, nbytes, result.block.address, nbytes, 1,
            nbytes,
        ))  # fmt: skip
        call.finish(result, stays=True)
        return result

    @whole
    def transpose(self, x: "ArrayLike | Tensor") -> "np.ndarray | Tensor":
        """The last two axes of `x` [..., rows, columns], of any dtype of tensors, exchanged.

        A tensor if `x` is one. Raises `ValueError` for a side of more than 65535 elements.
        """
        if not isinstance(x, Tensor):
            x = arguments.plain("x", x)
        if len(x.shape) < 2 or 0 in x.shape:
            raise ValueError(f"x: {list(x.shape)}: must have two dimensions at least, none zero")
        matrix = operand("x", x, list(DTYPES.values()), (None,) * len(x.shape), self.accelerator)
        *lead, rows, columns = matrix.shape
        batches = int(np.prod(lead, dtype=np.int64))
        for name, size in (("matrices", batches), ("rows", rows), ("columns", columns)):
            arguments.integer(f"x: {name}", size, 1, MATMUL_LIMIT)
        call = Call(self.accelerator, self._garbage)
        y = call.result((*lead, columns, rows), matrix.dtype)
        source, target = call.rows(matrix), Rows(y.block.address, y.stride)
        for name, stride in (("row", source.stride), ("column", target.stride)):
            arguments.integer(f"x: bytes of a {name}", stride, 1, (1 << 24) - 1)
        call.run(kernels.transpose(
            source, rows * source.stride, target, columns * target.stride, batches, rows, columns
        ))  # fmt: skip
        return call.finish(y, stays=isinstance(matrix, Tensor))

    @whole
    def table(
        self,
        table: ArrayLike,
        *,
        bits: int = 8,
        row_format: RowFormat | str | None = None,
        dim: int | None = None,
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
        dim : elements of a row, for 4-bit rows of an odd number
        preload : place the bytes without simulating the transfer, if they go to DRAM
        near : rather in the scratchpad, if there is room; always if the card has no DRAM

        Raises `ValueError` for an array that is no such table and `MemoryError` if DRAM is full.
        `release` gives the table's `block` back.
        """
        preload, near = arguments.flag("preload", preload), arguments.flag("near", near)
        return self._table(arguments.plain("table", table), bits, row_format, dim, preload, near)

    def _table(
        self, table: np.ndarray, bits: int, row_format: object, dim: int | None, preload: bool,
        near: bool,
    ) -> Table:  # fmt: skip
        card = self.accelerator
        chosen = row_format_of(table, bits, row_format)
        elements = row_elements(table, chosen, dim, self.config.max_dim)
        raw = np.ascontiguousarray(table).view(np.uint8)
        if preload and card.backdoor is None:
            raise ValueError("preload: this platform offers no direct access to card memory")
        near = near or not self.config.dram_bytes  # as on a pico
        block = card.place(raw.size) if near else self.dram.allocate(raw.size)
        preload &= card.in_dram(block)
        if preload and card.backdoor:
            card.backdoor()[block.address : block.address + raw.size] = raw.reshape(-1)
            card.announce(block)
        else:
            card.upload(block, raw.reshape(-1))
        return Table(self.index, block, len(raw), raw.shape[1], elements, chosen, preload)

    def _rows_of(self, tensor: Tensor, bits: int, row_format: object, dim: int | None) -> Table:
        """A tensor as a table."""
        operand("table", tensor, OUTPUTS, (None, None), self.accelerator)
        chosen = row_format_of(tensor, bits, row_format)
        elements = row_elements(tensor, chosen, dim, self.config.max_dim)
        return Table(
            self.index, tensor.block, tensor.shape[0], tensor.stride, elements, chosen, False
        )

    @whole
    def embedding_bag(
        self,
        table: "ArrayLike | Table | Tensor",
        indices: ArrayLike,
        offsets: ArrayLike,
        bits: int = 8,
        per_sample_weights: ArrayLike | None = None,
        *,
        row_format: RowFormat | str | None = None,
        dim: int | None = None,
        mode: str = "sum",
        include_last_offset: bool = False,
        pruned: bool = False,
        bad_indices: IndexMode | str = IndexMode.FATAL,
        dtype: DTypeLike = np.float32,
        multiplier: float = 1.0,
        zero_point: int = 0,
    ) -> "np.ndarray | Tensor":
        """Pools the rows of each bag on the card.

        Parameters
        ----------
        table : uint8[rows, row_bytes] fused rows, float32 or float16 [rows, dim]; an array, a
            tensor, or a `Table` already on the card
        indices : int[n]
        offsets : int[bags], where each bag starts in `indices`
        bits, row_format, dim : of the rows, see `table`; a `Table` knows its own
        per_sample_weights : float32[n] or None for 1
        mode : "sum", or "mean": divided by the number of rows that were added
        include_last_offset : `offsets` has one entry more, the end of the last bag
        pruned : index -1 stands for a row that contributes nothing
        bad_indices : what an index outside the table means: "fatal", "ignore" or "warn", which
            issues a `RuntimeWarning`
        dtype : float32, float16, or uint8 or int8: saturate(round(x * multiplier) + zero_point)

        Returns
        -------
        dtype[bags, dim], bit for bit what PyTorch computes: its quantised embedding bags, or
        `torch.nn.functional.embedding_bag` of float rows with an output of the same dtype. A
        tensor if `table` is one.

        Raises `ValueError` for operands that do not fit together and `CommandError` for an index
        outside the table.
        """
        index = integers("indices", indices)
        last = arguments.flag("include_last_offset", include_last_offset)
        starts = bag_starts(offsets, len(index), last).astype(index.dtype)
        if mode not in ("sum", "mean"):
            raise ValueError(f"mode={mode!r}: must be 'sum' or 'mean'")
        bad = arguments.choice("bad_indices", bad_indices, IndexMode)
        kind = arguments.dtype("dtype", dtype, OUTPUTS)
        output = _pooled(kind, multiplier, zero_point)
        chosen = {
            Flag.MEAN: mode == "mean", Flag.WIDE: index.dtype == np.int64, Flag.OFFSETS: True,
            Flag.PRUNED: arguments.flag("pruned", pruned),
        }  # fmt: skip
        flags = int(sum((flag for flag, on in chosen.items() if on), mode_flags(bad)))
        weights = None
        if per_sample_weights is not None:
            weights = arguments.array(
                "per_sample_weights", per_sample_weights, (np.float32,), (None,)
            )
            if len(weights) != len(index):
                raise ValueError(
                    f"per_sample_weights: {len(weights)} values for {len(index)} indices"
                )
        placed = table
        if isinstance(table, Tensor):
            placed = self._rows_of(table, bits, row_format, dim)
        elif not isinstance(placed, Table):
            placed = self._table(
                arguments.plain("table", table), bits, row_format, dim, False, False
            )
        elif placed.card != self.index:
            raise ValueError(f"table: is on card {placed.card}, not on card {self.index}")
        elif not self.accelerator.owns(placed.block):
            raise ValueError("table: was released")
        call = Call(self.accelerator, self._garbage)
        y = call.result((len(starts), placed.dim), kind)
        call.run(kernels.gather(
            placed.block.address, placed.row_format, placed.row_bytes, placed.rows, placed.dim,
            call.put(index), len(index), call.put(starts), len(starts),
            Rows(y.block.address, y.stride, format_of(kind), output[1]),
            weights=None if weights is None else call.put(weights), flags=flags,
            multiplier=output[0],
        ))  # fmt: skip
        ignored = int(call.wait().detail) if bad is IndexMode.WARN else 0
        result = call.finish(y, stays=isinstance(table, Tensor))
        if not isinstance(table, Table | Tensor):
            self.accelerator.release(placed.block)
        if ignored:
            message = f"{ignored} indices outside the table contributed nothing"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        return result

    def __reduce__(self) -> NoReturn:
        raise TypeError("a card cannot be pickled: it is a simulation under way")


def _pooled(dtype: np.dtype, multiplier: object, point: object) -> tuple[float, int]:
    """Multiplier and zero point of pooled rows, which matter to those of 8 bits alone."""
    if dtype.itemsize > 1:
        return 1.0, zero_point("zero_point", point, dtype)
    scale = np.float32(arguments.number("multiplier", multiplier))
    if not np.isfinite(scale):
        raise ValueError(f"multiplier={multiplier!r}: must be finite as a float32")
    return float(scale), zero_point("zero_point", point, dtype)
