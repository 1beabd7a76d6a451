"""Halfdome cards as a target: descriptors, and where they are patched."""

from collections import Counter
from collections.abc import Collection, Sequence
from math import prod

import numpy as np

from halfdome.hdl.commands import ElementFormat, Engine, Flag, Function, Opcode, RowFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, NO_COUNTER, fields, offset, pack
from halfdome.host.compiler import bands, costs, hazards, strips
from halfdome.host.compiler.commands import Command, Contents, Place, Symbol
from halfdome.host.compiler.cores import deal
from halfdome.host.compiler.division import Cores
from halfdome.host.compiler.operands import accesses
from halfdome.host.compiler.segments import Segments
from halfdome.host.compiler.target import NEAR_SHARE
from halfdome.host.driver import kernels, layout
from halfdome.host.driver.kernels import Rows, Window, Work
from halfdome.host.graph import elements, pooling
from halfdome.host.graph.graph import Node
from halfdome.host.runtime.program import Program

_FENCE = 0xF


class HalfdomeTarget:
    """Cards built from one configuration."""

    name = "halfdome"
    near, far = "scratchpad", "dram"
    waits = 2

    def __init__(self, config: CardConfig):
        self._config = config
        self.design = config.hash
        self.word = config.bus_bytes
        self.line = config.line_bytes
        self.near_bytes, self.far_bytes = config.scratchpad_bytes, config.dram_bytes
        low, bits = config.dram_fields["bank"]
        self.far_banks = range(0, 1 << low + bits, max(1 << low, self.line))
        self.max_dim = config.max_dim
        self.load_bytes = costs.long_load(config)
        self.cores = config.cores

    def row_stride(self, nbytes: int) -> int:
        """Whole bus words, and no row touches more memory lines than it must."""
        return layout.row_stride(nbytes, self._config)

    def diagonal_tile(self, k: int, n: int, groups: int) -> int:
        """The rows of the array, if the command does for such groups."""
        return self._config.array_rows if layout.is_diagonal(self._config, k, n, groups) else 0

    def pack_weights(self, weight: np.ndarray, *, diagonal: bool = False) -> np.ndarray:
        """Tiles of the array."""
        return layout.pack_weights(weight, self._config, diagonal=diagonal)

    def weight_bytes(self, shape: Sequence[int]) -> int:
        """So many tiles for each tap."""
        n, *kernel, k = shape
        return prod(kernel) * costs.tiles(self._config, k, n) * self._config.weight_tile_bytes

    def pack_taps(self, weight: np.ndarray) -> np.ndarray:
        """Rows of bus words."""
        return layout.pack_taps(weight, self._config)

    def tap_bytes(self, window: Window) -> int:
        """A row for each tap."""
        return prod(window.kernel) * layout.round_up(window.k, self.word)

    def pack_params(self, multiplier: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Pairs of bias and multiplier."""
        return layout.pack_params(np.zeros((len(bias), 1), np.int8), multiplier, bias, 0)

    def row_cycles(self, row_format: RowFormat, dim: int, rows: int, stride: int) -> float:
        """By the lanes, or the memory that the table is likely in."""
        near = rows * stride <= NEAR_SHARE * self.near_bytes
        return costs.row_cycles(self._config, row_format, dim, rows, stride, near=near)

    def far_stride(self, row_bytes: int, rows: int) -> int:
        """See `costs.far_stride`."""
        return costs.far_stride(self._config, row_bytes, rows)

    def far_row_bytes(self, row_bytes: int, rows: int, stride: int) -> float:
        """See `costs.far_row`."""
        cycles = costs.far_row(self._config, row_bytes, rows, stride)
        return cycles * costs.streamed_bytes_per_cycle(self._config)

    def far_cycles(self, nbytes: float) -> float:
        """See `costs.streamed_bytes_per_cycle`."""
        return nbytes / costs.streamed_bytes_per_cycle(self._config)

    def load(self, source: Place, target: Place, nbytes: int | Symbol, most: int) -> Work:
        """LOAD of one row."""
        stride = layout.round_up(most, self.word)
        work = kernels.move(Opcode.LOAD, source, stride, target, stride, 1, nbytes)
        return work.taking(costs.load(self._config, most))

    def load_rows(
        self, source: Place, source_stride: int, target: Place, target_stride: int, rows: int,
        row_bytes: int,
    ) -> Work:  # fmt: skip
        """LOAD."""
        return self._move(
            Opcode.LOAD, source, source_stride, target, target_stride, rows, row_bytes
        )

    def store_rows(
        self, source: Place, source_stride: int, target: Place, target_stride: int, rows: int,
        row_bytes: int,
    ) -> Work:  # fmt: skip
        """STORE."""
        return self._move(
            Opcode.STORE, source, source_stride, target, target_stride, rows, row_bytes
        )

    def move(
        self, source: Place, source_stride: int, target: Place, target_stride: int, rows: int,
        row_bytes: int,
    ) -> Work:  # fmt: skip
        """COPY."""
        work = kernels.move(
            Opcode.COPY, source, source_stride, target, target_stride, rows, row_bytes
        )
        nbytes = rows * layout.round_up(row_bytes, self.word)
        return work.taking(costs.copy(self._config, nbytes))

    def strip_height(
        self, window: Window, blocks: int, row_bytes: int, slots: int, alone: bool = False
    ) -> int:
        """See `strips.best_height`."""
        return strips.best_height(self._config, window, blocks, row_bytes, slots, alone)

    def fetched(self, window: Window) -> tuple[float, float]:
        """See `costs.fetched`."""
        return costs.fetched(self._config, window)

    def fetched_alone(self, window: Window) -> float:
        """See `costs.fetched_alone`."""
        return costs.fetched_alone(self._config, window)

    def far_taps(self, window: Window, row_bytes: int) -> float:
        """See `costs.far_taps`."""
        return costs.far_taps(self._config, window, row_bytes)

    def _move(
        self, opcode: Opcode, source: Place, source_stride: int, target: Place, target_stride: int,
        rows: int, row_bytes: int,
    ) -> Work:  # fmt: skip
        if rows > 1 and source_stride == target_stride == row_bytes:
            rows, row_bytes = 1, rows * row_bytes
        work = kernels.move(opcode, source, source_stride, target, target_stride, rows, row_bytes)
        cost = costs.load if opcode is Opcode.LOAD else costs.store
        return work.taking(cost(self._config, rows * row_bytes))

    def signal(self) -> Work:
        """SIGNAL: its fields are patched where the peer is known."""
        return Work(Opcode.SIGNAL, {}, costs.PEER_LATENCY_CYCLES)

    def fence(self, queue: int) -> Work:
        """The fence of an engine."""
        core, engine = divmod(queue, len(Engine))
        return Work(Opcode(engine << 4 | _FENCE), {}, core=core)

    def copy(self, source: Rows, target: Place, stride: int, rows: int, columns: int) -> Work:
        """AFFINE with nothing to do."""
        work = kernels.copy(source, target, stride, rows, columns)
        return work.taking(costs.vector(self._config, rows, columns))

    def gather(
        self, node: Node, row_format: RowFormat, rows: int, dim: int, mean: float, table: Place,
        stride: int, indices: Place, count: Symbol, lengths: Place, bags: int, output: Rows,
        weights: Place | None, wide: bool,
    ) -> Work:  # fmt: skip
        """GATHER."""
        chosen = {Flag.WIDE: wide, Flag.MEAN: node.attributes.get("mode") == "mean"}
        work = kernels.gather(
            table, row_format, stride, rows, dim, indices, count, lengths, bags,
            output, weights=weights, flags=int(sum(flag for flag, on in chosen.items() if on)),
            multiplier=node.attributes.get("multiplier", 1.0),
        )  # fmt: skip
        row_cycles = self.row_cycles(row_format, dim, rows, stride)
        return work.taking(
            costs.pooling(self._config, dim, bags, bags * mean * row_cycles, output.format)
        )

    def linear(
        self, node: Node, x: Rows, weights: Place, params: Place | int, y: Rows,
        shape: Sequence[int], w_format: ElementFormat, w_zero_point: int,
    ) -> Work:  # fmt: skip
        """MATMUL."""
        work = kernels.linear(
            x, weights, params, y, *shape, w_format=w_format, w_zero_point=w_zero_point,
            relu=bool(node.attributes.get("relu", False)),
        )  # fmt: skip
        return work.taking(costs.product(self._config, *shape))

    def pairs(
        self, x: Rows, segments: int, segment_stride: int, dim: int, params: Place, y: Rows,
        samples: int,
    ) -> Work:  # fmt: skip
        """BATCH_MATMUL of the segments with themselves."""
        work = kernels.pairs(x, segments, segment_stride, dim, params, y, samples)
        return work.taking(costs.batch_product(self._config, samples, segments, dim, segments))

    def batch_matmul(
        self, operands: Sequence[tuple[Rows, int]], params: Place | int, shape: Sequence[int], *,
        transposed: bool,
    ) -> Work:  # fmt: skip
        """BATCH_MATMUL."""
        work = kernels.batch_matmul(operands, params, shape, transposed=transposed)
        return work.taking(costs.batch_product(self._config, *shape))

    def conv2d(
        self, node: Node, x: Rows, weights: Place, params: Place | int, y: Rows, window: Window,
        w_format: ElementFormat, w_zero_point: int,
    ) -> Work:  # fmt: skip
        """CONV2D."""
        work = kernels.conv2d(
            x, weights, params, y, window, w_format=w_format, w_zero_point=w_zero_point,
            relu=bool(node.attributes.get("relu", False)),
        )  # fmt: skip
        return work.taking(costs.convolution(self._config, window))

    def depthwise(
        self, node: Node, x: Rows, weights: Place | None, params: Place, y: Rows, window: Window,
        w_format: ElementFormat, w_zero_point: int,
    ) -> Work:  # fmt: skip
        """DEPTHWISE."""
        work = kernels.depthwise(
            x, weights, params, y, window, w_format=w_format, w_zero_point=w_zero_point,
            relu=bool(node.attributes.get("relu", False)),
        )  # fmt: skip
        return work.taking(costs.sums(self._config, window, weighted=weights is not None))

    def vector(
        self, node: Node, y: Rows, inputs: Sequence[Rows], rows: int, columns: int, *,
        column: bool = False,
    ) -> Work:  # fmt: skip
        """AFFINE, ADD, MULTIPLY or CLAMP."""
        first, *others = inputs
        work = kernels.vector(
            elements.VECTOR_OPCODES[node.op], y, first, rows, columns, *others,
            flags=int(Flag.BROADCAST) if column else 0,
            function=Function(node.attributes.get("function", 0)),
            **elements.vector_constants(node),
        )  # fmt: skip
        nbytes = rows * columns * sum(each.format.nbytes for each in (y, *inputs) if each.stride)
        return work.taking(costs.vector(self._config, rows, columns, nbytes))

    def pair(
        self, node: Node, y: Rows, a: Rows, b: Rows, rows: int, columns: int, *,
        column: bool = False,
    ) -> Work:  # fmt: skip
        """ADD_QUANTISED or MULTIPLY_QUANTISED."""
        flags = int(Flag.BROADCAST) if column else 0
        if node.op == "add_quantised" and elements.add_order(node)[0] == 0:
            flags |= int(Flag.INNER_A)
        work = kernels.pair(
            elements.PAIR_OPCODES[node.op], y, a, b, rows, columns, self.word, flags=flags,
            **elements.pair_constants(node),
        )  # fmt: skip
        return work.taking(costs.pair(self._config, work.fields["rows"], work.fields["columns"]))

    def max_pool(self, x: Rows, y: Rows, window: Window) -> Work:
        """POOL."""
        return kernels.max_pool(x, y, window).taking(costs.maxima(self._config, window))

    def average_pool(self, node: Node, x: Rows, y: Rows, window: Window) -> Work:
        """AVERAGE."""
        work = kernels.average_pool(x, y, window, **pooling.average_constants(node))
        return work.taking(costs.averages(self._config, window))

    def quantise(self, y: Rows, a: Rows, rows: int, columns: int, scale: float) -> Work:
        """QUANTISE."""
        work = kernels.quantise(y, a, rows, columns, scale)
        return work.taking(costs.vector(self._config, rows, columns))

    def transpose(
        self, source: Rows, source_step: int, target: Rows, target_step: int, batches: int,
        rows: int, columns: int,
    ) -> Work:  # fmt: skip
        """TRANSPOSE."""
        shape = batches, rows, columns
        work = kernels.transpose(source, source_step, target, target_step, *shape)
        return work.taking(costs.transposition(self._config, *shape, source.format.nbytes))

    def lookup(self, table: Place, y: Rows, a: Rows, rows: int, columns: int) -> Work:
        """LOOKUP."""
        work = kernels.lookup(table, y, a, rows, columns, self.word)
        shape = work.fields["rows"], work.fields["columns"]
        return work.taking(costs.lookup(self._config, *shape))

    def over_cores(
        self, commands: Sequence[Command], cores: Cores, far: Collection[Contents]
    ) -> list[Command]:
        """See `cores.deal`."""
        return deal(commands, self._config, cores, far)

    def fetching(self, commands: Sequence[Command]) -> float:
        """See `costs.fetch`."""
        of_core = Counter(each.work.core for each in commands)  # type: ignore[attr-defined]
        return costs.fetch(self._config, list(of_core.values()))

    def in_bands(self, commands: Sequence[Command]) -> list[Command]:
        """See `bands.cut`."""
        return bands.cut(commands, self._config)

    def encode(
        self, commands: Sequence[Command], waits: Sequence[int], segments: Segments
    ) -> dict[str, np.ndarray]:
        """Descriptors with offsets where addresses will be, and where they are to be patched.

        `sizes` says how many slots of the ring each command takes, rows of `descriptors`: two if it
        has two waits. `addresses` has for each field that is one its row, byte and width, the
        segment, and whether that is reached over the bus; `symbols` for each field that a request
        decides its row, byte and width, and the symbol; `reaches` for each operand whose place or
        size a request decides row and byte of its address, and what it lies in at any rate: offset
        and bytes.
        """
        raw, addresses, symbols, reaches = b"", [], [], []
        sizes = np.array([2 if count > 1 else 1 for count in waits], np.uint8)
        for command, size in zip(commands, sizes, strict=True):
            row = len(raw) // DESCRIPTOR_BYTES
            work: Work = command.work  # type: ignore[assignment]
            values = {"second_wait_counter": NO_COUNTER} if size > 1 else {}
            for name, value in work.fields.items():
                if not isinstance(value, Place | Symbol):
                    values[name] = int(value)
                    continue
                width = next(f.bits for f in fields(work.opcode) if f.name == name) // 8
                at = row, offset(work.opcode, name), width
                symbol = value.number if isinstance(value, Symbol) else value.symbol
                if symbol >= 0:
                    symbols.append((*at, symbol))
                if isinstance(value, Place):
                    segment, start = segments.of(value.buffer)
                    remote = value.buffer.position != command.position
                    addresses.append((*at, segment, int(remote)))
                    if symbol >= 0 or isinstance(work.fields.get("row_bytes"), Symbol):
                        reaches.append((*at[:2], start, value.buffer.nbytes))
                    values[name] = start + value.offset
            raw += pack(work.opcode, core=work.core, **values)
        return {
            "descriptors": np.frombuffer(raw, np.uint8).reshape(-1, DESCRIPTOR_BYTES),
            "sizes": sizes,
            "addresses": np.array(addresses, np.int32).reshape(-1, 5),
            "symbols": np.array(symbols, np.int32).reshape(-1, 4),
            "reaches": np.array(reaches, np.int64).reshape(-1, 4),
        }

    def check(self, program: Program) -> None:
        """See `hazards.check`."""
        touched = accesses(program, self._config)
        hazards.check(program, touched, self._config.queue_depth, len(Engine))
