"""Room for urgent reads in DRAM: what is there already goes first, whoever asks for more."""

from collections.abc import Sequence

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.memory.switch import OUTSTANDING_BITS

READS_BESIDE = 8
"""Reads that a group which is not urgent has in DRAM beside urgent ones: few that these wait for,
enough that DRAM is not idle when they are few."""


class HoldBack(wiring.Component):
    """Says which groups of ports are to ask DRAM for no more now.

    Those are held that are not urgent and have more than `READS_BESIDE` reads in flight, the one
    that would be next among them, while an urgent one is. So DRAM, which serves what it holds in an
    order of its own, holds few reads before an urgent one; and nobody waits but for its own reads.

    Parameters
    ----------
    sizes : int, ports of each group, each with fewer than `1 << OUTSTANDING_BITS` reads in flight

    Members
    -------
    urgent : In(len(sizes)), may change at any time
    taken : In(len(sizes)), a read of the group is accepted
    ended : In(len(sizes)), one has come back
    held : Out(len(sizes))
    """

    def __init__(self, sizes: Sequence[int]):
        self._sizes = sizes
        groups = len(sizes)
        super().__init__(
            {
                "urgent": In(groups),
                "taken": In(groups),
                "ended": In(groups),
                "held": Out(groups),
            }
        )

    def elaborate(self, platform):
        m = Module()
        full, any_urgent = [], []
        for group, size in enumerate(self._sizes):
            flight = Signal(range(size << OUTSTANDING_BITS), name=f"flight{group}")
            m.d.sync += flight.eq(flight + self.taken[group] - self.ended[group])
            full.append(flight > READS_BESIDE)
            any_urgent.append(self.urgent[group] & flight.any())
        with m.If(Cat(any_urgent).any()):
            m.d.comb += self.held.eq(Cat(full) & ~self.urgent)
        return m
