"""A request as arrays, as bytes in host memory, and as numbers that commands are patched with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from halfdome.host import arguments
from halfdome.host.runtime.left_out import LeftOut
from halfdome.host.runtime.program import (
    SYMBOLS_PER_PIECE,
    BagsInput,
    BagsStaging,
    Output,
    Program,
    RowsInput,
    RowsPiece,
)

Request = Mapping[str, np.ndarray]
"""Arrays by the name of the input."""


@dataclass(frozen=True)
class Checked:
    """A request whose every array is as the program wants it; `rows` is how many it has.

    `starts[i]` says where each bag of `bags[i]` begins, and where the last ends.
    """

    rows: int
    tensors: tuple[np.ndarray, ...]
    bags: tuple[tuple[np.ndarray, np.ndarray, np.ndarray | None], ...]
    starts: tuple[np.ndarray, ...]


def check(program: Program, request: Request) -> Checked:
    """Looks at all of a request before anything of it is used.

    Raises `ValueError` naming an input that is missing or unknown, of another dtype or shape, not
    finite, or not as long as the others, and bags that do not add up or are too long.
    """
    if not isinstance(request, Mapping):
        raise ValueError(f"request: is a {type(request).__name__}, must map names to arrays")
    names = [each.name for each in program.inputs]
    for bags in program.bags:
        names += [name for name in (bags.lengths, bags.indices, bags.weights) if name]
    for name in request:
        if name not in names:
            raise ValueError(f"input {name}: unknown; known are {', '.join(names)}")
    for name in names:
        if name not in request:
            raise ValueError(f"input {name}: missing from the request")
    tensors = tuple(_tensor(each, request[each.name]) for each in program.inputs)
    bags = tuple(_bags(each, request) for each in program.bags)
    rows = {each.name: len(array) for each, array in zip(program.inputs, tensors, strict=True)}
    rows |= {
        each.lengths: len(lengths) for each, (lengths, *_) in zip(program.bags, bags, strict=True)
    }
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"inputs: differ in rows: {told}")
    starts = tuple(
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]) for lengths, *_ in bags
    )
    checked = Checked(next(iter(rows.values())), tensors, bags, starts)
    if checked.rows < 1:
        raise ValueError(f"input {next(iter(rows))}: has no rows, must have at least 1")
    return checked


def _tensor(wanted: RowsInput, value: np.ndarray) -> np.ndarray:
    name = f"input {wanted.name}"
    array = arguments.rows(name, value, np.dtype(wanted.dtype), wanted.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(f"{name}: row {row} has a value that is not finite")
    return array


def _bags(wanted: BagsInput, request: Request):
    lengths = _int32(wanted.lengths, request[wanted.lengths])
    if len(lengths) > wanted.bags:
        raise ValueError(
            f"input {wanted.lengths}: is {arguments.described(lengths)}, must have at most "
            f"{wanted.bags} rows"
        )
    indices = _int32(wanted.indices, request[wanted.indices])
    if len(lengths) and lengths.min() < 0:
        bag = int(np.argmax(lengths < 0))
        raise ValueError(f"input {wanted.lengths}: bag {bag} has a negative length")
    if len(lengths) and lengths.max() > wanted.longest:
        bag = int(lengths.argmax())
        raise ValueError(
            f"input {wanted.lengths}: bag {bag} has {lengths[bag]} indices, the program has room "
            f"for {wanted.longest} in each: compile it with a longer input {wanted.indices}"
        )
    total = int(lengths.sum(dtype=np.int64))
    if total != len(indices):
        raise ValueError(
            f"input {wanted.indices}: has {len(indices)} indices, the lengths add up to {total}"
        )
    weights = None
    if wanted.weights:
        name = f"input {wanted.weights}"
        weights = arguments.array(name, request[wanted.weights], (np.float32,), (len(indices),))
        if not np.isfinite(weights).all():
            raise ValueError(f"{name}: has a value that is not finite")
    return lengths, indices, weights


def _int32(name: str, value: np.ndarray) -> np.ndarray:
    """Whole numbers of any integer dtype that fit int32."""
    array = arguments.plain(f"input {name}", value)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise ValueError(
            f"input {name}: is {arguments.described(array)}, must be integers with 1 dimension"
        )
    limits = np.iinfo(np.int32)
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise ValueError(f"input {name}: holds a value that does not fit int32")
    return np.ascontiguousarray(array, np.int32)


def fill(program: Program, checked: Checked, memory: Sequence[np.ndarray | None]) -> np.ndarray:
    """Copies a request into host memory; its symbols, int64[program.symbols].

    `memory` has for each segment of the program its bytes in the host, if it is there. Rows that a
    request lacks are zeros, and empty bags.
    """
    for wanted, array in zip(program.inputs, checked.tensors, strict=True):
        _fill_rows(wanted, array.astype(wanted.wire_dtype, copy=False), memory)
    symbols = np.zeros(program.symbols, np.int64)
    for staging in program.stagings:
        _fill_bags(staging, checked, memory[staging.segment], symbols)
    return symbols


def _fill_rows(wanted: RowsInput, array: np.ndarray, memory) -> None:
    pixels = prod(wanted.shape[1:-1])
    columns = wanted.shape[-1] if len(wanted.shape) > 1 else 1
    raw = array.reshape(len(array) * pixels, columns).view(np.uint8)
    for piece in wanted.pieces:
        rows = _rows_of(memory, piece, pixels)
        mine = raw[piece.start * pixels : piece.stop * pixels]
        rows[: len(mine), : raw.shape[1]] = mine
        rows[len(mine) :, : raw.shape[1]] = 0


def _rows_of(memory, piece: RowsPiece, pixels: int) -> np.ndarray:
    rows = (piece.stop - piece.start) * pixels
    raw = memory[piece.segment][piece.offset : piece.offset + rows * piece.stride]
    return raw.reshape(rows, piece.stride)


def _fill_bags(
    staging: BagsStaging, checked: Checked, memory: np.ndarray, symbols: np.ndarray
) -> None:
    end = staging.packed_at
    integer = np.dtype(f"<i{staging.integer_bytes}")

    def put(values: np.ndarray, at: int) -> int:
        """Where the values went: after what was packed before, if they have no place."""
        nonlocal end
        start = end if at < 0 else at
        raw = np.ascontiguousarray(values).view(np.uint8)
        memory[start : start + raw.size] = raw
        if at < 0:
            end = -(-(start + raw.size) // staging.word) * staging.word
        return start

    for piece in staging.pieces:
        lengths, indices, weights = checked.bags[piece.bags]
        mine = np.zeros(piece.stop - piece.start, integer)
        present = lengths[piece.start : piece.stop]
        mine[: len(present)] = present
        put(mine, piece.lengths_at)
        starts, last = checked.starts[piece.bags], len(lengths)
        chosen = slice(starts[min(piece.start, last)], starts[min(piece.stop, last)])
        used = indices[chosen].astype(integer)
        symbols[piece.symbol] = len(used)
        symbols[piece.symbol + 1] = put(used, piece.indices_at)
        symbols[piece.symbol + 2] = max(used.nbytes, staging.word)
        if weights is not None:
            symbols[piece.symbol + SYMBOLS_PER_PIECE - 1] = put(weights[chosen], piece.weights_at)
    symbols[staging.symbol] = end


def outputs(
    program: Program, rows: int, memory: Sequence[np.ndarray | None]
) -> dict[str, np.ndarray]:
    """What the cards have left in host memory for a request of so many rows."""
    return {each.name: _output(each, rows, memory) for each in program.outputs}


def left_out(program: Program, rows: int) -> dict[str, LeftOut]:
    """What stands for `outputs` where cards compute no values."""
    return {
        each.name: LeftOut((rows, *each.shape[1:]), np.dtype(each.dtype))
        for each in program.outputs
    }


def _output(wanted: Output, rows: int, memory) -> np.ndarray:
    dtype, pixels = np.dtype(wanted.dtype), prod(wanted.shape[1:-1])
    result = np.zeros((wanted.shape[0] * pixels, len(wanted.columns)), dtype)
    columns = np.array(wanted.columns)
    width = int(columns.max(initial=-1)) + 1
    for piece in wanted.pieces:
        raw = _rows_of(memory, piece, pixels)
        values = np.ascontiguousarray(raw[:, : width * dtype.itemsize]).view(dtype)
        result[piece.start * pixels : piece.stop * pixels] = values[:, columns]
    return result[: rows * pixels].reshape(rows, *wanted.shape[1:])
