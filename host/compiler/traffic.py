"""Bytes that commands move, and what they take the parts of a card that they use.

What an engine reads again is counted again, by its dataflow: see docs/matmul.md. What a memory
moves beside an operand, to fill a word or a line, is not counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from halfdome.hdl.commands import TABLE_BYTES, ElementFormat, Engine, Flag, Opcode, RowFormat
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import costs
from halfdome.host.compiler.operands import Decoded
from halfdome.host.driver.kernels import Window
from halfdome.host.runtime.program import HOST, Segment

LINK = "link"
RESOURCES = ("compute", "vector", "gather", "copy", "dram", LINK)
"""What can bound a command: the array, lanes of the vector engine and of gather units, the bus
between memories of a card, DRAM, and the link."""


def moved(command: Decoded, segments: Sequence[Segment], config: CardConfig) -> Counter[str]:
    """Bytes that a command moves over the card's link, and in and out of memories by their names.

    A memory is that for which a segment is planned.
    """
    total: Counter[str] = Counter()
    for name, nbytes in _operand_bytes(command.opcode, command.values, config).items():
        if name not in command.places:
            continue
        number, remote = command.places[name]
        segment = segments[number]
        if remote:
            total[LINK] += nbytes
        if segment.position != HOST:
            total[segment.memory] += nbytes
    return total


def cycles(
    command: Decoded, nbytes: Counter[str], segments: Sequence[Segment], config: CardConfig
) -> Counter[str]:
    """What the work of a command is expected to take each of `RESOURCES`, were there no other, by
    `costs`: a bound, without what it takes to begin and to end.

    `nbytes` is what it has `moved`.
    """
    v, opcode = command.values, command.opcode
    found: Counter[str] = Counter()
    match opcode:
        case Opcode.COPY:  # a bus word each cycle, as the vector engine has it
            found["copy"] = costs.vector(config, v["rows"], -(-v["row_bytes"] // 4))
        case Opcode.TRANSPOSE:
            shape = v["batches"], v["rows"], v["columns"], v["element_bytes"]
            found["copy"] = costs.transposition(config, *shape)  # type: ignore[assignment]
        case Opcode.MATMUL:
            found["compute"] = costs.product(config, v["m"], v["k"], v["n"])
        case Opcode.BATCH_MATMUL:
            found["compute"] = costs.batch_product(config, v["batches"], v["m"], v["k"], v["n"])
        case Opcode.CONV2D:
            found["compute"] = costs.convolution(config, window_of(v))
        case Opcode.GATHER:
            found["gather"] = _pooling(config, v, near=True)
            if segments[command.places["table"][0]].memory == "dram":
                found["dram"] = _pooling(config, v, near=False)
        case Opcode.POOL:
            found["vector"] = costs.maxima(config, window_of(v))
        case Opcode.AVERAGE:
            found["vector"] = costs.averages(config, window_of(v))
        case Opcode.DEPTHWISE:
            weighted = not v["flags"] & Flag.ONES
            found["vector"] = costs.sums(config, window_of(v), weighted=weighted)
        case Opcode.LOOKUP:
            found["vector"] = costs.lookup(config, v["rows"], v["columns"])
        case Opcode.ADD_QUANTISED | Opcode.MULTIPLY_QUANTISED:
            found["vector"] = costs.pair(config, v["rows"], v["columns"])
        case _ if opcode.engine is Engine.VECTOR and not opcode.is_fence:
            found["vector"] = costs.vector(config, v["rows"], v["columns"])
    for resource in found:
        found[resource] -= costs.START_CYCLES  # type: ignore[assignment]
    streamed = nbytes["dram"] / costs.dram_bytes_per_cycle(config)
    found["dram"] = max(found["dram"], streamed)  # type: ignore[assignment]
    found[LINK] = nbytes[LINK] / costs.link_bytes_per_cycle(config)  # type: ignore[assignment]
    return found


def _pooling(config: CardConfig, v: dict[str, int], *, near: bool) -> float:
    row = costs.row_cycles(
        config, RowFormat(v["format"]), v["dim"], v["rows"], v["row_stride"], near=near
    )
    output = ElementFormat(v["output_format"])
    return costs.pooling(config, v["dim"], v["bags"], v["index_count"] * row, output)


def window_of(v: Mapping[str, int]) -> Window:
    """The windows of a command by its fields."""
    return Window(
        (v["height"], v["width"]), v["k"], v.get("n", v["k"]), (v["out_height"], v["out_width"]),
        (v["kernel_height"], v["kernel_width"]), (v["stride_height"], v["stride_width"]),
        (v["pad_top"], v["pad_left"]), (v["dilation_height"], v["dilation_width"]),
        diagonal="n" in v and bool(v["flags"] & Flag.DIAGONAL),
    )  # fmt: skip


def _operand_bytes(opcode: Opcode, v: dict[str, int], config: CardConfig) -> dict[str, int]:
    """Bytes that a command moves for each operand, by its address field."""
    match opcode:
        case Opcode.LOAD | Opcode.COPY | Opcode.STORE:
            return dict.fromkeys(("source", "destination"), v["rows"] * v["row_bytes"])
        case Opcode.TRANSPOSE:
            turned = v["batches"] * v["rows"] * v["columns"] * v["element_bytes"]
            return dict.fromkeys(("source", "destination"), turned)
        case Opcode.GATHER:
            integer = 8 if v["flags"] & Flag.WIDE else 4
            pooled = v["dim"] * ElementFormat(v["output_format"]).nbytes
            weighted = bool(v["flags"] & Flag.WEIGHTED)
            return {
                "table": v["index_count"] * RowFormat(v["format"]).row_bytes(v["dim"]),
                "indices": v["index_count"] * integer, "lengths": v["bags"] * integer,
                "weights": 4 * v["index_count"] * weighted, "output": v["bags"] * pooled,
            }  # fmt: skip
        case Opcode.MATMUL:
            tiles = costs.tiles(config, v["k"], v["n"]) * config.weight_tile_bytes
            return _product(v, config, 1, v["m"], v["m"], tiles, 1)
        case Opcode.BATCH_MATMUL:
            return _product(v, config, v["batches"], v["m"], v["m"], v["k"] * v["n"], 1)
        case Opcode.CONV2D:
            window = window_of(v)
            taps = window.kernel[0] * window.kernel[1]
            tiles = taps * costs.tap_tiles(config, window) * config.weight_tile_bytes
            rows = window.out[0] * window.out[1]
            rows_read = costs.taps_inside(window)
            return _product(v, config, 1, rows, rows_read, tiles, taps, once=window.diagonal)
        case (
            Opcode.AFFINE | Opcode.ADD | Opcode.MULTIPLY | Opcode.CLAMP | Opcode.QUANTISE
            | Opcode.ADD_QUANTISED | Opcode.MULTIPLY_QUANTISED
        ):  # fmt: skip
            widths = {"a": v["columns"], "y": v["columns"]}
            if v["flags"] & (Flag.SUM | Flag.MAX):
                widths["y"] = 1
            if "b" in v:
                widths["b"] = 1 if v["flags"] & Flag.BROADCAST else v["columns"]
            return {
                name: v["rows"] * width * ElementFormat(v[f"{name}_format"]).nbytes
                for name, width in widths.items()
            }
        case Opcode.POOL | Opcode.AVERAGE:
            window = window_of(v)
            pixels = window.out[0] * window.out[1]
            return {"x": costs.taps_inside(window) * v["k"], "y": pixels * v["k"]}
        case Opcode.DEPTHWISE:
            taps = v["kernel_height"] * v["kernel_width"]
            read = _operand_bytes(Opcode.POOL, v, config)
            weights = 0 if v["flags"] & Flag.ONES else taps * v["k"]
            return {**read, "w": weights, "params": 8 * v["k"]}
        case Opcode.LOOKUP:
            moved = v["rows"] * v["columns"]
            return {"a": moved, "y": moved, "table": TABLE_BYTES}
    return {}


def _product(
    v: dict[str, int], config: CardConfig, batches: int, rows: int, rows_read: int, weights: int,
    taps: int, *, once: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Weights and parameters once for each block of rows, x once for each group of output tiles
    unless all that a row reads is one line, or they see parts of it: `once`."""
    blocks = batches * -(-rows // config.activation_rows)
    groups = -(-v["n"] // (config.array_columns * config.group_tiles))
    if once or (taps == 1 and v["k"] <= config.line_bytes):
        groups = 1
    made = rows * v["n"]
    if v["flags"] & Flag.TRIANGLE and Opcode(v["opcode"]) is Opcode.BATCH_MATMUL:
        made = v["n"] * (v["n"] - 1) // 2
    return {
        "x": batches * rows_read * v["k"] * groups, "w": blocks * weights,
        "params": blocks * 8 * v["n"],
        "y": batches * made * ElementFormat(v["y_format"]).nbytes,
    }  # fmt: skip
