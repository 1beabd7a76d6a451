"""A card between clocks of its PCIe block and of its DRAM controller."""

from amaranth import Cat, DomainRenamer, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer, PulseSynchronizer
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.boards.hard_ip import RX_PAIR, TX_PAIR, PacketsFromCard, PacketsToCard
from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.axi import Axi4
from halfdome.hdl.pcie.tlp import rx_beat, tx_beat

_DEPTH = 16
"""Entries of a queue between two clocks: the synchronisers hide behind four."""
_SETTLED = 3
"""Cycles of the card after which all that a taken request changes is to be seen."""


def _cross(m: Module, name: str, entry: Value, leave: Value, write: str, read: str) -> AsyncFIFO:
    """Makes a queue from domain `write` to `read` whose data are `entry` and `leave`."""
    queue = AsyncFIFO(width=len(entry), depth=_DEPTH, w_domain=write, r_domain=read)
    m.submodules[name] = queue
    m.d.comb += [queue.w_data.eq(entry), leave.eq(queue.r_data)]
    return queue


class PcieCrossing(wiring.Component):
    """From the PCIe block, in domain `pcie`, to a card, in domain `sync`.

    Parameters
    ----------
    config : CardConfig, with `bus_bytes` of a header

    Members
    -------
    block_rx : In(stream of `RX_PAIR`), block_tx : Out(stream of `TX_PAIR`), id : In(16), see
        `PacketsFromCard`; block_np_ok : Out(1); all in `pcie`
    rx : Out(stream of `rx_beat`), tx : In(stream of `tx_beat`), rx_np_ok : In(1), of the card

    While one non-posted request is on its way to the card, the block holds back the others but for
    two that may already follow: as many as a card takes after its `rx_np_ok` fell.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "block_rx": In(stream.Signature(RX_PAIR)),
                "block_tx": Out(stream.Signature(TX_PAIR)),
                "block_np_ok": Out(1),
                "id": In(16),
                "rx": Out(stream.Signature(rx_beat(config))),
                "tx": In(stream.Signature(tx_beat(config))),
                "rx_np_ok": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        inwards, outwards = PacketsToCard(self._config), PacketsFromCard(self._config)
        m.submodules.inwards = DomainRenamer("pcie")(inwards)
        m.submodules.outwards = DomainRenamer("pcie")(outwards)
        connect(m, flipped(self.block_rx), inwards.i)
        connect(m, outwards.o, flipped(self.block_tx))
        m.d.comb += outwards.id.eq(self.id)

        counted = Signal()
        rx = _cross(
            m, "rx_queue", Cat(inwards.o.p, inwards.non_posted), Cat(self.rx.p, counted),
            "pcie", "sync",
        )  # fmt: skip
        tx = _cross(m, "tx_queue", Value.cast(self.tx.p), Value.cast(outwards.i.p), "sync", "pcie")
        m.d.comb += [
            rx.w_en.eq(inwards.o.valid),
            inwards.o.ready.eq(rx.w_rdy),
            self.rx.valid.eq(rx.r_rdy),
            rx.r_en.eq(self.rx.ready),
            tx.w_en.eq(self.tx.valid),
            self.tx.ready.eq(tx.w_rdy),
            outwards.i.valid.eq(tx.r_rdy),
            tx.r_en.eq(outwards.i.ready),
        ]

        # Requests that have not reached the card, or of which its `rx_np_ok` does not tell yet.
        m.submodules.taken = taken = PulseSynchronizer("sync", "pcie")
        m.submodules.room = FFSynchronizer(self.rx_np_ok, room := Signal(), o_domain="pcie")
        late = Signal(_SETTLED)
        under_way = Signal(range(_DEPTH + 1))
        m.d.sync += late.eq(Cat(self.rx.valid & self.rx.ready & counted, late))
        m.d.pcie += under_way.eq(under_way + inwards.non_posted - taken.o)
        m.d.comb += [
            taken.i.eq(late[-1]),
            self.block_np_ok.eq(room & (under_way == 0)),
        ]
        return m


class AxiCrossing(wiring.Component):
    """From a card, in domain `sync`, to its DRAM controller, in domain `dram`.

    Parameters
    ----------
    config : CardConfig
    id_bits : int

    Members
    -------
    card : In(Axi4), dram : Out(Axi4)
    """

    def __init__(self, config: CardConfig, id_bits: int):
        port = Axi4(config, id_bits)
        super().__init__({"card": In(port), "dram": Out(port)})

    def elaborate(self, platform):
        m = Module()
        members = self.card.signature.members
        for channel in ("aw", "w", "ar", "b", "r"):
            names = [
                name
                for name in members
                if name.startswith(channel) and not name.endswith(("valid", "ready"))
            ]
            from_card = channel in ("aw", "w", "ar")
            source, target = (self.card, self.dram) if from_card else (self.dram, self.card)
            domains = ("sync", "dram") if from_card else ("dram", "sync")
            queue = _cross(
                m, channel,
                Cat(getattr(source, name) for name in names),
                Cat(getattr(target, name) for name in names),
                *domains,
            )  # fmt: skip
            m.d.comb += [
                queue.w_en.eq(getattr(source, f"{channel}valid")),
                getattr(source, f"{channel}ready").eq(queue.w_rdy),
                getattr(target, f"{channel}valid").eq(queue.r_rdy),
                queue.r_en.eq(getattr(target, f"{channel}ready")),
            ]
        return m
