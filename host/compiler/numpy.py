"""Plain numpy as a target: commands are operators, their code is JSON."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np

from halfdome.hdl.commands import ElementFormat, RowFormat
from halfdome.host.compiler import hazards
from halfdome.host.compiler.commands import Command, Contents, Place, Symbol
from halfdome.host.compiler.division import Cores
from halfdome.host.compiler.segments import Segments
from halfdome.host.driver.kernels import Rows, Window
from halfdome.host.driver.numpy_accelerator import MEMORY, TARGET
from halfdome.host.graph import elements, pooling
from halfdome.host.graph.graph import Node
from halfdome.host.runtime.program import Program
from halfdome.sim.golden.matmul import pack_params


@dataclass(frozen=True)
class NumpyWork:
    """A command: the name of an operation of `NumpyAccelerator`, and its arguments."""

    op: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cycles: float = 1.0
    queue: int = 0


class NumpyTarget:
    """Accelerators with so much memory each."""

    name = TARGET
    near = far = MEMORY
    near_bytes = 0
    far_banks = range(0, 64, 64)
    cores = 1
    word = 1
    line = 64
    max_dim = 1 << 16
    waits = 2

    def __init__(self, memory_bytes: int):
        self.design = f"{memory_bytes} bytes"
        self.far_bytes = self.load_bytes = memory_bytes

    def row_stride(self, nbytes: int) -> int:
        """Rows lie one behind the other."""
        return nbytes

    def diagonal_tile(self, k: int, n: int, groups: int) -> int:
        """None."""
        return 0

    def pack_weights(self, weight: np.ndarray, *, diagonal: bool = False) -> np.ndarray:
        """As they are."""
        return np.ascontiguousarray(weight).view(np.uint8).reshape(-1)

    def weight_bytes(self, shape: Sequence[int]) -> int:
        """A byte each."""
        return prod(shape)

    pack_taps = pack_weights

    def tap_bytes(self, window: Window) -> int:
        """A byte each."""
        return prod(window.kernel) * window.k

    def pack_params(self, multiplier: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Pairs of bias and multiplier."""
        return pack_params(bias, multiplier)

    def row_cycles(self, row_format: RowFormat, dim: int, rows: int, stride: int) -> float:
        """One."""
        return 1

    def far_row_bytes(self, row_bytes: int, rows: int, stride: int) -> float:
        """Its own."""
        return row_bytes

    def far_stride(self, row_bytes: int, rows: int) -> int:
        """One row behind the other."""
        return row_bytes

    def far_cycles(self, nbytes: float) -> float:
        """None that are counted."""
        return 0

    def load(self, source: Place, target: Place, nbytes: int | Symbol, most: int) -> NumpyWork:
        """One row."""
        return self.load_rows(source, most, target, most, 1, nbytes)

    def load_rows(
        self, source: Place, source_stride: int, target: Place, target_stride: int, rows: int,
        row_bytes: int | Symbol,
    ) -> NumpyWork:  # fmt: skip
        """Copies rows."""
        return NumpyWork("move", {
            "source": source, "source_stride": source_stride, "target": target,
            "target_stride": target_stride, "rows": rows, "row_bytes": row_bytes,
        })  # fmt: skip

    store_rows = load_rows
    move = load_rows

    def strip_height(
        self, window: Window, blocks: int, row_bytes: int, slots: int, alone: bool = False
    ) -> int:
        """All memory is alike."""
        return 0

    def fetched(self, window: Window) -> tuple[float, float]:
        """Each once."""
        taps = prod(window.kernel) * window.k
        return prod(window.image) * window.k, taps * window.n

    def fetched_alone(self, window: Window) -> float:
        """Once."""
        return prod(window.image) * window.k

    def far_taps(self, window: Window, row_bytes: int) -> float:
        """One."""
        return 1

    def signal(self) -> NumpyWork:
        """What it tells is beside it."""
        return NumpyWork("signal")

    def fence(self, queue: int) -> NumpyWork:
        """Does nothing."""
        return NumpyWork("fence", cycles=0.0)

    def copy(self, source: Rows, target: Place, stride: int, rows: int, columns: int) -> NumpyWork:
        """Copies elements."""
        return NumpyWork("copy", {
            "source": source, "target": target, "stride": stride, "rows": rows, "columns": columns,
        })  # fmt: skip

    def gather(
        self, node: Node, row_format: RowFormat, rows: int, dim: int, mean: float, table: Place,
        stride: int, indices: Place, count: Symbol, lengths: Place, bags: int, output: Rows,
        weights: Place | None, wide: bool,
    ) -> NumpyWork:  # fmt: skip
        """Pools bags."""
        return NumpyWork("gather", {
            "table": table, "row_format": int(row_format), "rows": rows, "dim": dim,
            "stride": stride, "indices": indices, "count": count, "lengths": lengths, "bags": bags,
            "output": output, "weights": weights, "wide": wide,
            "mean": node.attributes.get("mode") == "mean",
            "multiplier": float(node.attributes.get("multiplier", 1.0)),
        })  # fmt: skip

    def linear(
        self, node: Node, x: Rows, weights: Place, params: Place | int, y: Rows,
        shape: Sequence[int], w_format: ElementFormat, w_zero_point: int,
    ) -> NumpyWork:  # fmt: skip
        """Multiplies."""
        return NumpyWork("linear", {
            "x": x, "weights": weights, "params": params, "y": y, "shape": list(shape),
            "w_format": int(w_format), "w_zero_point": w_zero_point,
            "relu": bool(node.attributes.get("relu", False)),
        })  # fmt: skip

    def pairs(
        self, x: Rows, segments: int, segment_stride: int, dim: int, params: Place, y: Rows,
        samples: int,
    ) -> NumpyWork:  # fmt: skip
        """Multiplies segments that lie side by side."""
        inputs = [x.at(x.address + place * segment_stride) for place in range(segments)]
        return NumpyWork("pairs", {
            "inputs": inputs, "dim": dim, "params": params, "y": y, "samples": samples,
        })  # fmt: skip

    def batch_matmul(
        self, operands: Sequence[tuple[Rows, int]], params: Place | int, shape: Sequence[int], *,
        transposed: bool,
    ) -> NumpyWork:  # fmt: skip
        """Multiplies matrices."""
        return NumpyWork("batch_matmul", {
            "operands": [rows for rows, _ in operands], "steps": [step for _, step in operands],
            "params": params, "shape": list(shape), "transposed": transposed,
        })  # fmt: skip

    def conv2d(
        self, node: Node, x: Rows, weights: Place, params: Place | int, y: Rows, window: Window,
        w_format: ElementFormat, w_zero_point: int,
    ) -> NumpyWork:  # fmt: skip
        """Convolves."""
        return NumpyWork("conv2d", {
            "x": x, "weights": weights, "params": params, "y": y, "window": asdict(window),
            "w_format": int(w_format), "w_zero_point": w_zero_point,
            "relu": bool(node.attributes.get("relu", False)),
        })  # fmt: skip

    def depthwise(
        self, node: Node, x: Rows, weights: Place | None, params: Place, y: Rows, window: Window,
        w_format: ElementFormat, w_zero_point: int,
    ) -> NumpyWork:  # fmt: skip
        """Adds up products."""
        return NumpyWork("depthwise", {
            "x": x, "weights": weights, "params": params, "y": y, "window": asdict(window),
            "w_format": int(w_format), "w_zero_point": w_zero_point,
            "relu": bool(node.attributes.get("relu", False)),
        })  # fmt: skip

    def vector(
        self, node: Node, y: Rows, inputs: Sequence[Rows], rows: int, columns: int, *,
        column: bool = False,
    ) -> NumpyWork:  # fmt: skip
        """The operator of graphs."""
        constants = {name: float(x) for name, x in elements.vector_constants(node).items()}
        attributes = constants | {"function": int(node.attributes.get("function", 0))}
        return _elements(node, attributes, inputs, y, rows, columns, column)

    def pair(
        self, node: Node, y: Rows, a: Rows, b: Rows, rows: int, columns: int, *,
        column: bool = False,
    ) -> NumpyWork:  # fmt: skip
        """The operator of graphs."""
        attributes = {name: float(x) for name, x in elements.pair_constants(node).items()}
        if node.op == "add_quantised":
            attributes["inner"] = "ab"[elements.add_order(node)[0]]
        return _elements(node, attributes, [a, b], y, rows, columns, column)

    def max_pool(self, x: Rows, y: Rows, window: Window) -> NumpyWork:
        """Finds maxima."""
        return NumpyWork("max_pool", {"x": x, "y": y, "window": asdict(window)})

    def average_pool(self, node: Node, x: Rows, y: Rows, window: Window) -> NumpyWork:
        """Finds means."""
        return NumpyWork("average_pool", {
            "x": x, "y": y, "window": asdict(window), **pooling.average_constants(node),
        })  # fmt: skip

    def quantise(self, y: Rows, a: Rows, rows: int, columns: int, scale: float) -> NumpyWork:
        """The operator of graphs."""
        return NumpyWork("elements", {
            "op": "quantise", "attributes": json.dumps({"scale": scale}), "inputs": [a], "y": y,
            "rows": rows, "columns": columns, "column": False,
        })  # fmt: skip

    def transpose(
        self, source: Rows, source_step: int, target: Rows, target_step: int, batches: int,
        rows: int, columns: int,
    ) -> NumpyWork:  # fmt: skip
        """Exchanges rows and columns."""
        return NumpyWork("transpose", {
            "source": source, "source_step": source_step, "target": target,
            "target_step": target_step, "batches": batches, "rows": rows, "columns": columns,
        })  # fmt: skip

    def lookup(self, table: Place, y: Rows, a: Rows, rows: int, columns: int) -> NumpyWork:
        """Looks bytes up."""
        return NumpyWork("lookup", {
            "table": table, "y": y, "a": a, "rows": rows, "columns": columns,
        })  # fmt: skip

    def over_cores(
        self, commands: Sequence[Command], cores: Cores, far: Collection[Contents]
    ) -> list[Command]:
        """It has one."""
        return list(commands)

    def fetching(self, commands: Sequence[Command]) -> float:
        """Nothing."""
        return 0.0

    def in_bands(self, commands: Sequence[Command]) -> list[Command]:
        """All of them take a cycle."""
        return list(commands)

    def encode(
        self, commands: Sequence[Command], waits: Sequence[int], segments: Segments
    ) -> dict[str, np.ndarray]:
        """A list of operations with their arguments."""
        made = [
            {
                "op": command.work.op,  # type: ignore[attr-defined]
                "arguments": {
                    name: _encoded(value, command, segments)
                    for name, value in command.work.arguments.items()  # type: ignore[attr-defined]
                },
            }
            for command in commands
        ]
        return {"commands": np.frombuffer(json.dumps(made).encode(), np.uint8)}

    def check(self, program: Program) -> None:
        """What can be said without knowing which bytes a command touches; no queue is ever full."""
        hazards.check(program, (), queue_depth=program.events, queues_per_core=1)


def _elements(
    node: Node, attributes: Mapping[str, object], inputs: Sequence[Rows], y: Rows, rows: int,
    columns: int, column: bool,
) -> NumpyWork:  # fmt: skip
    return NumpyWork("elements", {
        "op": node.op, "attributes": json.dumps(attributes), "inputs": list(inputs), "y": y,
        "rows": rows, "columns": columns, "column": column,
    })  # fmt: skip


def _encoded(value: Any, command: Command, segments: Segments) -> Any:
    """An argument as JSON: what is known later says of what it is made."""
    if isinstance(value, list):
        return [_encoded(each, command, segments) for each in value]
    if isinstance(value, Rows):
        place = _encoded(value.address, command, segments)
        return {"rows": [place, value.stride, int(value.format), value.zero_point]}
    if isinstance(value, Symbol):
        return {"symbol": value.number}
    if isinstance(value, Place):
        segment, start = segments.of(value.buffer)
        return {
            "segment": segment, "offset": start + value.offset, "symbol": value.symbol,
            "remote": value.buffer.position != command.position,
        }  # fmt: skip
    return value
