"""The vector engine: element-wise work on matrices. Its one command so far is QUANTISE."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped
from amaranth.utils import exact_log2

from hdl.arith.quantise import FloatToByte
from hdl.commands import Opcode, Status, fields, layout
from hdl.config import ADDRESS_BITS, LINE_BYTES, CardConfig
from hdl.engine import Activity, engine_members
from hdl.memory.port import ReadPort, WritePort
from hdl.memory.reader import SequentialReader
from hdl.vector.packer import BytePacker

FLOAT_BYTES = 4
READ_AHEAD_LINES = 16
"""Lines of source in flight or buffered: covers a memory latency of that many line times."""


class VectorEngine(wiring.Component):
    """QUANTISE: y = saturate(round_half_even(x * multiplier) + zero_point), float32 to uint8.

    Exact as `hdl.arith.quantise.FloatToByte`. Only the bytes of the output's rows are written. A
    word enters the converters only when its result has room, so that they never wait.

    Members
    -------
    command, result, activity : `engine_members()`; descriptor `Opcode.QUANTISE`
    source : Out(ReadPort), rows of float32
    destination : Out(WritePort), rows of uint8

    Throughput: one bus word of source, `elements` elements, a cycle while memory keeps up; a row
    takes at least one cycle more than it has lines (`cycles()`). The last source word of an output
    word reaches `source` `latency` cycles before `destination` offers the output word.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self.elements = config.bus_bytes // FLOAT_BYTES
        # Two cycles through each of two queues.
        self.latency = 2 + FloatToByte.latency + 2 + BytePacker.latency
        super().__init__(
            engine_members()
            | {"source": Out(ReadPort(config)), "destination": Out(WritePort(config))}
        )

    def cycles(self, rows: int, columns: int) -> int:
        """Cycles to stream a matrix whose rows start at a line: no memory stalls, no start-up."""
        words = -(-columns // self.elements)
        return rows * max(words, -(-words // self._config.burst_words) + 1)

    def elaborate(self, platform):
        m = Module()
        config = self._config
        lanes = self.elements
        room_words = FloatToByte.latency + 4
        m.submodules.reader = reader = SequentialReader(
            config, max(config.burst_words, READ_AHEAD_LINES * LINE_BYTES // config.bus_bytes)
        )
        m.submodules.queue = queue = SyncFIFOBuffered(width=8 * lanes, depth=room_words)
        m.submodules.packer = packer = BytePacker(config, lanes)
        connect(m, reader.port, flipped(self.source))
        connect(m, packer.port, flipped(self.destination))

        command = data.View(layout(fields(Opcode.QUANTISE)), self.command.p)
        multiplier = Signal(32)
        zero_point = Signal(8)
        address = Signal(ADDRESS_BITS)
        stride = Signal(32)
        rows_left = Signal(32)
        words = Signal(32)

        # From the reader, through the converters, to the queue.
        enter = Signal()
        leave = Signal()
        room = Signal(range(room_words + 1), init=room_words)
        inside = Signal(FloatToByte.latency)
        results = []
        for lane in range(lanes):
            m.submodules[f"lane{lane}"] = converter = FloatToByte()
            m.d.comb += [
                converter.i.eq(reader.o.p.data.word_select(lane, 32)),
                converter.multiplier.eq(multiplier),
                converter.zero_point.eq(zero_point),
                converter.floor.eq(0),
            ]
            results.append(converter.o)
        m.d.comb += [
            enter.eq(reader.o.valid & (room != 0)),
            reader.o.ready.eq(room != 0),
            queue.w_data.eq(Cat(results)),
            queue.w_en.eq(inside[-1]),
            packer.i.p.eq(queue.r_data),
            packer.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(packer.i.ready),
            leave.eq(packer.i.valid & packer.i.ready),
        ]
        m.d.sync += [inside.eq(Cat(enter, inside)), room.eq(room - enter + leave)]

        # One run of the reader per row.
        m.d.comb += [
            reader.i.p.address.eq(address),
            reader.i.p.words.eq(words),
            reader.i.valid.eq(rows_left != 0),
        ]
        with m.If(reader.i.valid & reader.i.ready):
            m.d.sync += [address.eq(address + stride), rows_left.eq(rows_left - 1)]

        m.d.comb += [
            packer.start.p.address.eq(command.destination),
            packer.start.p.stride.eq(command.destination_stride),
            packer.start.p.rows.eq(command.rows),
            packer.start.p.columns.eq(command.columns),
            self.result.p.status.eq(Status.OK),
        ]
        refused = self.destination.request.valid & ~self.destination.request.ready
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    self.activity.eq(Activity.IDLE),
                    self.command.ready.eq(1),
                    packer.start.valid.eq(self.command.valid),
                ]
                m.d.sync += [
                    multiplier.eq(command.multiplier),
                    zero_point.eq(command.zero_point),
                    address.eq(command.source),
                    stride.eq(command.source_stride),
                    words.eq((command.columns + (lanes - 1)) >> exact_log2(lanes)),
                ]
                with m.If(self.command.valid):
                    m.d.sync += rows_left.eq(command.rows)
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(refused):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.Elif(enter | (room != room_words)):
                    m.d.comb += self.activity.eq(Activity.BUSY)
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.STARVED)
                with m.If(~packer.busy):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.If(self.destination.idle):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += [self.activity.eq(Activity.BLOCKED), self.result.valid.eq(1)]
                with m.If(self.result.ready):
                    m.next = "IDLE"
        return m
