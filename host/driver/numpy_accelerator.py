"""A second kind of accelerator, deliberately unlike a Halfdome card: no rings, no descriptors.

It runs commands that are operators of graphs, in one queue, on one memory, in no time. It keeps
`halfdome.host.driver.accelerator` honest, and lets programs be tried where nothing is compiled.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from halfdome.hdl.commands import TABLE_BYTES, ElementFormat, RowFormat, Status
from halfdome.host.driver.accelerator import CardState, Code, Issue, Place
from halfdome.host.driver.errors import CardError, CardLost
from halfdome.host.driver.memory import Allocator, Block
from halfdome.host.driver.rings import ENTRY
from halfdome.host.driver.session import Session
from halfdome.host.graph import operators
from halfdome.host.graph.graph import Node
from halfdome.host.graph.values import DTYPES, Value
from halfdome.sim.golden import matmul
from halfdome.sim.golden.gather import sparse_lengths_sum
from halfdome.sim.golden.pool import average_pool, max_pool
from halfdome.sim.golden.products import convolution
from halfdome.sim.golden.sums import depthwise
from halfdome.sim.golden.vector import lookup

TARGET = "numpy"
MEMORY = "memory"
PAGE = 4096
_SPACING = 1 << 40
"""Bus addresses of one accelerator from those of the next; its own addresses are below all."""
_HOST = 1 << 60
"""Bus address of host memory."""


class NumpyBuffer:
    """Host memory with an address."""

    def __init__(self, bus: "NumpyBus", address: int, nbytes: int):
        self.address = address
        self.array = np.zeros(nbytes, np.uint8)
        self._bus = bus

    def release(self) -> None:
        """Gives it back; twice does nothing."""
        self._bus.buffers.pop(self.address, None)


class NumpyBus:
    """Host memory, and the accelerators that reach it and each other.

    Attributes
    ----------
    buffers : those that are mapped, by address
    accelerators : list of NumpyAccelerator
    """

    errors = 0

    def __init__(self) -> None:
        self.buffers: dict[int, NumpyBuffer] = {}
        self.accelerators: list[NumpyAccelerator] = []
        self._next = _HOST

    def map(self, nbytes: int) -> NumpyBuffer:
        """Zeroed host memory."""
        buffer = NumpyBuffer(self, self._next, nbytes)
        self.buffers[self._next] = buffer
        self._next += -(-nbytes // PAGE) * PAGE
        return buffer

    def read(self, address: int, nbytes: int) -> bytes:
        """What is at a bus address."""
        return self.at(address, nbytes).tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Sets what is at a bus address."""
        self.at(address, len(data))[:] = np.frombuffer(data, np.uint8)

    def wait(self, timeout_cycles: int, message: int = 0) -> bool:
        """Lets the accelerators work; False if none could."""
        return self.run()

    def at(self, address: int, nbytes: int) -> np.ndarray:
        """The bytes at a bus address. Raises `CardError` for an address that nobody has."""
        if address < _HOST:
            index, inside = divmod(address, _SPACING)
            return self.accelerators[index - 1].memory[inside : inside + nbytes]
        for start, buffer in self.buffers.items():
            if start <= address and address + nbytes <= start + len(buffer.array):
                return buffer.array[address - start : address - start + nbytes]
        raise CardError(f"nobody has {nbytes} bytes at bus address {address:#x}")

    def run(self) -> bool:
        """Lets every accelerator do what it can, until none can; False if there was nothing."""
        worked = False
        while any([accelerator.step() for accelerator in self.accelerators]):
            worked = True
        return worked


@dataclass(frozen=True)
class _Rows:
    """An operand bound to a slot: rows of elements in memory."""

    address: int
    stride: int
    format: ElementFormat
    zero_point: int

    def at(self, address: int) -> "_Rows":
        """The same rows elsewhere."""
        return replace(self, address=address)


@dataclass(frozen=True)
class _Command:
    """A command that was submitted."""

    ticket: int
    op: str
    arguments: Mapping[str, Any]
    waits: Sequence[tuple[int, int]]
    signal: int
    tells: "NumpyAccelerator | None"
    notice: int


