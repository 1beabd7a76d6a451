"""What a descriptor makes a card read and write: the extent of every operand."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from halfdome.hdl.commands import TABLE_BYTES, ElementFormat, Flag, Opcode, RowFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, offset, unpack
from halfdome.host.compiler import costs
from halfdome.host.compiler.commands import Extent
from halfdome.host.compiler.hazards import Access
from halfdome.host.runtime.program import Part, Program


@dataclass(frozen=True)
class Decoded:
    """A command as its descriptor has it.

    Attributes
    ----------
    row : int, of the descriptor among those of its part
    opcode : Opcode
    values : by field; addresses are offsets in segments
    places : by address field the segment, and whether that is reached over the bus
    """

    row: int
    opcode: Opcode
    values: dict[str, int]
    places: dict[str, tuple[int, bool]]


def decoded(part: Part, symbols: np.ndarray | None = None) -> Iterator[Decoded]:
    """The commands of a part in their order, for a request that decides `symbols`, if given."""
    code = part.code
    places: dict[int, list[tuple[int, int, bool]]] = defaultdict(list)
    for row, byte, _, segment, remote in code["addresses"].tolist():
        places[row].append((byte, segment, bool(remote)))
    decides: dict[int, list[tuple[int, int]]] = defaultdict(list)
    if symbols is not None:
        for row, byte, _, symbol in code["symbols"].tolist():
            decides[row].append((byte, int(symbols[symbol])))
    for row in (np.cumsum(code["sizes"]) - code["sizes"]).tolist():
        raw = code["descriptors"][row].tobytes()
        opcode = Opcode(raw[0])
        names, values = _names(opcode), unpack(fields(opcode), raw)
        for byte, value in decides[row]:
            values[names[byte]] += value
        found = {names[byte]: (segment, remote) for byte, segment, remote in places[row]}
        yield Decoded(row, opcode, values, found)


@cache
def _names(opcode: Opcode) -> dict[int, str]:
    """The field that begins at each byte."""
    return {offset(opcode, field.name): field.name for field in fields(opcode)}


def accesses(program: Program, config: CardConfig) -> Iterator[Access]:
    """What every command of a program touches, by its descriptor and where that is patched."""
    for position, part in enumerate(program.parts):
        first = program.first_event(position)
        reaches = {(row, byte): tuple(rest) for row, byte, *rest in part.code["reaches"].tolist()}
        for number, command in enumerate(decoded(part)):
            touched = operands(command.opcode, command.values, config)
            for name, (extent, writes) in touched.items():
                at = command.row, offset(command.opcode, name)
                if at in reaches:  # anywhere in there
                    extent = Extent(reaches[at][0], 1, reaches[at][1], 0)
                if name in command.places:
                    yield Access(first + number, command.places[name][0], extent, writes)


Operands = dict[str, tuple[Extent, bool]]


def operands(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Operands:
    """The operands of a command by their address field, and whether they are written."""
    match opcode:
        case Opcode.LOAD | Opcode.COPY | Opcode.STORE:
            return {
                name: (Extent(v[name], v["rows"], v["row_bytes"], v[f"{name}_stride"]), writes)
                for name, writes in (("source", False), ("destination", True))
            }
        case Opcode.TRANSPOSE:
            sides = {"source": (v["rows"], v["columns"]), "destination": (v["columns"], v["rows"])}
            return {
                name: (_batches(v, name, rows, columns * v["element_bytes"]), name == "destination")
                for name, (rows, columns) in sides.items()
            }
        case Opcode.GATHER:
            return _gather_operands(v)
        case Opcode.MATMUL | Opcode.BATCH_MATMUL | Opcode.CONV2D:
            return _product_operands(opcode, v, config)
        case (
            Opcode.AFFINE | Opcode.ADD | Opcode.MULTIPLY | Opcode.CLAMP | Opcode.QUANTISE
            | Opcode.ADD_QUANTISED | Opcode.MULTIPLY_QUANTISED
        ):  # fmt: skip
            columns = {"y": 1 if v["flags"] & (Flag.SUM | Flag.MAX) else v["columns"]}
            columns |= {"a": v["columns"]}
            if "b" in v:
                columns["b"] = 1 if v["flags"] & Flag.BROADCAST else v["columns"]
            return {
                name: (
                    Extent(
                        v[name], v["rows"] if v[f"{name}_stride"] else 1,
                        count * ElementFormat(v[f"{name}_format"]).nbytes, v[f"{name}_stride"],
                    ),
                    name == "y",
                )
                for name, count in columns.items()
            }  # fmt: skip
        case Opcode.POOL | Opcode.AVERAGE:
            pixels = {"y": v["out_height"] * v["out_width"], "x": v["height"] * v["width"]}
            return {
                name: (Extent(v[name], count, v["k"], v[f"{name}_stride"]), name == "y")
                for name, count in pixels.items()
            }
        case Opcode.DEPTHWISE:
            row = -(-v["k"] // config.bus_bytes) * config.bus_bytes
            taps = v["kernel_height"] * v["kernel_width"]
            found = operands(Opcode.POOL, v, config)
            found["params"] = Extent(v["params"], 1, 8 * v["k"], 0), False
            if not v["flags"] & Flag.ONES:
                found["w"] = Extent(v["w"], taps, v["k"], row), False
            return found
        case Opcode.LOOKUP:
            return {
                "y": (Extent(v["y"], v["rows"], v["columns"], v["y_stride"]), True),
                "a": (Extent(v["a"], v["rows"], v["columns"], v["a_stride"]), False),
                "table": (Extent(v["table"], 1, TABLE_BYTES, 0), False),
            }
    return {}


def _gather_operands(v: dict[str, int]) -> Operands:
    row_bytes = RowFormat(v["format"]).row_bytes(v["dim"])
    pooled = v["dim"] * ElementFormat(v["output_format"]).nbytes
    integer = 8 if v["flags"] & Flag.WIDE else 4
    found = {
        "table": (Extent(v["table"], v["rows"], row_bytes, v["row_stride"]), False),
        "indices": (Extent(v["indices"], 1, integer * v["index_count"], 0), False),
        "lengths": (Extent(v["lengths"], 1, integer * v["bags"], 0), False),
        "output": (Extent(v["output"], v["bags"], pooled, v["output_stride"]), True),
    }
    if v["flags"] & Flag.WEIGHTED:
        found["weights"] = Extent(v["weights"], 1, 4 * v["index_count"], 0), False
    return found


def _product_operands(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Operands:
    size = ElementFormat(v["y_format"]).nbytes
    tiles = costs.tiles(config, v["k"], v["n"]) * config.weight_tile_bytes
    if opcode is Opcode.MATMUL:
        found = {
            "x": (Extent(v["x"], v["m"], v["k"], v["x_stride"]), False),
            "w": (Extent(v["w"], 1, tiles, 0), False),
            "y": (Extent(v["y"], v["m"], size * v["n"], v["y_stride"]), True),
        }
    elif opcode is Opcode.CONV2D:
        pixels, out_pixels = v["height"] * v["width"], v["out_height"] * v["out_width"]
        taps = v["kernel_height"] * v["kernel_width"]
        if v["flags"] & Flag.DIAGONAL:
            tiles = costs.tiles(config, config.array_rows, v["n"]) * config.weight_tile_bytes
        found = {
            "x": (Extent(v["x"], pixels, v["k"], v["x_stride"]), False),
            "w": (Extent(v["w"], 1, taps * tiles, 0), False),
            "y": (Extent(v["y"], out_pixels, size * v["n"], v["y_stride"]), True),
        }
    else:
        found = _batch_operands(v, size)
    if v["y_format"] != ElementFormat.INT32:
        found["params"] = Extent(v["params"], 1, 8 * v["n"], 0), False
    return found


def _batches(v: dict[str, int], name: str, rows: int, row_bytes: int) -> Extent:
    """The rows of matrices that follow each other; of others all from the first byte to the
    last."""
    step, stride = v[f"{name}_batch_stride"], v[f"{name}_stride"]
    batches = v["batches"] if step else 1
    if batches == 1 or step == rows * stride:
        return Extent(v[name], batches * rows, row_bytes, stride)
    return Extent(v[name], batches, (rows - 1) * stride + row_bytes, step)


def _batch_operands(v: dict[str, int], size: int) -> Operands:
    """Batches of matrices; a TRIANGLE's are rows."""
    x, w = (
        (v["m"], v["k"]),
        ((v["n"], v["k"]) if v["flags"] & Flag.TRANSPOSED else (v["k"], v["n"])),
    )
    found = {}
    for name, (rows, row) in {"x": x, "w": w, "y": (v["m"], size * v["n"])}.items():
        extent = _batches(v, name, rows, row)
        if name == "y" and v["flags"] & Flag.TRIANGLE:
            below = v["n"] * (v["n"] - 1) // 2
            extent = Extent(v["y"], v["batches"], below, v["y_batch_stride"])
        found[name] = extent, name == "y"
    return found
