"""Arrays that stay in the memory of a card between calls, and what a call does with operands."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn
from weakref import finalize

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfdome.host import arguments
from halfdome.host.driver.halfdome import HalfdomeAccelerator
from halfdome.host.driver.kernels import Rows, Work
from halfdome.host.driver.layout import pad_rows, round_up
from halfdome.host.driver.memory import Block
from halfdome.host.driver.session import Session, whole
from halfdome.host.driver.timeline import Event
from halfdome.host.graph.values import format_of
from halfdome.host.runtime.left_out import LeftOut


class Tensor:
    """An array in card memory: a result, or what `Card.tensor` has placed there.

    Its memory is given back by `release`, at the end of a `with`, or when nobody holds it any more.

    Attributes
    ----------
    shape : tuple of int
    dtype : np.dtype, uint8, int8, int32, float16 or float32
    """

    def __init__(
        self, accelerator: HalfdomeAccelerator, garbage: deque[Block], block: Block,
        shape: tuple[int, ...], dtype: np.dtype,
    ):  # fmt: skip
        self.shape = shape
        self.dtype = dtype
        self.accelerator = accelerator
        self._block: Block | None = block
        self._lost = finalize(self, garbage.append, block)

    @property
    def session(self) -> Session:
        """That of its card."""
        return self.accelerator.session

    @property
    def block(self) -> Block:
        """Where it lies. Raises `ValueError` if it was released."""
        if self._block is None:
            raise ValueError(f"{self!r}: was released")
        return self._block

    @property
    def stride(self) -> int:
        """Bytes from one row, all but the last axis being rows, to the next."""
        return round_up(self.shape[-1] * self.dtype.itemsize, self.accelerator.config.bus_bytes)

    @property
    def rows(self) -> int:
        """Rows of the last axis."""
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @whole
    def numpy(self) -> np.ndarray:
        """The values, brought home; a `LeftOut` if the platform computes none."""
        return read(self)

    @whole
    def release(self) -> None:
        """Gives the memory back. Raises `ValueError` if that was done before."""
        self.accelerator.release(self.block)
        self._block = None
        self._lost.detach()

    def __enter__(self) -> "Tensor":
        return self

    def __exit__(self, *_: object) -> None:
        if self._block is not None:
            self.release()

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.shape))
        return f"Tensor({self.dtype}[{sizes}] on card {self.accelerator.index})"

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"{self!r}: lies in card memory, `.numpy()` brings it home")

    def __reduce__(self) -> NoReturn:
        self.__array__()


def read(tensor: Tensor, *after: Event) -> Any:
    """The values of a tensor after some events; waits for all that was issued."""
    nbytes = tensor.rows * tensor.stride
    if not nbytes:
        tensor.accelerator.check()
        return np.zeros(tensor.shape, tensor.dtype)
    raw = tensor.accelerator.download(tensor.block, nbytes, *after).reshape(tensor.rows, -1)
    if not tensor.session.values:
        return LeftOut(tensor.shape, tensor.dtype)
    used = np.ascontiguousarray(raw[:, : tensor.shape[-1] * tensor.dtype.itemsize])
    return used.view(tensor.dtype).reshape(tensor.shape)


def operand(
    name: str, value: "ArrayLike | Tensor", dtypes: Sequence[DTypeLike],
    shape: Sequence[int | None], accelerator: HalfdomeAccelerator,
) -> "np.ndarray | Tensor":  # fmt: skip
    """An array, or a tensor of this card, of one of `dtypes` and of `shape`; None is any size."""
    if not isinstance(value, Tensor):
        return arguments.array(name, value, dtypes, shape)
    if value.accelerator is not accelerator:
        raise ValueError(
            f"{name}: is on card {value.accelerator.index}, not on card {accelerator.index}"
        )
    arguments.fitting(name, value, dtypes, shape)
    _ = value.block
    return value


class Call:
    """The operands of one call, which are in card memory while it lasts."""

    def __init__(self, accelerator: HalfdomeAccelerator, garbage: deque[Block]):
        self._accelerator = accelerator
        self._garbage = garbage
        self._blocks: list[Block] = []
        while garbage:
            accelerator.reclaim(garbage.popleft())

    def result(self, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        """Room for a result. It has the first claim to the scratchpad: to DRAM it goes in whole
        lines, later."""
        stride = round_up(shape[-1] * dtype.itemsize, self._accelerator.config.bus_bytes)
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        block = self._accelerator.place(rows * stride)
        return Tensor(self._accelerator, self._garbage, block, shape, dtype)

    def put(self, values: np.ndarray) -> int:
        """The card address of bytes that are there until the call ends."""
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        block = self._accelerator.place(raw.size)
        self._blocks.append(block)
        self._accelerator.upload(block, raw)
        return block.address

    def rows(self, value: np.ndarray | Tensor, zero_point: int = 0) -> Rows:
        """An operand as rows of its last axis."""
        kind = format_of(value.dtype)
        if isinstance(value, Tensor):
            return Rows(value.block.address, value.stride, kind, zero_point)
        raw = value.reshape(-1, value.shape[-1]).view(np.uint8)
        stride = round_up(raw.shape[1], self._accelerator.config.bus_bytes)
        return Rows(self.put(pad_rows(raw, stride)), stride, kind, zero_point)

    def run(self, work: Work) -> None:
        """Issues the command of the call."""
        self._done = self._accelerator.timeline.issue(work.opcode, **work.fields)

    def wait(self) -> np.ndarray:
        """Waits for the command; its completion."""
        return self._accelerator.check()[-1]

    def finish(self, result: Tensor, *, stays: bool) -> "np.ndarray | Tensor":
        """Gives back all but what stays, when the command is done; the result, as an array unless
        it stays."""
        values: np.ndarray | Tensor = result
        if stays:
            self._accelerator.check()
        else:
            values = read(result, self._done)
            self._accelerator.release(result.block)
            result._lost.detach()
        for block in self._blocks:
            self._accelerator.release(block)
        return values