class NumpyInstalled:
    """Commands as dictionaries, and what each slot binds their operands to."""

    def __init__(self, code: Code, place: Place):
        self.code = code
        self.place = place
        self.commands = json.loads(code.own["commands"].tobytes())
        self._symbols = [np.zeros(0, np.int64)] * len(place.addresses)

    def set_symbols(self, slot: int, symbols: np.ndarray) -> None:
        """Keeps the numbers of a slot's request."""
        self._symbols[slot] = symbols

    def bound(self, command: int, slot: int) -> dict[str, Any]:
        """The arguments of a command for the request in a slot."""
        arguments = self.commands[command]["arguments"]
        return {name: self._bind(value, slot) for name, value in arguments.items()}

    def _bind(self, value: Any, slot: int) -> Any:
        if isinstance(value, list):
            return [self._bind(each, slot) for each in value]
        if not isinstance(value, dict):
            return value
        if "rows" in value:
            address, stride, kind, zero_point = value["rows"]
            return _Rows(self._bind(address, slot), stride, ElementFormat(kind), zero_point)
        symbol = value["symbol"]
        more = int(self._symbols[slot][symbol]) if symbol >= 0 else 0
        if "segment" not in value:
            return more
        bases = self.place.bus_addresses if value["remote"] else self.place.addresses
        return int(bases[slot, value["segment"]]) + value["offset"] + more


