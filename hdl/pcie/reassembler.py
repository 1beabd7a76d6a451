"""Completions of the card's reads, in any order, put where their data belongs."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.memory.port import write_request
from halfdome.hdl.pcie.packet_buffer import packet_beat
from halfdome.hdl.pcie.port import READ_EVENTS, events
from halfdome.hdl.pcie.timer import CompletionTimer
from halfdome.hdl.pcie.tlp import (
    BYTE_COUNT_BITS,
    HEADER_BYTES,
    READ_COMPLETION_BOUNDARY,
    CompletionHeader,
    CompletionStatus,
    TlpType,
)


def client_bits(clients: int) -> int:
    """Width of the number of a client: DMA clients, then the fetch."""
    return ceil_log2(clients + 1)


def opened_read(config: CardConfig, clients: int) -> data.StructLayout:
    """A read about to be sent: `lower_address` are the low bits of its bus address."""
    return data.StructLayout(
        {
            "tag": ceil_log2(config.dma_tags),
            "client": client_bits(clients),
            "destination": ADDRESS_BITS,
            "bytes": BYTE_COUNT_BITS,
            "lower_address": 7,
        }
    )


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

    A completion is refused by its header alone, so none of its bytes are written. What then becomes
    of the read and its tag:

    - *poisoned*, or its payload is not as long as it says, but in sequence: the read ends with its
      last completion, failed, since the rest will come;
    - an error status: the read ends and its tag is free, since nothing follows;
    - byte count, lower address or length are not what the read needs next: the read ends. If the
      completion is the last by its own count and by the read's, the tag is free. Otherwise more may
      come: the tag drains, until a completion says that it is the last, or the read times out;
    - none comes in time: the read ends, its tag stays in quarantine until a late completion says
      that it is the last.

    Completions under a tag in quarantine are dropped and counted as late.
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
        bus = config.bus_bytes
        tags = config.dma_tags
        tag_bits = ceil_log2(tags)

        # What a read is, written when it is opened; how far it is, written by its completions.
        m.submodules.reads = reads = Memory(shape=self._opened, depth=1 << tag_bits, init=[])
        m.submodules.progress = progress = Memory(
            shape=BYTE_COUNT_BITS, depth=1 << tag_bits, init=[]
        )
        read_write = reads.write_port()
        read_read = reads.read_port(transparent_for=[read_write])
        progress_write = progress.write_port()
        progress_read = progress.read_port(transparent_for=[progress_write])
        is_open, quarantined, draining = (
            Signal(tags, name=name) for name in ("open", "quarantined", "draining")
        )
        started, poisoned, malformed = (
            Signal(tags, name=name) for name in ("started", "poisoned", "malformed")
        )
        m.submodules.timer = timer = CompletionTimer(tags)
        m.d.comb += [
            timer.sent.p.eq(self.sent.p),
            timer.sent.valid.eq(self.sent.valid),
            timer.watched.eq(is_open | draining),
            timer.limit.eq(self.timeout),
        ]

        # One register stage gives the memories their cycle. A timeout takes it between packets.
        beat = Signal(packet_beat(config))
        tag = Signal(tag_bits)
        valid = Signal()
        take = Signal()
        step = Signal()  # a header is judged, or a timeout
        mine = Signal()  # it is of an open read
        between = Signal(init=1)
        timed_out = Signal()
        load = Signal()
        insert = Signal()
        alien = Signal()
        premature = Signal()
        begun = Signal()  # a completion of its read came before
        arriving = CompletionHeader(self.i.p.data[: HEADER_BYTES * 8])
        arriving_tag = Signal(tag_bits)
        header = CompletionHeader(beat.data[: HEADER_BYTES * 8])
        m.d.comb += [
            insert.eq(timer.expired & between & ~(valid & timed_out)),
            self.i.ready.eq((~valid | take) & ~insert),
            load.eq((~valid | take) & (insert | self.i.valid)),
            arriving_tag.eq(Mux(insert, timer.tag, arriving.tag)),
            read_read.addr.eq(arriving_tag),
            read_read.en.eq(load),
            progress_read.addr.eq(arriving_tag),
            progress_read.en.eq(load),
        ]
        with m.If(take):
            m.d.sync += valid.eq(0)
        # What waits here when its tag's request leaves cannot be the answer.
        with m.If(self.sent.valid & (self.sent.p == tag)):
            m.d.sync += premature.eq(1)
        with m.If(load):
            m.d.sync += [
                valid.eq(1),
                timed_out.eq(insert),
                tag.eq(arriving_tag),
                alien.eq(~insert & (arriving.tag >= tags)),
                premature.eq(self.sent.valid & (self.sent.p == arriving_tag)),
                begun.eq(
                    started.bit_select(arriving_tag, 1) | (step & mine & (tag == arriving_tag))
                ),
            ]
        with m.If(load & ~insert):
            m.d.sync += [beat.eq(self.i.p), between.eq(self.i.p.last)]

        # The header against what its read still needs.
        done, needed, carried, announced = (
            Signal(BYTE_COUNT_BITS, name=name)
            for name in ("done", "needed", "carried", "announced")
        )
        lower_address = Signal(7)
        end_offset = Signal(exact_log2(READ_COMPLETION_BOUNDARY))
        excess = Signal(14)
        late = Signal()
        drains = Signal()
        final, last, in_sequence, successful, good = (
            Signal(name=name) for name in ("final", "last", "in_sequence", "successful", "good")
        )
        with_data = header.type == TlpType.COMPLETION_DATA
        m.d.comb += [
            mine.eq(is_open.bit_select(tag, 1) & ~alien & ~premature),
            late.eq(quarantined.bit_select(tag, 1) & ~alien & ~premature),
            drains.eq(draining.bit_select(tag, 1) & late),
            done.eq(Mux(begun, progress_read.data, 0)),
            needed.eq(read_read.data.bytes - done),
            carried.eq(Mux(header.length == 0, 1 << 12, header.length << 2)),
            announced.eq(Mux(header.byte_count == 0, 1 << 12, header.byte_count)),
            lower_address.eq(read_read.data.lower_address + done),
            end_offset.eq(lower_address + carried),
            excess.eq(carried - needed),
            final.eq(~excess[13]),
            last.eq(with_data & (announced <= carried)),
            successful.eq(header.status == CompletionStatus.SUCCESSFUL),
            in_sequence.eq(
                with_data
                & successful
                & (announced == needed)
                & (header.lower_address == lower_address)
                & Mux(final, excess < 4, end_offset == 0)
            ),
            good.eq(mine & in_sequence & ~header.poisoned & ~beat.malformed & ~timed_out),
        ]

        # What that means for the read and for its tag.
        packet = Signal(retired_read(config, self._clients))
        writing = Signal()
        ends, frees, enters = (Signal(name=name) for name in ("ends", "frees", "enters"))
        failure = Signal(ReadFailure)
        m.d.comb += [
            step.eq(valid & (timed_out | (beat.first & ~self.hold))),
            ends.eq(mine & (timed_out | final | ~in_sequence)),
            enters.eq(ends & (timed_out | (successful & ~(last & final)))),
            frees.eq((ends & ~enters) | (late & Mux(timed_out, drains, ~successful | last))),
        ]
        bad = Signal(events(READ_EVENTS))  # which of them this is, if any
        with m.If(timed_out):
            m.d.comb += [bad.completion_timeout.eq(mine), failure.eq(ReadFailure.TIMED_OUT)]
        with m.Elif(late):
            m.d.comb += bad.late_completion.eq(1)
        with m.Elif(~mine):
            m.d.comb += bad.unexpected_completion.eq(1)
        with m.Elif(~successful):
            m.d.comb += [
                bad.unsuccessful_completion.eq(1),
                failure.eq(ReadFailure.UNSUCCESSFUL),
            ]
        with m.Else():
            m.d.comb += [
                bad.malformed_completion.eq(beat.malformed | ~in_sequence),
                bad.poisoned_completion.eq(header.poisoned & ~bad.malformed_completion),
            ]
            with m.If(malformed.bit_select(tag, 1) | bad.malformed_completion):
                m.d.comb += failure.eq(ReadFailure.MALFORMED)
            with m.Elif(poisoned.bit_select(tag, 1) | bad.poisoned_completion):
                m.d.comb += failure.eq(ReadFailure.POISONED)

        address = Signal(ADDRESS_BITS)
        left = Signal(BYTE_COUNT_BITS)
        half_bits = max(0, exact_log2(bus) - exact_log2(READ_COMPLETION_BOUNDARY))
        upper = Signal()  # payload starts in the upper half of a word
        retires = Signal()
        m.d.comb += [
            progress_write.addr.eq(tag),
            progress_write.data.eq(done + carried),
            self.retired.p.eq(packet),
        ]
        m.d.sync += [self.retired.valid.eq(0), self.events.eq(0)]
        with m.If(step):
            m.d.comb += [take.eq(1), progress_write.en.eq(mine)]
            m.d.sync += [
                packet.tag.eq(tag),
                packet.client.eq(read_read.data.client),
                packet.failure.eq(failure),
                packet.ends.eq(ends),
                packet.frees.eq(frees),
                packet.drains.eq(Mux(late, drains, enters & ~timed_out)),
                retires.eq(ends | frees),
                self.retired.valid.eq((ends | frees) & (timed_out | beat.last)),
                self.events.eq(bad),
                writing.eq(good),
                address.eq(read_read.data.destination + done),
                left.eq(Mux(final, needed, carried)),
                upper.eq(lower_address[6] if half_bits else 0),
            ]
            with m.If(mine):
                m.d.sync += [
                    started.bit_select(tag, 1).eq(1),
                    is_open.bit_select(tag, 1).eq(~ends),
                    quarantined.bit_select(tag, 1).eq(enters),
                    draining.bit_select(tag, 1).eq(enters & ~timed_out),
                ]
            with m.If(late & frees):
                m.d.sync += [
                    quarantined.bit_select(tag, 1).eq(0),
                    draining.bit_select(tag, 1).eq(0),
                ]
            with m.If(bad.malformed_completion):
                m.d.sync += malformed.bit_select(tag, 1).eq(1)
            with m.If(bad.poisoned_completion):
                m.d.sync += poisoned.bit_select(tag, 1).eq(1)
            with m.If(good):
                m.d.comb += self.read_bytes.eq(Mux(final, needed, carried))
        payload = Signal()
        accepted = Signal()
        word_done = Signal()
        m.d.comb += payload.eq(valid & ~timed_out & ~beat.first)
        with m.If(payload & (accepted | ~writing)):
            m.d.comb += take.eq(word_done | ~writing)
            with m.If(word_done):
                m.d.sync += [address.eq(address + bus), left.eq(left - bus)]
            with m.If(take & beat.last):
                m.d.sync += self.retired.valid.eq(retires)

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
            second_half = Signal()
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

        to_fetch = packet.client == self._clients
        m.d.comb += [
            self.memory.p.eq(write),
            self.fetched.p.eq(write),
            self.memory.valid.eq(payload & writing & ~to_fetch),
            self.fetched.valid.eq(payload & writing & to_fetch),
            accepted.eq(payload & writing & (to_fetch | self.memory.ready)),
        ]

        m.d.comb += [
            read_write.addr.eq(self.opened.p.tag),
            read_write.data.eq(self.opened.p),
            read_write.en.eq(self.opened.valid),
        ]
        with m.If(self.opened.valid):
            m.d.sync += [
                vector.bit_select(self.opened.p.tag, 1).eq(0)
                for vector in (started, poisoned, malformed)
            ]
        with m.If(self.sent.valid):
            m.d.sync += is_open.bit_select(self.sent.p, 1).eq(1)
        return m
