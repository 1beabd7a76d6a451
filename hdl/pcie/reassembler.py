"""Completions of the card's reads, in any order, put where their data belongs."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import write_request
from halfdome.hdl.pcie.completion_checker import CompletionChecker
from halfdome.hdl.pcie.packet_buffer import packet_beat
from halfdome.hdl.pcie.payload_writer import PayloadWriter
from halfdome.hdl.pcie.port import READ_EVENTS, events
from halfdome.hdl.pcie.read_table import ReadTable, client_bits, opened_read
from halfdome.hdl.pcie.timer import CompletionTimer
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS, HEADER_BYTES, CompletionHeader


def retired_read(config: CardConfig, clients: int) -> data.StructLayout:
    """What became of a tag.

    `ends`: the read of `client` is over, its last write was accepted or `failure` says why not.
    `frees`: the tag is free. A read that ends without freeing its tag leaves it in quarantine,
    which another record ends. `drains` marks both of a quarantine that time ends, too.
    """
    return data.StructLayout(
        {
            "tag": ceil_log2(config.dma_tags),
            "client": client_bits(clients),
            "failure": ReadFailure,
            "ends": 1,
            "frees": 1,
            "drains": 1,
        }
    )


class Reassembler(wiring.Component):
    """Writes the payload of each completion to its read's destination plus what came before.

    Parameters
    ----------
    clients : int
        DMA clients; client `clients` is the descriptor fetch.

    Members
    -------
    i : In(stream of `packet_beat`), completions
    opened : In(stream of `opened_read`, always ready); the tag is free
    sent : In(stream of tags, always ready), the request of an opened read leaves the card
    timeout : In(32), see `CompletionTimer`
    retired : Out(stream of `retired_read`, always ready)
    memory : Out(stream of `write_request`), data of DMA reads
    fetched : Out(stream of `write_request`, always ready), data of the fetch
    hold : In(1), start no packet
    events : Out(of `READ_EVENTS`), pulses
    read_bytes : Out(BYTE_COUNT_BITS), payload bytes of the good completion that starts in this
        cycle, else 0

    A header costs one beat, the payload one word a cycle (two cycles where a word is wider than
    the read completion boundary and the payload starts in its upper half). A timeout costs a cycle
    between two packets.

    A completion is refused by its header alone, so none of its bytes are written;
    `CompletionChecker` says what then becomes of its read and tag.
    """

    def __init__(self, config: CardConfig, clients: int):
        self._config = config
        self._clients = clients
        opened, retired = opened_read(config, clients), retired_read(config, clients)
        super().__init__(
            {
                "i": In(stream.Signature(packet_beat(config))),
                "opened": In(stream.Signature(opened, always_ready=True)),
                "sent": In(stream.Signature(range(config.dma_tags), always_ready=True)),
                "timeout": In(32),
                "retired": Out(stream.Signature(retired, always_ready=True)),
                "memory": Out(stream.Signature(write_request(config))),
                "fetched": Out(stream.Signature(write_request(config), always_ready=True)),
                "hold": In(1),
                "events": Out(events(READ_EVENTS)),
                "read_bytes": Out(BYTE_COUNT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.timer = timer = CompletionTimer(config.dma_tags)
        m.submodules.table = table = ReadTable(config, self._clients)
        m.submodules.checker = checker = CompletionChecker()
        m.submodules.writer = writer = PayloadWriter(config)
        verdict = checker.verdict
        connect(m, flipped(self.opened), table.opened)
        connect(m, flipped(self.sent), table.sent)
        connect(m, flipped(self.sent), timer.sent)

        # One register stage gives the table its cycle. A timeout takes it between packets.
        beat = Signal(packet_beat(config))
        valid = Signal()
        take = Signal()
        step = Signal()  # a header is judged, or a timeout
        between = Signal(init=1)
        timed_out = Signal()
        load = Signal()
        insert = Signal()
        arriving = CompletionHeader(self.i.p.data[: HEADER_BYTES * 8])
        m.d.comb += [
            timer.watched.eq(table.watched),
            timer.limit.eq(self.timeout),
            insert.eq(timer.expired & between & ~(valid & timed_out)),
            self.i.ready.eq((~valid | take) & ~insert),
            load.eq((~valid | take) & (insert | self.i.valid)),
            table.look_up.p.eq(Mux(insert, timer.tag, arriving.tag)),
            table.look_up.valid.eq(load),
        ]
        with m.If(take):
            m.d.sync += valid.eq(0)
        with m.If(load):
            m.d.sync += [valid.eq(1), timed_out.eq(insert)]
        with m.If(load & ~insert):
            m.d.sync += [beat.eq(self.i.p), between.eq(self.i.p.last)]

        # A header, or a timeout, is judged; a payload goes where its header says.
        m.d.comb += [
            step.eq(valid & (timed_out | (beat.first & ~self.hold))),
            take.eq(step | (writer.i.valid & writer.i.ready)),
            checker.header.eq(beat.data[: HEADER_BYTES * 8]),
            checker.malformed.eq(beat.malformed),
            checker.timeout.eq(timed_out),
            checker.read.eq(table.read),
            table.judged.p.eq(verdict),
            table.judged.valid.eq(step),
            writer.start.eq(step),
            writer.good.eq(verdict.good),
            writer.destination.eq(table.destination),
            writer.bytes.eq(verdict.bytes),
            writer.i.p.eq(beat.data),
            writer.i.valid.eq(valid & ~timed_out & ~beat.first),
            self.read_bytes.eq(Mux(step & verdict.good, verdict.bytes, 0)),
        ]

        # What it means is told with the last beat.
        record = Signal(retired_read(config, self._clients))
        retires = Signal()
        m.d.comb += self.retired.p.eq(record)
        m.d.sync += [self.retired.valid.eq(0), self.events.eq(0)]
        with m.If(step):
            m.d.sync += [
                record.tag.eq(table.tag),
                record.client.eq(table.client),
                record.failure.eq(verdict.failure),
                record.ends.eq(verdict.ends),
                record.frees.eq(verdict.frees),
                record.drains.eq(verdict.drains),
                retires.eq(verdict.ends | verdict.frees),
                self.retired.valid.eq((verdict.ends | verdict.frees) & (timed_out | beat.last)),
                self.events.eq(verdict.event),
            ]
        with m.Elif(take & beat.last):
            m.d.sync += self.retired.valid.eq(retires)

        to_fetch = record.client == self._clients
        m.d.comb += [
            self.memory.p.eq(writer.o.p),
            self.fetched.p.eq(writer.o.p),
            self.memory.valid.eq(writer.o.valid & ~to_fetch),
            self.fetched.valid.eq(writer.o.valid & to_fetch),
            writer.o.ready.eq(to_fetch | self.memory.ready),
        ]
        return m
