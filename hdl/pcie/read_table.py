"""The card's reads by their tags: what each is, how far it is, and what its tag waits for."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.pcie.completion_checker import READ_STATE, VERDICT
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS


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


class ReadTable(wiring.Component):
    """Remembers each read from when it is opened until its tag is free.

    Parameters
    ----------
    clients : int
        DMA clients; client `clients` is the descriptor fetch.

    Members
    -------
    opened : In(stream of `opened_read`, always ready); the tag is free
    sent : In(stream of tags, always ready), the request of an opened read leaves the card
    watched : Out(tags), those that wait for completions, or for time to free them
    look_up : In(stream of the tag of a header, always ready); it is in hand from the next cycle
    tag, client : Out, the tag in hand, the client of its read
    destination : Out(ADDRESS_BITS), card address of the next byte of that read
    read : Out(of `READ_STATE`), of the tag in hand
    judged : In(stream of `VERDICT`, always ready), of the tag in hand, once; the next one may be
        looked up in the same cycle

    A tag that the card does not have is neither open nor quarantined. Nor is one whose request
    leaves while it is in hand or as it is looked up: what came before cannot be the answer.
    """

    def __init__(self, config: CardConfig, clients: int):
        self._config = config
        self._opened = opened = opened_read(config, clients)
        tag = range(config.dma_tags)
        super().__init__(
            {
                "opened": In(stream.Signature(opened, always_ready=True)),
                "sent": In(stream.Signature(tag, always_ready=True)),
                "watched": Out(config.dma_tags),
                "look_up": In(stream.Signature(8, always_ready=True)),
                "tag": Out(tag),
                "client": Out(client_bits(clients)),
                "destination": Out(ADDRESS_BITS),
                "read": Out(READ_STATE),
                "judged": In(stream.Signature(VERDICT, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tags = self._config.dma_tags
        tag_bits = ceil_log2(tags)
        read, verdict = self.read, self.judged.p

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
        # A completion of the read came before; one was poisoned, malformed.
        started, poisoned, malformed = (
            Signal(tags, name=name) for name in ("started", "poisoned", "malformed")
        )
        m.d.comb += [
            read_write.addr.eq(self.opened.p.tag),
            read_write.data.eq(self.opened.p),
            read_write.en.eq(self.opened.valid),
            self.watched.eq(is_open | draining),
        ]
        with m.If(self.judged.valid):
            with m.If(read.open):
                m.d.sync += [
                    started.bit_select(self.tag, 1).eq(1),
                    is_open.bit_select(self.tag, 1).eq(~verdict.ends),
                    quarantined.bit_select(self.tag, 1).eq(verdict.enters),
                    draining.bit_select(self.tag, 1).eq(verdict.drains),
                ]
            with m.If(read.quarantined & verdict.frees):
                m.d.sync += [
                    quarantined.bit_select(self.tag, 1).eq(0),
                    draining.bit_select(self.tag, 1).eq(0),
                ]
            with m.If(verdict.event.malformed_completion):
                m.d.sync += malformed.bit_select(self.tag, 1).eq(1)
            with m.If(verdict.event.poisoned_completion):
                m.d.sync += poisoned.bit_select(self.tag, 1).eq(1)
        with m.If(self.opened.valid):
            m.d.sync += [
                vector.bit_select(self.opened.p.tag, 1).eq(0)
                for vector in (started, poisoned, malformed)
            ]
        with m.If(self.sent.valid):
            m.d.sync += is_open.bit_select(self.sent.p, 1).eq(1)

        # The tag in hand.
        next_tag = Signal(tag_bits)
        alien = Signal()
        premature = Signal()
        known = Signal()  # neither
        begun = Signal()  # `progress` is of this read
        done = Signal(BYTE_COUNT_BITS)
        m.d.comb += [
            next_tag.eq(self.look_up.p),
            read_read.addr.eq(next_tag),
            read_read.en.eq(self.look_up.valid),
            progress_read.addr.eq(next_tag),
            progress_read.en.eq(self.look_up.valid),
            progress_write.addr.eq(self.tag),
            progress_write.data.eq(done + verdict.carried),
            progress_write.en.eq(self.judged.valid & read.open),
            done.eq(Mux(begun, progress_read.data, 0)),
            known.eq(~alien & ~premature),
            read.open.eq(is_open.bit_select(self.tag, 1) & known),
            read.quarantined.eq(quarantined.bit_select(self.tag, 1) & known),
            read.draining.eq(draining.bit_select(self.tag, 1) & read.quarantined),
            read.malformed.eq(malformed.bit_select(self.tag, 1)),
            read.poisoned.eq(poisoned.bit_select(self.tag, 1)),
            read.needed.eq(read_read.data.bytes - done),
            read.lower_address.eq(read_read.data.lower_address + done),
            self.client.eq(read_read.data.client),
            self.destination.eq(read_read.data.destination + done),
        ]
        with m.If(self.sent.valid & (self.sent.p == self.tag)):
            m.d.sync += premature.eq(1)
        with m.If(self.look_up.valid):
            m.d.sync += [
                self.tag.eq(next_tag),
                alien.eq(self.look_up.p >= tags),
                premature.eq(self.sent.valid & (self.sent.p == next_tag)),
                begun.eq(
                    started.bit_select(next_tag, 1)
                    | (self.judged.valid & read.open & (self.tag == next_tag))
                ),
            ]
        return m