class NumpyAccelerator:
    """An accelerator of plain numpy.

    Parameters
    ----------
    index : int
    bus : NumpyBus, which it joins
    session : Session
    memory_bytes : int
    peers : int, most accelerators that it hears of
    """

    target = TARGET
    shared = MEMORY

    def __init__(self, index: int, bus: NumpyBus, session: Session, memory_bytes: int, peers: int):
        self.index = index
        self.design = f"{memory_bytes} bytes"
        self.memory = np.zeros(memory_bytes, np.uint8)
        self.memories = {MEMORY: Allocator(f"accelerator {index}", 0, memory_bytes, 1)}
        self.issued = np.zeros(1, np.int64)
        self.told = np.zeros(peers, np.int64)
        self.alarms = 0
        self.traced = self.strayed = False
        self.answers = True
        self.counters = np.zeros(1 + peers, np.int64)
        self._bus = bus
        self._session = session
        self._waiting: deque[_Command] = deque()
        self._submitted = 0
        self._prepared: list[Callable[[], None]] = []
        bus.accelerators.append(self)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def bus_address(self, block: Block) -> int:
        """Where others reach a block."""
        return (1 + self._bus.accelerators.index(self)) * _SPACING + block.address

    def upload(self, block: Block, values: np.ndarray) -> None:
        """Copies bytes into memory."""
        self._expect_answer()
        self.memory[block.address : block.address + len(values)] = values

    def download(self, block: Block, nbytes: int) -> np.ndarray:
        """A block's bytes once everything is done."""
        self._expect_answer()
        self._bus.run()
        return self.memory[block.address : block.address + nbytes].copy()

    def _expect_answer(self) -> None:
        if not self.answers:
            raise CardLost(f"accelerator {self.index}: does not answer")

    def load(self, copies: Sequence[tuple[int, Block, int]]) -> None:
        """Prepares copies of host memory."""
        for address, block, nbytes in copies:
            self._prepared.append(lambda a=address, b=block, n=nbytes: self.upload(
                b, self._bus.at(a, n)
            ))  # fmt: skip

    def pass_on(
        self, peer: "NumpyAccelerator", copies: Sequence[tuple[Block, Block, int]], after: object
    ) -> None:
        """Prepares copies into a peer: they are made when the peer submits what it prepared."""
        for source, target, nbytes in copies:
            peer._prepared.append(lambda s=source, t=target, n=nbytes: peer.upload(
                t, self.memory[s.address : s.address + n]
            ))  # fmt: skip

    def flush(self) -> range:
        """Makes the copies that were prepared."""
        prepared, self._prepared = self._prepared, []
        for copy in prepared:
            copy()
        return range(0)

    def install(self, code: Code, place: Place) -> NumpyInstalled:
        """Reads a part's commands."""
        return NumpyInstalled(code, place)

    def submit(self, installed: NumpyInstalled, issue: Issue, as_list: bool) -> range:
        """Appends commands to the queue."""
        self._expect_answer()
        code, place = installed.code, installed.place
        first = self._submitted
        for row, (command, slot) in enumerate(zip(issue.commands, issue.slots, strict=True)):
            events = code.waits[command]
            waits = [
                (int(place.counters[event]), int(value))
                for event, value in zip(events, issue.waits[row], strict=True)
                if event >= 0
            ]
            peer = int(code.peer[command])
            self._waiting.append(_Command(
                first + row, installed.commands[command]["op"], installed.bound(command, slot),
                waits, int(issue.signals[row]), place.peers[peer] if peer >= 0 else None,  # type: ignore[arg-type]
                int(issue.notices[row]),
            ))  # fmt: skip
        self._submitted = first + len(issue.commands)
        return range(first, self._submitted)

    def step(self) -> bool:
        """Runs the oldest command if all that it waits for has happened."""
        if not self._waiting or not self.answers:
            return False
        command = self._waiting[0]
        if any(self.counters[counter] < value for counter, value in command.waits):
            return False
        _OPERATIONS[command.op](self, **command.arguments)
        if command.tells is not None:
            command.tells.counters[1 + self.index] = command.notice
        self.counters[0] = command.signal
        self._waiting.popleft()
        return True

    def wait(self, tickets: Iterable[int]) -> np.ndarray:
        """Lets all accelerators work until these commands are done."""
        numbers = np.fromiter(tickets, np.int64)
        self._bus.run()
        self._expect_answer()
        if self._waiting and len(numbers) and numbers.max() >= self._waiting[0].ticket:
            raise CardError(f"accelerator {self.index}: waits for what never happens")
        entries = np.zeros(len(numbers), ENTRY)
        entries["start_cycle"] = entries["end_cycle"] = numbers % 2**32
        return entries.view(np.recarray)

    def done(self, tickets: np.ndarray) -> bool:
        """Nothing is done before it is waited for, and then all is."""
        return True

    def sleep(self) -> None:
        """Lets all accelerators work."""
        self._bus.run()

    def state(self) -> CardState:
        """Whether it answers."""
        return CardState.RUNNING if self.answers else CardState.SILENT

    def catch_up(self, peers: Sequence["NumpyAccelerator"]) -> None:
        """Sets what peers will have told."""
        for peer in peers:
            if peer is not self:
                self.counters[1 + peer.index] = peer.told[self.index]

    def set_priority(self, cores: Sequence[int], priority: int) -> None:
        """It has one core, which goes before nobody."""

    def drop(self) -> None:
        """Forgets what was prepared."""
        self._prepared = []

    def drain(self) -> bool:
        """Lets all that was submitted end."""
        self._bus.run()
        return self.idle

    def restart(self, peers: Sequence["NumpyAccelerator"]) -> bool:
        """Throws away what waits and counts it as done."""
        if not self.answers:
            return False
        self._waiting.clear()
        self.counters[0] = self.issued[0]
        self.catch_up(peers)
        return True

    def give_up(self) -> None:
        """Throws away what waits."""
        self._waiting.clear()

    # Operations

    def _bytes(self, address: int, nbytes: int) -> np.ndarray:
        """Bytes of its own memory, or of whoever has the bus address."""
        if address < _SPACING:
            return self.memory[address : address + nbytes]
        return self._bus.at(address, nbytes)

    def _get(self, operand: _Rows, rows: int, columns: int) -> np.ndarray:
        """[rows, columns] of an operand."""
        dtype = DTYPES[operand.format]
        nbytes = columns * dtype.itemsize
        taken = [self._bytes(operand.address + row * operand.stride, nbytes) for row in range(rows)]
        return np.stack(taken).view(dtype)

    def _put(self, operand: _Rows, values: np.ndarray) -> None:
        for row, each in enumerate(np.ascontiguousarray(values)):
            raw = each.view(np.uint8)
            self._bytes(operand.address + row * operand.stride, raw.size)[:] = raw


def _move(
    card: NumpyAccelerator, source: int, source_stride: int, target: int, target_stride: int,
    rows: int, row_bytes: int,
) -> None:  # fmt: skip
    for row in range(rows):
        taken = card._bytes(source + row * source_stride, row_bytes)
        card._bytes(target + row * target_stride, row_bytes)[:] = taken


def _nothing(card: NumpyAccelerator) -> None:
    pass


def _copy(
    card: NumpyAccelerator, source: _Rows, target: int, stride: int, rows: int, columns: int
) -> None:
    values = card._get(source, rows, columns)
    card._put(_Rows(target, stride, source.format, source.zero_point), values)


