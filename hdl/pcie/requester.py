"""The card's own reads: DMA into card memory and descriptor fetches."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hdl.config import CardConfig
from hdl.memory.port import WritePort
from hdl.pcie.fetch_buffer import FetchBuffer
from hdl.pcie.mux import PacketMux
from hdl.pcie.packet_buffer import packet_beat
from hdl.pcie.port import DmaReadPort, FetchPort
from hdl.pcie.reassembler import FETCH_TAG, Reassembler
from hdl.pcie.splitter import Splitter, piece
from hdl.pcie.tlp import RequestHeader, drive_memory_request, tx_beat


class Requester(wiring.Component):
    """Sends read requests for its clients and brings the data of their completions in.

    Parameters
    ----------
    clients : int
        DMA clients; they share tags 1 and up in turn, request by request on the link.

    Members
    -------
    reads : In(DmaReadPort), array of `clients`
    fetch : In(FetchPort), on tag 0, ahead of DMA reads
    completions : In(stream of `packet_beat`)
    requests : Out(stream of `tx_beat`)
    memory : Out(WritePort), data of DMA reads
    unexpected_completion : Out(1), pulse
    read_bytes : Out(13), see `Reassembler`

    `request_latency` cycles from a DMA read being taken to its first request on the link; then a
    request a cycle while tags are free. Completions never wait for `requests` or for a client.

    When a client has all its data accepted but not yet visible, no further packet is written until
    the memory is idle: otherwise one client's traffic could keep another from ever being idle.
    """

    request_latency = Splitter.latency + PacketMux.latency + 1

    def __init__(self, config: CardConfig, clients: int):
        self._config = config
        self._clients = clients
        super().__init__(
            {
                "reads": In(DmaReadPort(config)).array(clients),
                "fetch": In(FetchPort(config)),
                "completions": In(stream.Signature(packet_beat(config))),
                "requests": Out(stream.Signature(tx_beat(config))),
                "memory": Out(WritePort(config)),
                "unexpected_completion": Out(1),
                "read_bytes": Out(13),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        tags = config.dma_tags
        m.submodules.pieces = pieces = PacketMux(piece(config), self._clients)
        m.submodules.fetcher = fetcher = FetchBuffer(config)
        m.submodules.reassembler = reassembler = Reassembler(config, self._clients)
        connect(m, flipped(self.fetch), fetcher.port)
        connect(m, flipped(self.completions), reassembler.i)
        connect(m, reassembler.memory, flipped(self.memory.request))
        connect(m, reassembler.fetched, fetcher.write)
        opened, retired = reassembler.opened, reassembler.retired
        m.d.comb += [
            fetcher.done.eq(retired.valid & (retired.p.tag == FETCH_TAG)),
            fetcher.failed.eq(retired.p.failed),
            self.unexpected_completion.eq(reassembler.unexpected_completion),
            self.read_bytes.eq(reassembler.read_bytes),
        ]

        # Tags never used yet come from a counter, so that the queue can start empty.
        m.submodules.free_tags = free_tags = SyncFIFOBuffered(width=ceil_log2(tags), depth=tags)
        fresh_tag = Signal(range(tags + 1), init=FETCH_TAG + 1)
        fresh = Signal()
        tag_free = Signal()
        m.d.comb += [
            fresh.eq(fresh_tag != tags),
            tag_free.eq(fresh | free_tags.r_rdy),
            free_tags.w_data.eq(retired.p.tag),
            free_tags.w_en.eq(retired.valid & (retired.p.tag != FETCH_TAG)),
        ]

        # One request header a cycle; the fetch goes first.
        room = Signal()
        fetching = Signal()
        send = Signal()
        header = Signal(RequestHeader)
        m.d.comb += [
            room.eq(~self.requests.valid | self.requests.ready),
            fetching.eq(fetcher.request.valid),
            send.eq(room & (fetching | (pieces.o.valid & tag_free))),
            fetcher.request.ready.eq(room),
            pieces.o.ready.eq(room & ~fetching & tag_free),
            free_tags.r_en.eq(pieces.o.valid & pieces.o.ready & ~fresh),
            opened.valid.eq(send),
            opened.p.client.eq(pieces.source),
            opened.p.tag.eq(Mux(fresh, fresh_tag, free_tags.r_data)),
            opened.p.destination.eq(pieces.o.p.destination),
            opened.p.bytes.eq(pieces.o.p.bytes),
            opened.p.lower_address.eq(pieces.o.p.address),
        ]
        with m.If(fetching):
            m.d.comb += [
                opened.p.tag.eq(FETCH_TAG),
                opened.p.destination.eq(0),
                opened.p.bytes.eq(fetcher.request.p.bytes),
                opened.p.lower_address.eq(fetcher.request.p.address),
            ]
        m.d.comb += drive_memory_request(
            header,
            write=False,
            address=Mux(fetching, fetcher.request.p.address, pieces.o.p.address),
            size=opened.p.bytes,
            tag=opened.p.tag,
        )
        with m.If(room):
            m.d.sync += [
                self.requests.valid.eq(send),
                self.requests.p.data.eq(header),
                self.requests.p.last.eq(1),
            ]
        with m.If(pieces.o.valid & pieces.o.ready & fresh):
            m.d.sync += fresh_tag.eq(fresh_tag + 1)

        settling = Signal(self._clients)
        for index in range(self._clients):
            port = self.reads[index]
            splitter = Splitter(config, config.max_read_request_bytes)
            m.submodules[f"splitter_{index}"] = splitter
            connect(m, flipped(port.request), splitter.i)
            m.d.comb += [
                pieces.i[index].p.eq(splitter.o.p),
                pieces.i[index].p.last.eq(1),  # clients alternate by piece
                pieces.i[index].valid.eq(splitter.o.valid),
                splitter.o.ready.eq(pieces.i[index].ready),
            ]

            active, failed = Signal(name=f"active_{index}"), Signal(name=f"failed_{index}")
            in_flight = Signal(range(tags), name=f"in_flight_{index}")
            starts, ends = Signal(name=f"starts_{index}"), Signal(name=f"ends_{index}")
            m.d.comb += [
                starts.eq(pieces.o.valid & pieces.o.ready & (pieces.source == index)),
                ends.eq(retired.valid & (retired.p.tag != FETCH_TAG) & (retired.p.client == index)),
                settling[index].eq(active & splitter.idle & ~pieces.held[index] & (in_flight == 0)),
                port.idle.eq(~active),
                port.failed.eq(failed),
            ]
            m.d.sync += in_flight.eq(in_flight + starts - ends)
            with m.If(settling[index] & self.memory.idle):
                m.d.sync += active.eq(0)
            with m.If(ends & retired.p.failed):
                m.d.sync += failed.eq(1)
            with m.If(port.request.valid & port.request.ready):
                m.d.sync += active.eq(1)
                with m.If(~active):
                    m.d.sync += failed.eq(0)
        m.d.comb += reassembler.hold.eq(settling.any() & ~self.memory.idle)
        return m
