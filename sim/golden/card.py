"""A card by its meaning alone: executes descriptors on arrays, one after the other."""

from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided

from halfdome.hdl.commands import (
    TABLE_BYTES,
    ElementFormat,
    Flag,
    Opcode,
    RowFormat,
    Status,
    index_mode,
)
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, unpack
from halfdome.sim.golden import pairs, products, sums
from halfdome.sim.golden.check import check
from halfdome.sim.golden.gather import lengths_of, sparse_lengths_sum
from halfdome.sim.golden.pool import average_constants, average_pool, max_pool
from halfdome.sim.golden.vector import decode, lookup, result


class Host(Protocol):
    """What a card sees over PCIe."""

    def read(self, address: int, nbytes: int) -> bytes:
        """Bytes at a bus address."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Sets bytes at a bus address."""
        ...


class GoldenCard:
    """Executes any descriptor, in `memory` if there is one already.

    Attributes
    ----------
    memory : uint8[window_bytes], all card memory by card address
    """

    def __init__(self, config: CardConfig, host: Host, memory: np.ndarray | None = None):
        self.config = config
        self.host = host
        self.memory = np.zeros(config.window_bytes, np.uint8) if memory is None else memory

    def execute(self, descriptor: bytes, core: int = 0) -> tuple[Status, int]:
        """Does what the descriptor says, which is in the ring of `core`; returns status and detail
        of its completion."""
        status, detail = check(descriptor, self.config, core)
        return (status, detail) if status is not Status.OK else self.perform(descriptor)

    def perform(self, descriptor: bytes) -> tuple[Status, int]:
        """Likewise, of a descriptor that is known to be good."""
        opcode = Opcode(descriptor[0])
        values = unpack(fields(opcode), descriptor)
        match opcode:
            case Opcode.LOAD | Opcode.COPY | Opcode.STORE:
                self._move(opcode, values)
            case Opcode.TRANSPOSE:
                self._transpose(values)
            case Opcode.SIGNAL:
                self.host.write(values["address"], values["value"].to_bytes(4, "little"))
            case Opcode.GATHER:
                return self._gather(values)
            case Opcode.MATMUL | Opcode.BATCH_MATMUL | Opcode.CONV2D:
                return products.execute(opcode, values, self.memory, self.config)
            case Opcode.AFFINE | Opcode.ADD | Opcode.MULTIPLY | Opcode.CLAMP | Opcode.QUANTISE:
                self._vector(opcode, values)
            case Opcode.LOOKUP:
                table = self._bytes(values["table"], TABLE_BYTES).copy()
                y = lookup(self._rows(values, "a", values["columns"]), table)
                self._set_rows(values["y"], values["y_stride"], y)
            case Opcode.ADD_QUANTISED | Opcode.MULTIPLY_QUANTISED:
                columns = values["columns"]
                a = self._rows(values, "a", columns)
                b = self._rows(values, "b", 1 if values["flags"] & Flag.BROADCAST else columns)
                y = pairs.result(opcode, values, a, b)
                self._set_rows(values["y"], values["y_stride"], y)
            case Opcode.POOL | Opcode.AVERAGE:
                self._pool(opcode, values)
            case Opcode.DEPTHWISE:
                return sums.execute(values, self.memory, self.config)
        return Status.OK, 0

    def _bytes(self, address: int, nbytes: int) -> np.ndarray:
        return self.memory[address : address + nbytes]

    def _rows(self, values: dict[str, int], name: str, row_bytes: int) -> np.ndarray:
        start, stride = values[name], values[f"{name}_stride"]
        rows = [self._bytes(start + i * stride, row_bytes) for i in range(values["rows"])]
        return np.stack(rows)

    def _set_rows(self, start: int, stride: int, rows: np.ndarray) -> None:
        for index, row in enumerate(rows):
            raw = np.ascontiguousarray(row).view(np.uint8)
            self._bytes(start + index * stride, raw.size)[:] = raw

    def _vector(self, opcode: Opcode, values: dict[str, int]) -> None:
        def decoded(name: str, columns: int) -> np.ndarray:
            element = ElementFormat(values[f"{name}_format"])
            raw = self._rows(values, name, columns * element.nbytes)
            return decode(raw, element, values[f"{name}_zero_point"])

        columns = values["columns"]
        a, b = decoded("a", columns), None
        if opcode in (Opcode.ADD, Opcode.MULTIPLY):
            b = decoded("b", 1 if values["flags"] & Flag.BROADCAST else columns)
        y = result(opcode, values, a, b, self.config.vector_lanes)
        self._set_rows(values["y"], values["y_stride"], y)

    def _pool(self, opcode: Opcode, values: dict[str, int]) -> None:
        def sides(name: str) -> tuple[int, int]:
            return values[f"{name}_height"], values[f"{name}_width"]

        height, width, k = (values[name] for name in ("height", "width", "k"))
        x = self._rows(values | {"rows": height * width}, "x", k)
        x = x.view(np.int8 if values["flags"] & Flag.X_INT8 else np.uint8)
        windows = {name: sides(name) for name in ("out", "kernel", "stride", "dilation")}
        windows["pad"] = values["pad_top"], values["pad_left"]
        image = x.reshape(height, width, k)
        y = (
            max_pool(image, **windows)
            if opcode is Opcode.POOL
            else average_pool(image, **windows, **average_constants(values))
        )
        self._set_rows(values["y"], values["y_stride"], y.reshape(-1, k))

    def _move(self, opcode: Opcode, values: dict[str, int]) -> None:
        for row in range(values["rows"]):
            source = values["source"] + row * values["source_stride"]
            target = values["destination"] + row * values["destination_stride"]
            if opcode is Opcode.LOAD:
                data = self.host.read(source, values["row_bytes"])
            else:
                data = self._bytes(source, values["row_bytes"]).tobytes()
            if opcode is Opcode.STORE:
                self.host.write(target, data)
            else:
                self._bytes(target, len(data))[:] = np.frombuffer(data, np.uint8)

    def _transpose(self, values: dict[str, int]) -> None:
        size, rows, columns = (values[name] for name in ("element_bytes", "rows", "columns"))
        for batch in range(values["batches"]):
            start, end = (
                values[name] + batch * values[f"{name}_batch_stride"]
                for name in ("source", "destination")
            )
            matrix = values | {"source": start, "rows": rows}
            x = self._rows(matrix, "source", columns * size).reshape(rows, columns, size)
            self._set_rows(end, values["destination_stride"], x.swapaxes(0, 1).reshape(columns, -1))

    def _gather(self, values: dict[str, int]) -> tuple[Status, int]:
        rows, stride = values["rows"], values["row_stride"]
        start = values["table"]
        # The last row need not be followed by a whole stride, an only row need not fit it.
        row_format = RowFormat(values["format"])
        size = row_format.row_bytes(values["dim"])
        table = as_strided(self.memory[start:], (rows, size), (stride, 1), writeable=False)
        count, flags = values["index_count"], Flag(values["flags"])
        integer = np.dtype(np.int64 if flags & Flag.WIDE else np.int32)
        indices, lengths = (
            self._bytes(values[name], integer.itemsize * size).view(integer)
            for name, size in (("indices", count), ("lengths", values["bags"]))
        )
        if flags & Flag.OFFSETS:
            lengths = lengths_of(lengths, count)
        weights = None
        if flags & Flag.WEIGHTED:
            weights = self._bytes(values["weights"], 4 * count).view(np.float32)
        pooled, status, detail = sparse_lengths_sum(
            table,
            indices,
            lengths,
            values["dim"],
            row_format,
            weights,
            index_mode(flags),
            pruned=bool(flags & Flag.PRUNED),
            mean=bool(flags & Flag.MEAN),
            output_format=ElementFormat(values["output_format"]),
            multiplier=np.uint32(values["multiplier"]).view(np.float32),
            zero_point=values["zero_point"],
        )
        self._set_rows(values["output"], values["output_stride"], pooled)
        return status, detail