def _gather(
    card: NumpyAccelerator, table: int, row_format: int, rows: int, dim: int, indices: int,
    count: int, lengths: int, bags: int, output: _Rows, weights: int | None, wide: bool,
    mean: bool, multiplier: float,
) -> None:  # fmt: skip
    kind, integer = RowFormat(row_format), np.dtype(np.int64 if wide else np.int32)
    size = kind.row_bytes(dim)

    def integers(address: int, many: int) -> np.ndarray:
        return card._bytes(address, many * integer.itemsize).view(integer)

    factors = None if weights is None else card._bytes(weights, 4 * count).view(np.float32)
    pooled, status, detail = sparse_lengths_sum(
        card._bytes(table, rows * size).reshape(rows, size), integers(indices, count),
        integers(lengths, bags), dim, kind, factors, mean=mean, output_format=output.format,
        multiplier=np.float32(multiplier), zero_point=output.zero_point & 0xFF,
    )  # fmt: skip
    if status is not Status.OK:
        raise CardError(f"accelerator {card.index}: {status.name}, detail {detail}")
    card._put(output, pooled)


def _linear(
    card: NumpyAccelerator, x: _Rows, weights: int, params: int, y: _Rows, shape: Sequence[int],
    w_format: int, w_zero_point: int, relu: bool,
) -> None:  # fmt: skip
    m, k, n = shape
    weight = card._bytes(weights, n * k).view(DTYPES[ElementFormat(w_format)]).reshape(n, k)
    total = matmul.product(card._get(x, m, k), weight.T, x.zero_point, w_zero_point)
    card._put(y, _requantised(card, total, params, y, relu))


def _requantised(
    card: NumpyAccelerator, total: np.ndarray, params: int, y: _Rows, relu: bool
) -> np.ndarray:
    if y.format is ElementFormat.INT32:
        return total
    pairs = card._bytes(params, total.shape[-1] * matmul.PARAM.itemsize).view(matmul.PARAM)
    return matmul.requantise(
        total, np.ascontiguousarray(pairs["bias"]), np.ascontiguousarray(pairs["multiplier"]),
        y.zero_point, relu, DTYPES[y.format].type,
    )  # fmt: skip


def _conv2d(
    card: NumpyAccelerator, x: _Rows, weights: int, params: int, y: _Rows,
    window: Mapping[str, Any], w_format: int, w_zero_point: int, relu: bool,
) -> None:  # fmt: skip
    (height, width), k, n, kernel = (window[name] for name in ("image", "k", "n", "kernel"))
    raw = card._bytes(weights, n * kernel[0] * kernel[1] * k)
    weight = raw.view(DTYPES[ElementFormat(w_format)]).reshape(n, *kernel, k)
    total = convolution(
        card._get(x, height * width, k).reshape(height, width, k), weight.transpose(1, 2, 3, 0),
        out=window["out"], stride=window["stride"], pad=window["pad"], dilation=window["dilation"],
        x_zero_point=x.zero_point, w_zero_point=w_zero_point,
    )  # fmt: skip
    card._put(y, _requantised(card, total.reshape(-1, n), params, y, relu))


def _depthwise(
    card: NumpyAccelerator, x: _Rows, weights: int | None, params: int, y: _Rows,
    window: Mapping[str, Any], w_format: int, w_zero_point: int, relu: bool,
) -> None:  # fmt: skip
    (height, width), k, kernel = (window[name] for name in ("image", "k", "kernel"))
    weight, zero_point = np.ones((*kernel, k), np.int8), 0
    if weights is not None:
        raw = card._bytes(weights, k * kernel[0] * kernel[1])
        kind = DTYPES[ElementFormat(w_format)]
        weight = raw.view(kind).reshape(k, *kernel).transpose(1, 2, 0)
        zero_point = w_zero_point
    total = depthwise(
        card._get(x, height * width, k).reshape(height, width, k), weight, out=window["out"],
        stride=window["stride"], pad=window["pad"], dilation=window["dilation"],
        x_zero_point=x.zero_point, w_zero_point=zero_point,
    )  # fmt: skip
    card._put(y, _requantised(card, total.reshape(-1, k), params, y, relu))


