"""As much of a card and of host memory as a session needs."""

from halfdome.host.driver.accelerator import CardState
from halfdome.host.driver.memory import Allocator


class Buffer:
    def __init__(self, bus):
        self._bus = bus

    def release(self):
        self._bus.mapped.discard(self)


class Bus:
    """Host memory without bytes; what was released, in order."""

    def __init__(self):
        self.mapped = set()

    def map(self, nbytes):
        buffer = Buffer(self)
        self.mapped.add(buffer)
        return buffer


class Accelerator:
    """As much of a card as a session asks of it. `log` has what it was asked."""

    strayed = False

    def __init__(self, index):
        self.index, self.log = index, []
        self.found = CardState.RUNNING
        self.memories = {"dram": Allocator(f"card {index}", 0, 4096, 64)}
        self.idle, self.drains, self.restarts = True, True, True
        self.at_drain = lambda: None

    def state(self):
        return self.found

    def drop(self):
        self.log.append("drop")

    def catch_up(self, peers):
        self.log.append(("catch up", [peer.index for peer in peers]))

    def drain(self):
        self.at_drain()
        self.log.append("drain")
        self.idle |= self.drains
        return self.drains

    def restart(self, peers):
        self.log.append("restart")
        self.idle |= self.restarts
        return self.restarts

    def give_up(self):
        self.log.append("give up")
