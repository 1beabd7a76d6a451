"""The card's side of PCIe: everything between the two packet streams and the card's blocks."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.once import ResetInserter
from halfdome.hdl.pcie.completer import Completer
from halfdome.hdl.pcie.demux import TlpDemux
from halfdome.hdl.pcie.mux import PacketMux
from halfdome.hdl.pcie.port import (
    READ_EVENTS,
    REQUEST_EVENTS,
    DmaReadPort,
    FetchPort,
    PcieControl,
    PostedWritePort,
)
from halfdome.hdl.pcie.register_bus import RegisterBus
from halfdome.hdl.pcie.replier import READ_QUEUE
from halfdome.hdl.pcie.requester import Requester
from halfdome.hdl.pcie.tlp import (
    BYTE_COUNT_BITS,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    RequestHeader,
    is_non_posted,
    rx_beat,
    tx_beat,
)
from halfdome.hdl.pcie.writer import PostedWriter

NON_POSTED_LATE = 2
"""Non-posted requests that there still is room for when `rx_np_ok` falls."""


class PcieEndpoint(wiring.Component):
    """Connects requests from PCIe to the card, and the card's reads and writes to PCIe.

    Members
    -------
    rx : In(stream of `rx_beat`)
    rx_np_ok : Out(1), non-posted requests may come; after it falls `NON_POSTED_LATE` more may
    tx : Out(stream of `tx_beat`), packets never interleave
    registers : Out(RegisterBus), BAR 0
    window_read, window_write : Out(ReadPort), Out(WritePort), BAR 2
    dma_write : Out(WritePort), data of DMA reads
    dma_reads : In(DmaReadPort), one for each core
    fetch : In(FetchPort)
    posted : In(PostedWritePort), one for each core, then that of the completion writer
    control : In(PcieControl)
    read_bytes : Out(BYTE_COUNT_BITS), payload bytes of card reads whose completion is accepted in
        this cycle
    write_bytes : Out(BYTE_COUNT_BITS), payload bytes of the posted write whose header leaves in
        this cycle

    One payload word a cycle each way; each packet costs one more beat for its header.
    `register_read_latency` cycles from the request's beat being taken at `rx` to the completion's
    header at `tx`.

    It cannot deadlock. What comes needs nothing but memory, if non-posted requests heed `rx_np_ok`:
    those whose answers wait for `tx` stand in a queue of their own, and what comes later passes.
    No packet on `tx`, and no data that a packet has begun to take, ever waits for `rx`.
    `rx.ready` and `rx_np_ok` depend on registers alone.

    While `control.bus_master` is 0 no request leaves but those already offered: reads fail, posted
    writes wait.
    """

    register_read_latency = TlpDemux.latency + Completer.register_read_latency + PacketMux.latency

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "rx": In(stream.Signature(rx_beat(config))),
                "rx_np_ok": Out(1),
                "tx": Out(stream.Signature(tx_beat(config))),
                "registers": Out(RegisterBus()),
                "window_read": Out(ReadPort(config)),
                "window_write": Out(WritePort(config)),
                "dma_write": Out(WritePort(config)),
                "dma_reads": In(DmaReadPort(config)).array(config.cores),
                "fetch": In(FetchPort(config)),
                "posted": In(PostedWritePort(config)).array(config.cores + 1),
                "control": In(PcieControl()),
                "read_bytes": Out(BYTE_COUNT_BITS),
                "write_bytes": Out(BYTE_COUNT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.demux = demux = TlpDemux(config)
        m.submodules.completer = completer = Completer(config)
        requester = Requester(config, config.cores)
        m.submodules.requester = ResetInserter(self.control.reset)(requester)
        writers = [PostedWriter(config) for _ in range(config.cores + 1)]
        m.submodules.mux = mux = PacketMux(tx_beat(config), 2 + len(writers))

        connect(m, flipped(self.rx), demux.rx)
        self._count_non_posted(m, completer.started)
        connect(m, demux.requests, completer.i)
        connect(m, demux.completions, requester.completions)
        connect(m, mux.o, flipped(self.tx))

        connect(m, completer.registers, flipped(self.registers))
        connect(m, completer.window_read, flipped(self.window_read))
        connect(m, completer.window_write, flipped(self.window_write))
        connect(m, completer.o, mux.i[0])

        connect(m, requester.memory, flipped(self.dma_write))
        connect(m, flipped(self.fetch), requester.fetch)
        connect(m, requester.requests, mux.i[1])
        for index in range(config.cores):
            connect(m, flipped(self.dma_reads[index]), requester.reads[index])

        # A read is on its way, and its time runs, once its header is taken from `tx`.
        left = RequestHeader(mux.o.p.data[: HEADER_BYTES * 8])
        m.d.comb += [
            requester.sent.valid.eq(mux.held[1] & self.tx.ready),
            requester.sent.p.eq(left.tag),
        ]

        sent_bytes = Signal(BYTE_COUNT_BITS)
        for index, writer in enumerate(writers):
            m.submodules[f"writer_{index}"] = writer
            connect(m, flipped(self.posted[index]), writer.port)
            connect(m, writer.o, mux.i[2 + index])
            m.d.comb += [
                writer.enable.eq(self.control.bus_master),
                writer.discard.eq(self.control.discard),
                writer.leaving.eq(mux.held[2 + index]),
            ]
            with m.If(writer.sent_bytes != 0):
                m.d.comb += sent_bytes.eq(writer.sent_bytes)

        for source, names in ((completer, REQUEST_EVENTS), (requester, READ_EVENTS)):
            m.d.comb += [self.control.events[name].eq(source.events[name]) for name in names]
        m.d.comb += [
            requester.timeout.eq(self.control.completion_timeout),
            requester.enable.eq(self.control.bus_master),
            self.control.outstanding_reads.eq(requester.outstanding),
            self.control.quarantined_tags.eq(requester.quarantined),
            self.read_bytes.eq(requester.read_bytes),
            self.write_bytes.eq(sent_bytes),
        ]
        return m

    def _count_non_posted(self, m: Module, started: Signal) -> None:
        """Drives `rx_np_ok` from how many non-posted requests have come and have not `started`."""
        inside = Signal()
        comes = Signal()
        # Who does not heed `rx_np_ok` is held up by `rx.ready` once the packet buffer is full too.
        waiting = Signal(range(READ_QUEUE + 2 * MAX_PAYLOAD_BYTES // self._config.bus_bytes + 8))
        header = RequestHeader(self.rx.p.data[: HEADER_BYTES * 8])
        taken = self.rx.valid & self.rx.ready
        m.d.comb += [
            comes.eq(taken & ~inside & is_non_posted(header.type)),
            self.rx_np_ok.eq(waiting < READ_QUEUE - NON_POSTED_LATE),
        ]
        with m.If(taken):
            m.d.sync += inside.eq(~self.rx.p.last)
        m.d.sync += waiting.eq(waiting + comes - started)
