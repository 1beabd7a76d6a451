"""Random traffic for platforms of stand-in cards, and everything that can be seen of a run."""

import numpy as np

from halfdome.sim.platform import Platform
from tests.sim.standin import ADDRESS_HIGH, ADDRESS_LOW, MESSAGE, READS, WRITES, StandIn


def start_transfer(platform, card, kind, address, count):
    """Makes a stand-in send `count` packets and then its interrupt message."""
    bar0 = platform.bars[card].bar0
    message, _ = platform.message(card)
    for offset, value in (
        (ADDRESS_LOW, address & 0xFFFF_FFFF),
        (ADDRESS_HIGH, address >> 32),
        (MESSAGE, message),
        (kind, count),
    ):
        platform.bus.write(bar0 + offset, value.to_bytes(4, "little"))


def run_program(config, seed, steps=8, **options):
    """Runs a random program; returns times, bytes, messages and traffic as one comparable value."""
    rng = np.random.default_rng(seed)
    seen = []
    with Platform(config, card_factory=StandIn, **options) as platform:
        cards = len(platform.bars)
        for card in range(cards):
            platform.world.record(card)
        buffer = platform.bus.map(1 << 16)
        buffer.array[:] = rng.integers(0, 256, 1 << 16, np.uint8)
        started = 0
        for _ in range(steps):
            card = int(rng.integers(cards))
            offset = int(rng.integers(64)) * 128
            match rng.integers(5):
                case 0:
                    data = rng.integers(0, 256, 32 * int(rng.integers(1, 9)), np.uint8)
                    platform.bus.write(platform.bars[card].bar2 + offset, data.tobytes())
                case 1:
                    nbytes = 32 * int(rng.integers(1, 9))
                    try:
                        seen.append(platform.bus.read(platform.bars[card].bar2 + offset, nbytes))
                    except TimeoutError:  # the link went down meanwhile
                        seen.append(None)
                case 2:
                    start_transfer(platform, card, READS, buffer.address, int(rng.integers(1, 9)))
                    started += 1
                case 3:
                    peer = platform.bars[int(rng.integers(cards))].bar2
                    target = [buffer.address, peer][int(rng.integers(2))]
                    start_transfer(platform, card, WRITES, target, int(rng.integers(1, 9)))
                    started += 1
                case _:
                    seen.append(platform.bus.wait(int(rng.integers(1, 600))))
            seen.append(platform.time_ns)
        platform.run(800)
        seen.append([(i.time_ns, i.requester, i.data) for i in platform.interrupts])
        traffic = platform.traffic()
        for counts in traffic["cards"]:
            del counts["dram_refreshes"]  # up to where the card is, which may be ahead of the host
        seen.append(traffic)
        seen.append(platform.fault_counts())
        seen.append(buffer.array.tobytes())
        seen.append([platform.memory(card).tobytes() for card in range(cards)])
        end = platform.cycles
        traces = [platform.world.trace(card)[:end] for card in range(cards)]
        assert all(len(trace) == end for trace in traces)
        assert started == 0 or any(trace["tx__valid"].any() for trace in traces)
    return seen, traces


def assert_same(a, b):
    """Both runs look the same from every side, in every cycle."""
    for x, y in zip(a[0], b[0], strict=True):
        assert x == y
    for card, (x, y) in enumerate(zip(a[1], b[1], strict=True)):
        if not np.array_equal(x, y):
            cycle = int(np.flatnonzero(x != y)[0])
            names = [n for n in x.dtype.names if (x[n][cycle] != y[n][cycle]).any()]
            raise AssertionError(f"card {card} differs first in cycle {cycle}: {names}")
