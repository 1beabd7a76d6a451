"""The tensors of a graph: shape, format, and what a step of an 8-bit one is worth."""

from dataclasses import dataclass
from math import prod

import numpy as np

from halfdome.hdl.commands import ElementFormat, RowFormat

DTYPES = {
    ElementFormat.UINT8: np.dtype(np.uint8),
    ElementFormat.INT8: np.dtype(np.int8),
    ElementFormat.FLOAT16: np.dtype(np.float16),
    ElementFormat.FLOAT32: np.dtype(np.float32),
    ElementFormat.INT32: np.dtype(np.int32),
}
"""How numpy holds an element of each format."""
REAL_ROWS = {RowFormat.FLOAT16: ElementFormat.FLOAT16, RowFormat.FLOAT32: ElementFormat.FLOAT32}
"""Rows of tables that are numbers as they are, and of which format; others are fused, of bytes."""


class GraphError(ValueError):
    """A graph that means nothing. The message names the value or node, and the rule.

    Attributes
    ----------
    output : what the node makes that is refused, if it is a node
    """

    def __init__(self, message: str, output: str | None = None):
        super().__init__(message)
        self.output = output


def format_of(dtype: np.dtype, name: str = "dtype") -> ElementFormat:
    """The format of a numpy dtype. Raises `GraphError` naming one that no tensor has."""
    for known, held in DTYPES.items():
        if held == dtype:
            return known
    raise GraphError(
        f"{name}: is {dtype}, a tensor is one of {', '.join(map(str, DTYPES.values()))}"
    )


@dataclass(frozen=True)
class Value:
    """A tensor that flows along the edges of a graph.

    Attributes
    ----------
    name : str, unique in its graph
    shape : tuple of int
    format : ElementFormat
    scale : float or None; of 8 bits, an element q is worth (q - zero_point) * scale
    zero_point : int
    ragged : bool; a request may fill less than `shape[0]`: the indices of bags
    """

    name: str
    shape: tuple[int, ...]
    format: ElementFormat
    scale: float | None = None
    zero_point: int = 0
    ragged: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise GraphError("value: its name is empty")
        if not isinstance(self.format, ElementFormat):
            raise GraphError(f"{self.name}: format={self.format!r}: must be an ElementFormat")
        if type(self.zero_point) is not int:
            raise GraphError(f"{self.name}: zero_point={self.zero_point!r}: must be an integer")
        if not isinstance(self.shape, tuple):
            raise GraphError(f"{self.name}: shape={self.shape!r}: must be a tuple")
        if not all(type(size) is int and size >= 0 for size in self.shape):
            raise GraphError(f"{self.name}: shape={self.shape}: must be whole numbers, 0 or more")
        if self.format.nbytes == 1:
            limits = np.iinfo(self.dtype)
            if not limits.min <= self.zero_point <= limits.max:
                raise GraphError(
                    f"{self.name}: zero_point={self.zero_point}: must fit {self.dtype}"
                )

    @property
    def dtype(self) -> np.dtype:
        """How numpy holds it."""
        return DTYPES[self.format]

    @property
    def pixels(self) -> int:
        """Positions of a sample along all axes but the first and the last."""
        return prod(self.shape[1:-1])

    @property
    def columns(self) -> int:
        """Elements along the last axis; 1 if that is the first."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of all but the first axis."""
        return prod(self.shape[1:]) * self.format.nbytes

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"