def _batch_matmul(
    card: NumpyAccelerator, operands: Sequence[_Rows], steps: Sequence[int], params: int,
    shape: Sequence[int], transposed: bool,
) -> None:  # fmt: skip
    x, w, y = operands
    batches, m, k, n = shape
    for batch in range(batches):
        left, right, made = (
            each.at(each.address + batch * step) for each, step in zip(operands, steps, strict=True)
        )
        second = card._get(right, n, k).T if transposed else card._get(right, k, n)
        total = matmul.product(card._get(left, m, k), second, x.zero_point, w.zero_point)
        card._put(made, _requantised(card, total, params, y, relu=False))


def _pairs(
    card: NumpyAccelerator, inputs: Sequence[_Rows], dim: int, params: int, y: _Rows, samples: int
) -> None:
    record = card._bytes(params, matmul.PARAM.itemsize).view(matmul.PARAM)
    attributes = {"multiplier": record["multiplier"][0]}
    _operator(card, "pairs", attributes, inputs, y, samples, dim)


def _lookup(
    card: NumpyAccelerator, table: int, y: _Rows, a: _Rows, rows: int, columns: int
) -> None:
    card._put(y, lookup(card._get(a, rows, columns), card._bytes(table, TABLE_BYTES)))


def _transpose(
    card: NumpyAccelerator, source: _Rows, source_step: int, target: _Rows, target_step: int,
    batches: int, rows: int, columns: int,
) -> None:  # fmt: skip
    for batch in range(batches):
        matrix = card._get(source.at(source.address + batch * source_step), rows, columns)
        card._put(target.at(target.address + batch * target_step), matrix.T)


def _max_pool(card: NumpyAccelerator, x: _Rows, y: _Rows, window: Mapping[str, Any]) -> None:
    _pool(card, x, y, window, max_pool)


def _average_pool(
    card: NumpyAccelerator, x: _Rows, y: _Rows, window: Mapping[str, Any], x_scale: float,
    y_scale: float, outside: bool,
) -> None:  # fmt: skip
    _pool(card, x, y, window, partial(
        average_pool, dtype=DTYPES[y.format].type, outside=outside, x_zero_point=x.zero_point,
        y_zero_point=y.zero_point, x_scale=np.float32(x_scale), y_scale=np.float32(y_scale),
    ))  # fmt: skip


def _pool(
    card: NumpyAccelerator, x: _Rows, y: _Rows, window: Mapping[str, Any],
    pool: Callable[..., np.ndarray],
) -> None:  # fmt: skip
    (height, width), k = window["image"], window["k"]
    sides = {name: window[name] for name in ("out", "kernel", "stride", "pad", "dilation")}
    made = pool(card._get(x, height * width, k).reshape(height, width, k), **sides)
    card._put(y, made.reshape(-1, k))


def _elements(
    card: NumpyAccelerator, op: str, attributes: str, inputs: Sequence[_Rows], y: _Rows, rows: int,
    columns: int, column: bool,
) -> None:  # fmt: skip
    _operator(card, op, json.loads(attributes), inputs, y, rows, columns, column=column)


def _operator(
    card: NumpyAccelerator, op: str, attributes: dict[str, Any], inputs: Sequence[_Rows], y: _Rows,
    rows: int, columns: int, *, column: bool = False,
) -> None:  # fmt: skip
    """An operator as the graph itself computes it."""
    widths = [columns, 1 if column else columns]
    arrays = (
        [card._get(each, rows, width) for each, width in zip(inputs, widths, strict=False)]
        if op != "pairs"
        else [card._get(each, rows, columns) for each in inputs]
    )
    values = [
        Value("x", array.shape, each.format, zero_point=each.zero_point)
        for each, array in zip(inputs, arrays, strict=True)
    ]
    names = tuple("x" for _ in values)
    node = Node(op, names, "y", attributes | {"format": y.format, "zero_point": y.zero_point})
    card._put(y, operators.find(op).evaluate(node, values, arrays))


_OPERATIONS: Mapping[str, Callable[..., None]] = {
    "move": _move, "signal": _nothing, "fence": _nothing, "copy": _copy, "gather": _gather,
    "linear": _linear, "conv2d": _conv2d, "batch_matmul": _batch_matmul, "pairs": _pairs,
    "elements": _elements, "lookup": _lookup, "max_pool": _max_pool,
    "average_pool": _average_pool,
    "transpose": _transpose, "depthwise": _depthwise,
}  # fmt: skip
