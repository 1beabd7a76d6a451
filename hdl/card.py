"""The card: everything between two packet streams and card DRAM."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from halfdome.hdl.config import CardConfig
from halfdome.hdl.core import Core
from halfdome.hdl.once import Once
from halfdome.hdl.uncore import Uncore

_PORTS = ("rx", "rx_np_ok", "tx", "axi")


class Card(wiring.Component):
    """One accelerator card, whole. Clock and reset are those of the domain `sync`.

    Its ports sit where the user side of a PCIe hard IP and of a DRAM controller would sit.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    rx : In(stream of `rx_beat`), packets to the card
    rx_np_ok : Out(1), the card has room for non-posted requests; hold them back while it is low,
        and let others pass
    tx : Out(stream of `tx_beat`), packets from the card
    axi : Out(Axi4), card DRAM
    """

    idle_period = Uncore.idle_period

    def __init__(self, config: CardConfig):
        self._config = config
        self._uncore = Uncore(config)
        members = self._uncore.signature.members
        super().__init__({name: members[name] for name in _PORTS})

    def elaborate(self, platform):
        m = Module()
        m.submodules.uncore = uncore = self._uncore
        connect(m, flipped(self.rx), uncore.rx)
        connect(m, uncore.tx, flipped(self.tx))
        connect(m, uncore.axi, flipped(self.axi))
        m.d.comb += self.rx_np_ok.eq(uncore.rx_np_ok)
        for index in range(self._config.cores):
            core = Core(self._config)
            m.submodules[f"core_{index}"] = Once(core)
            connect(m, core.dma, uncore.dma[index])
            connect(m, core.posted, uncore.posted[index])
            for ports, others in (
                (core.reads, uncore.reads),
                (core.writes, uncore.writes),
                (core.engines, uncore.engines),
            ):
                for port, other in zip(ports, others[index], strict=True):
                    connect(m, port, other)
            m.d.comb += uncore.gather_waits[index].eq(core.gather_waits)
            if self._config.gather_cache_bytes:
                m.d.comb += [
                    core.dram_writes.eq(uncore.dram_writes[index]),
                    uncore.gather_cache_hits[index].eq(core.gather_cache_hits),
                    uncore.gather_cache_misses[index].eq(core.gather_cache_misses),
                ]
        return m
