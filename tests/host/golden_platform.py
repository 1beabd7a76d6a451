"""The host software on cards of plain Python: everything but the simulator."""

from halfdome.host.driver.device import Device
from halfdome.host.driver.halfdome import HalfdomeAccelerator
from halfdome.host.driver.session import Session
from halfdome.host.runtime.card import Card
from halfdome.sim.golden.operators import Reference
from tests.host.golden_bus import GoldenBus


class GoldenPlatform:
    """As much of a runtime as calls and deployments need.

    `design` is what programs for it are compiled for.
    """

    def __init__(self, config, cards, seed=0, patience_cycles=1_000_000):
        self.design = self.config = config
        self.bus = GoldenBus(config, cards, seed)
        self.session = Session(self.bus)
        self.accelerators = []
        for index in range(cards):
            bar0, bar2 = self.bus.bars(index)
            device = Device(
                self.bus, config, index=index, bar0=bar0, bar2=bar2, message=(64, index),
                patience_cycles=patience_cycles, clock=lambda: self.bus.cycles,
            )  # fmt: skip
            self.accelerators.append(HalfdomeAccelerator(device, self.session))
        self.session.accelerators = list(self.accelerators)
        self.cards = [Card(accelerator) for accelerator in self.accelerators]
        self.reference = Reference(config)

    def silence(self, index, silent=True):
        """A card answers no more, or again."""
        self.bus.cards[index].silent = silent

    def owned(self):
        """What is taken of host and card memory."""
        memories = [m for each in self.accelerators for m in each.memories.values()]
        return len(self.bus.mapped), [memory.free_bytes for memory in memories]
