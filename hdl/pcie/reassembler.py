"""Completions of the card's reads, in any order, put where their data belongs."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hdl.config import ADDRESS_BITS, CardConfig
from hdl.memory.port import write_request
from hdl.pcie.packet_buffer import packet_beat
from hdl.pcie.tlp import (
    HEADER_BYTES,
    READ_COMPLETION_BOUNDARY,
    CompletionHeader,
    CompletionStatus,
    TlpType,
)

FETCH_TAG = 0
"""The tag of descriptor fetches; every other tag is a DMA read."""


def client_bits(clients: int) -> int:
    """Width of the number of a DMA client."""
    return max(1, ceil_log2(clients))


def opened_read(config: CardConfig, clients: int) -> data.StructLayout:
    """A read that was sent: `lower_address` are the low bits of its bus address."""
    return data.StructLayout(
        {
            "tag": ceil_log2(config.dma_tags),
            "client": client_bits(clients),
            "destination": ADDRESS_BITS,
            "bytes": 13,
            "lower_address": 7,
        }
    )


def retired_read(config: CardConfig, clients: int) -> data.StructLayout:
    """A read that is over: its last write was accepted, or it failed."""
    return data.StructLayout(
        {"tag": ceil_log2(config.dma_tags), "client": client_bits(clients), "failed": 1}
    )


class Reassembler(wiring.Component):
    """Writes the payload of each completion to its read's destination plus what came before.

    Members
    -------
    i : In(stream of `packet_beat`), completions
    opened : In(stream of `opened_read`, always ready); the tag is not open
    retired : Out(stream of `retired_read`, always ready)
    memory : Out(stream of `write_request`), data of DMA reads
    fetched : Out(stream of `write_request`, always ready), data of `FETCH_TAG`
    hold : In(1), start no packet
    unexpected_completion : Out(1), pulse: a completion whose tag is not open
    read_bytes : Out(13), payload bytes of the good completion that starts in this cycle, else 0

    A header costs one beat, the payload one word a cycle (two cycles where a word is wider than
    the read completion boundary and the payload starts in its upper half).

    A completion is refused by its header alone, so none of its bytes are written: an error status,
    poison, a payload of another length than announced, or a byte count, length or lower address
    other than what the read still needs. A poisoned or mis-sized completion that is otherwise in
    sequence keeps its tag open until the read's last completion, since the rest will come; any
    other ends the read at once. Only `opened` and the end of a read change which tags are open, so
    a timeout would enter here as one more way to end it.
    """

    def __init__(self, config: CardConfig, clients: int):
        self._config = config
        self._clients = clients
        opened, retired = opened_read(config, clients), retired_read(config, clients)
        self._opened = opened
        super().__init__(
            {
                "i": In(stream.Signature(packet_beat(config))),
                "opened": In(stream.Signature(opened, always_ready=True)),
                "retired": Out(stream.Signature(retired, always_ready=True)),
                "memory": Out(stream.Signature(write_request(config))),
                "fetched": Out(stream.Signature(write_request(config), always_ready=True)),
                "hold": In(1),
                "unexpected_completion": Out(1),
                "read_bytes": Out(13),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        bus = config.bus_bytes
        tags = config.dma_tags
        tag_bits = ceil_log2(tags)

        # What a read is, written when it is sent; how far it is, written by its completions.
        m.submodules.reads = reads = Memory(shape=self._opened, depth=tags, init=[])
        m.submodules.progress = progress = Memory(shape=13, depth=tags, init=[])
        read_write = reads.write_port()
        read_read = reads.read_port(transparent_for=[read_write])
        progress_write = progress.write_port()
        progress_read = progress.read_port(transparent_for=[progress_write])
        is_open, started, spoiled = (Signal(tags, name=n) for n in ("open", "started", "spoiled"))

        # One register stage gives the memories their cycle.
        beat = Signal(packet_beat(config))
        valid = Signal()
        take = Signal()
        arriving = CompletionHeader(self.i.p.data[: HEADER_BYTES * 8])
        header = CompletionHeader(beat.data[: HEADER_BYTES * 8])
        tag = header.tag[:tag_bits]
        load = Signal()
        m.d.comb += [
            self.i.ready.eq(~valid | take),
            load.eq(self.i.valid & self.i.ready),
            read_read.addr.eq(arriving.tag),
            read_read.en.eq(load),
            progress_read.addr.eq(arriving.tag),
            progress_read.en.eq(load),
        ]
        with m.If(take):
            m.d.sync += valid.eq(0)
        # A tag opened while a completion waits here is opened for another read than it answers.
        premature = Signal()
        with m.If(self.opened.valid & (self.opened.p.tag == tag)):
            m.d.sync += premature.eq(1)
        with m.If(load):
            m.d.sync += [valid.eq(1), beat.eq(self.i.p), premature.eq(0)]

        # The header against what its read still needs.
        done = Signal(13)
        needed = Signal(13)
        carried = Signal(13)
        final, in_sequence, good, ends, known = (
            Signal(name=n) for n in ("final", "in_sequence", "good", "ends", "known")
        )
        lower_address = Signal(7)
        end_offset = Signal(exact_log2(READ_COMPLETION_BOUNDARY))
        excess = Signal(14)
        m.d.comb += [
            done.eq(Mux(started.bit_select(tag, 1), progress_read.data, 0)),
            needed.eq(read_read.data.bytes - done),
            carried.eq(Mux(header.length == 0, 1 << 12, header.length << 2)),
            lower_address.eq(read_read.data.lower_address + done),
            end_offset.eq(lower_address + carried),
            excess.eq(carried - needed),
            final.eq(~excess[13]),
            known.eq(is_open.bit_select(tag, 1) & (header.tag < tags) & ~premature),
            in_sequence.eq(
                (header.type == TlpType.COMPLETION_DATA)
                & (header.status == CompletionStatus.SUCCESSFUL)
                & (Mux(header.byte_count == 0, 1 << 12, header.byte_count) == needed)
                & (header.lower_address == lower_address)
                & Mux(final, excess < 4, end_offset == 0)
            ),
            good.eq(known & in_sequence & ~header.poisoned & ~beat.malformed),
            ends.eq(final | ~in_sequence),
        ]

        # The packet whose payload follows.
        packet = Signal(retired_read(config, self._clients))
        writing = Signal()
        ending = Signal()
        address = Signal(ADDRESS_BITS)
        left = Signal(13)
        half_bits = max(0, exact_log2(bus) - exact_log2(READ_COMPLETION_BOUNDARY))
        upper = Signal()  # payload starts in the upper half of a word
        second_half = Signal()
        accepted = Signal()
        word_done = Signal()

        m.d.comb += progress_write.addr.eq(tag)
        m.d.comb += progress_write.data.eq(done + carried)
        m.d.sync += self.retired.valid.eq(0)
        m.d.comb += self.retired.p.eq(packet)
        with m.If(valid & beat.first & ~self.hold):
            m.d.comb += [take.eq(1), progress_write.en.eq(known)]
            m.d.sync += [
                packet.tag.eq(tag),
                packet.client.eq(read_read.data.client),
                packet.failed.eq(~good | spoiled.bit_select(tag, 1)),
                writing.eq(good),
                ending.eq(known & ends),
                address.eq(read_read.data.destination + done),
                left.eq(Mux(final, needed, carried)),
                upper.eq(lower_address[6] if half_bits else 0),
            ]
            with m.If(known):
                m.d.sync += [
                    started.bit_select(tag, 1).eq(1),
                    is_open.bit_select(tag, 1).eq(~ends),
                    spoiled.bit_select(tag, 1).eq(spoiled.bit_select(tag, 1) | ~good),
                    self.retired.valid.eq(ends & beat.last),
                ]
            with m.Else():
                m.d.comb += self.unexpected_completion.eq(1)
            with m.If(good):
                m.d.comb += self.read_bytes.eq(Mux(final, needed, carried))
        with m.If(valid & ~beat.first & (accepted | ~writing)):
            m.d.comb += take.eq(word_done | ~writing)
            with m.If(word_done):
                m.d.sync += [address.eq(address + bus), left.eq(left - bus)]
            with m.If(take & beat.last):
                m.d.sync += self.retired.valid.eq(ending)

        write = Signal(write_request(config))
        strobe = Cat(left > byte for byte in range(bus))
        word_bits = exact_log2(bus)
        m.d.comb += [
            write.address.eq(address[word_bits:] << word_bits),
            write.data.eq(beat.data),
            write.strobe.eq(strobe),
            word_done.eq(1),
        ]
        if half_bits:
            half = bus // 2
            with m.If(upper):
                m.d.comb += [
                    write.data.eq(Cat(beat.data[half * 8 :], beat.data[: half * 8])),
                    write.strobe.eq(strobe[:half] << half),
                    word_done.eq(~strobe[half]),
                ]
                with m.If(second_half):
                    m.d.comb += [
                        write.address.eq((address[word_bits:] + 1) << word_bits),
                        write.strobe.eq(strobe[half:]),
                        word_done.eq(1),
                    ]
            with m.If(accepted):
                m.d.sync += second_half.eq(~word_done)

        payload = valid & ~beat.first & writing
        to_fetch = packet.tag == FETCH_TAG
        m.d.comb += [
            self.memory.p.eq(write),
            self.fetched.p.eq(write),
            self.memory.valid.eq(payload & ~to_fetch),
            self.fetched.valid.eq(payload & to_fetch),
            accepted.eq(payload & (to_fetch | self.memory.ready)),
        ]

        m.d.comb += [
            read_write.addr.eq(self.opened.p.tag),
            read_write.data.eq(self.opened.p),
            read_write.en.eq(self.opened.valid),
        ]
        with m.If(self.opened.valid):
            m.d.sync += [
                is_open.bit_select(self.opened.p.tag, 1).eq(1),
                started.bit_select(self.opened.p.tag, 1).eq(0),
                spoiled.bit_select(self.opened.p.tag, 1).eq(0),
            ]
        return m
