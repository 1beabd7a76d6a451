"""The card's own reads: DMA into card memory and descriptor fetches."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import WritePort
from halfdome.hdl.pcie.fetch_buffer import FetchBuffer
from halfdome.hdl.pcie.mux import PacketMux
from halfdome.hdl.pcie.packet_buffer import packet_beat
from halfdome.hdl.pcie.port import READ_EVENTS, DmaReadPort, FetchPort, events
from halfdome.hdl.pcie.reassembler import Reassembler
from halfdome.hdl.pcie.splitter import Splitter, piece
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS, RequestHeader, drive_memory_request, tx_beat


class Requester(wiring.Component):
    """Sends read requests for its clients and brings the data of their completions in.

    Parameters
    ----------
    clients : int
        DMA clients; they take turns, request by request on the link.

    Members
    -------
    reads : In(DmaReadPort), array of `clients`
    fetch : In(FetchPort), ahead of DMA reads
    completions : In(stream of `packet_beat`)
    requests : Out(stream of `tx_beat`)
    sent : In(stream of tags, always ready), a request leaves the card
    memory : Out(WritePort), data of DMA reads
    timeout : In(32), cycles from there to the read's failure, 0 for never
    enable : In(1), reads may be sent; without it they fail
    events, read_bytes : see `Reassembler`
    outstanding, quarantined : Out(9), tags in flight and in quarantine; the others are free

    `request_latency` cycles from a DMA read being taken to its first request on the link; then a
    request a cycle while tags are free. Completions never wait for `requests` or for a client.

    A tag in quarantine is not given out. DMA reads leave the last tag to the fetch. A read fails at
    once if its tag cannot come: none is in flight, and none comes back from quarantine by itself.
    Once a read failed, its client's other reads are not sent until the client was idle.

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
                "sent": In(stream.Signature(range(config.dma_tags), always_ready=True)),
                "memory": Out(WritePort(config)),
                "timeout": In(32),
                "enable": In(1),
                "events": Out(events(READ_EVENTS)),
                "read_bytes": Out(BYTE_COUNT_BITS),
                "outstanding": Out(9),
                "quarantined": Out(9),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        clients = self._clients
        m.submodules.pieces = pieces = PacketMux(piece(config), clients)
        m.submodules.fetcher = fetcher = FetchBuffer(config)
        m.submodules.reassembler = reassembler = Reassembler(config, clients)
        connect(m, flipped(self.fetch), fetcher.port)
        connect(m, flipped(self.completions), reassembler.i)
        connect(m, flipped(self.sent), reassembler.sent)
        connect(m, reassembler.memory, flipped(self.memory.request))
        connect(m, reassembler.fetched, fetcher.write)
        opened, retired = reassembler.opened, reassembler.retired
        fetched = Signal()
        m.d.comb += [
            reassembler.timeout.eq(self.timeout),
            self.events.eq(reassembler.events),
            self.read_bytes.eq(reassembler.read_bytes),
            fetched.eq(retired.valid & retired.p.ends & (retired.p.client == clients)),
        ]
        tag, tag_free, free, hopeless = self._tags(m, opened, retired)

        # One request header a cycle; the fetch goes first, and has a tag kept for it.
        room = Signal()
        fetching = Signal()
        fetch_open = Signal()
        fetch_goes = Signal()
        dma_goes = Signal()
        fetch_refused = Signal()
        dma_refused = Signal()
        refused = Signal()
        doomed = Signal()  # the client in turn has failed already
        failures = [Signal(ReadFailure, name=f"failure_{index}") for index in range(clients)]
        with m.Switch(pieces.source):
            for index, failure in enumerate(failures):
                with m.Case(index):
                    m.d.comb += doomed.eq(failure != ReadFailure.NONE)
        enough = (free > 1) | fetch_open
        m.d.comb += [
            room.eq(~self.requests.valid | self.requests.ready),
            fetching.eq(fetcher.request.valid),
            fetch_goes.eq(fetching & room & tag_free & self.enable),
            dma_goes.eq(
                pieces.o.valid & ~fetching & room & tag_free & enough & ~doomed & self.enable
            ),
            fetch_refused.eq(fetching & (~self.enable | (hopeless & (free == 0)))),
            dma_refused.eq(pieces.o.valid & (doomed | ~self.enable | (hopeless & ~enough))),
            fetcher.request.ready.eq(fetch_goes | fetch_refused),
            fetcher.done.eq(fetched | refused),
            fetcher.failed.eq(refused | (retired.p.failure != ReadFailure.NONE)),
            pieces.o.ready.eq(dma_goes | dma_refused),
        ]
        m.d.sync += refused.eq(fetch_refused)
        with m.If(fetched):
            m.d.sync += fetch_open.eq(0)
        with m.If(fetch_goes):
            m.d.sync += fetch_open.eq(1)

        header = Signal(RequestHeader)
        m.d.comb += [
            opened.valid.eq(fetch_goes | dma_goes),
            opened.p.tag.eq(tag),
            opened.p.client.eq(pieces.source),
            opened.p.destination.eq(pieces.o.p.destination),
            opened.p.bytes.eq(pieces.o.p.bytes),
            opened.p.lower_address.eq(pieces.o.p.address),
        ]
        with m.If(fetching):
            m.d.comb += [
                opened.p.client.eq(clients),
                opened.p.destination.eq(0),
                opened.p.bytes.eq(fetcher.request.p.bytes),
                opened.p.lower_address.eq(fetcher.request.p.address),
            ]
        m.d.comb += drive_memory_request(
            header,
            write=False,
            address=Mux(fetching, fetcher.request.p.address, pieces.o.p.address),
            size=opened.p.bytes,
            tag=tag,
        )
        with m.If(room):
            m.d.sync += [
                self.requests.valid.eq(opened.valid),
                self.requests.p.data.eq(header),
                self.requests.p.last.eq(1),
            ]

        settling = Signal(clients)
        for index, failure in enumerate(failures):
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

            active = Signal(name=f"active_{index}")
            in_flight = Signal(range(config.dma_tags + 1), name=f"in_flight_{index}")
            in_turn, starts, ends = (
                Signal(name=f"{name}_{index}") for name in ("in_turn", "starts", "ends")
            )
            m.d.comb += [
                in_turn.eq(pieces.source == index),
                starts.eq(dma_goes & in_turn),
                ends.eq(retired.valid & retired.p.ends & (retired.p.client == index)),
                settling[index].eq(active & splitter.idle & ~pieces.held[index] & (in_flight == 0)),
                port.idle.eq(~active),
                port.failure.eq(failure),
            ]
            m.d.sync += in_flight.eq(in_flight + starts - ends)
            with m.If(settling[index] & self.memory.idle):
                m.d.sync += active.eq(0)
            with m.If(~doomed & dma_refused & in_turn):
                m.d.sync += failure.eq(
                    Mux(self.enable, ReadFailure.NO_TAG, ReadFailure.NOT_BUS_MASTER)
                )
            with m.If(ends & (failure == ReadFailure.NONE)):
                m.d.sync += failure.eq(retired.p.failure)
            with m.If(port.request.valid & port.request.ready):
                m.d.sync += active.eq(1)
                with m.If(~active):
                    m.d.sync += failure.eq(ReadFailure.NONE)
        m.d.comb += reassembler.hold.eq(settling.any() & ~self.memory.idle)
        return m

    def _tags(self, m: Module, opened, retired):
        """Keeps account of tags: (the next one, it is here, how many are free, no more will be)."""
        tags = self._config.dma_tags
        # Tags never used yet come from a counter, so that the queue can start empty.
        m.submodules.free_tags = queue = SyncFIFOBuffered(width=ceil_log2(tags), depth=tags)
        fresh_tag = Signal(range(tags + 1))
        fresh = Signal()
        free = Signal(range(tags + 1), init=tags)
        draining = Signal(range(tags + 1))
        tag = Signal(ceil_log2(tags))
        tag_free = Signal()
        hopeless = Signal()
        frees, enters, leaves, drains = (
            Signal(name=name) for name in ("frees", "enters", "leaves", "drains")
        )
        m.d.comb += [
            fresh.eq(fresh_tag != tags),
            tag.eq(Mux(fresh, fresh_tag, queue.r_data)),
            tag_free.eq(fresh | queue.r_rdy),
            hopeless.eq((self.outstanding == 0) & ((draining == 0) | (self.timeout == 0))),
            queue.r_en.eq(opened.valid & ~fresh),
            queue.w_data.eq(retired.p.tag),
            queue.w_en.eq(frees),
            frees.eq(retired.valid & retired.p.frees),
            enters.eq(retired.valid & retired.p.ends & ~retired.p.frees),
            leaves.eq(retired.valid & ~retired.p.ends & retired.p.frees),
            drains.eq(retired.p.drains),
        ]
        m.d.sync += [
            free.eq(free - opened.valid + frees),
            self.outstanding.eq(self.outstanding + opened.valid - (retired.valid & retired.p.ends)),
            self.quarantined.eq(self.quarantined + enters - leaves),
            draining.eq(draining + (enters & drains) - (leaves & drains)),
        ]
        with m.If(opened.valid & fresh):
            m.d.sync += fresh_tag.eq(fresh_tag + 1)
        return tag, tag_free, free, hopeless
