"""The platform as a host sees it: reads, writes, DMA memory, interrupts, and what goes wrong."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.hdl import Assert

from halfdome.hdl.config import PRESETS, CardConfig
from halfdome.sim.fabric.config import FabricConfig
from halfdome.sim.fabric.faults import Fault, FaultKind, FaultPlan
from halfdome.sim.fabric.host_memory import PAGE_BYTES, HostMemory
from halfdome.sim.platform import Platform
from tests.sim.program import start_transfer
from tests.sim.standin import READS, WRITES, StandIn

TINY = PRESETS["tiny"]


@pytest.fixture(params=["native", "pysim"])
def engine(request):
    return request.param


def open_platform(config=TINY, cards=2, factory=StandIn, threads=1, **options):
    return Platform(config, cards=cards, card_factory=factory, threads=threads, **options)


def test_window_reads_what_was_written(engine):
    with open_platform(engine=engine) as platform:
        data = np.random.default_rng(0).integers(0, 256, 1024, np.uint8)
        base = platform.bars[1].bar2 + 4096
        platform.bus.write(base, data.tobytes())
        assert platform.bus.read(base, 1024) == data.tobytes()
        np.testing.assert_array_equal(platform.memory(1)[4096:5120], data)
        assert not platform.memory(0).any()


def test_preloaded_memory_is_what_the_card_reads(engine):
    with open_platform(engine=engine) as platform:
        platform.memory(0)[:64] = np.arange(64)
        assert platform.bus.read(platform.bars[0].bar2, 64) == bytes(range(64))


def test_time_passes_in_reads_but_not_in_writes():
    with open_platform() as platform:
        platform.bus.read(platform.bars[0].bar0, 4)
        # Wires and ports take 53.96 ns; the rest is the card's, in cycles of 2.5 ns.
        assert 313.96 < platform.time_ns < 330
        now = platform.time_ns
        platform.bus.write(platform.bars[0].bar2, bytes(64))
        assert platform.time_ns == now
        before = platform.cycles
        platform.run(1000)
        assert platform.cycles == before + 1000


def test_dma_read_and_interrupt(engine):
    with open_platform(engine=engine) as platform:
        buffer = platform.bus.map(2048)
        start_transfer(platform, 1, READS, buffer.address, 16)
        assert platform.bus.wait(10_000)
        assert int.from_bytes(platform.bus.read(platform.bars[1].bar0, 4), "little") == 2048
        [interrupt] = platform.interrupts
        assert (interrupt.address, interrupt.data) == (platform.message(1)[0], 0xCAFE)
        assert not platform.bus.wait(100)


def test_interrupt_before_the_wait_is_not_lost():
    with open_platform() as platform:
        buffer = platform.bus.map(128)
        start_transfer(platform, 0, READS, buffer.address, 1)
        platform.run(5000)
        before = platform.cycles
        assert platform.bus.wait(10)
        assert platform.cycles == before
        assert not platform.bus.wait(10)
        assert platform.cycles == before + 10


def test_a_wait_for_one_card_does_not_end_with_another():
    with open_platform() as platform:
        buffer = platform.bus.map(4096)
        start_transfer(platform, 0, READS, buffer.address, 1)
        start_transfer(platform, 1, READS, buffer.address, 32)
        first, second = (platform.message(card)[0] for card in (0, 1))
        assert platform.bus.wait(10_000, second)
        assert [interrupt.address for interrupt in platform.interrupts] == [first, second]
        before = platform.cycles
        assert not platform.bus.wait(10, second)
        assert platform.bus.wait(10, first), "it came meanwhile and was not lost"
        assert platform.cycles == before + 10


def test_dma_writes_reach_host_and_peer():
    with open_platform() as platform:
        buffer = platform.bus.map(1024)
        start_transfer(platform, 0, WRITES, buffer.address, 8)
        assert platform.bus.wait(10_000)
        sent = buffer.array.copy()
        assert sent.any()
        start_transfer(platform, 0, WRITES, platform.bars[1].bar2, 8)
        assert platform.bus.wait(10_000)
        platform.bus.read(platform.bars[1].bar2, 16)  # pushes the last write ahead
        uplink = platform.traffic()["uplink"]["to_host_payload_bytes"]
        assert platform.memory(1)[:1024].any()
        assert uplink == 1024 + 4 + 4 + 16  # nothing of the second transfer but its message


def six_card_cycles(config, lanes, kind, peer):
    """Cycles until the last of six cards has moved 32 KiB."""
    fabric = FabricConfig(uplink_lanes=lanes)
    with open_platform(config, 6, fabric=fabric) as platform:
        buffer = platform.bus.map(1 << 16)
        for card in range(6):
            target = platform.bars[(card + 1) % 6].bar2 if peer else buffer.address
            start_transfer(platform, card, kind, target, 256)
        for _ in range(6):
            while len(platform.interrupts) < 6:
                assert platform.bus.wait(100_000)
        platform.run(2000)
        traffic = platform.traffic()
        assert all(card["malformed_packets"] == 0 for card in traffic["cards"])
        times = [interrupt.time_ns for interrupt in platform.interrupts]
        return max(times), traffic


CARD = CardConfig(dram_bytes=1 << 20, max_payload_bytes=128, max_read_request_bytes=128)


@pytest.mark.slow
def test_narrow_uplink_slows_six_cards():
    wide, traffic = six_card_cycles(CARD, 16, READS, peer=False)
    narrow, _ = six_card_cycles(CARD, 4, READS, peer=False)
    assert narrow / wide > 3
    payload = sum(card["to_card_payload_bytes"] for card in traffic["cards"])
    assert payload == 6 * (256 * 128 + 4 * 4)
    assert traffic["uplink"]["to_cards_payload_bytes"] == payload
    # The uplink is the bound: 128 of 148 bytes are payload.
    assert payload / narrow > 0.95 * 4 * 0.9846 * 128 / 148


def test_narrow_uplink_does_not_slow_peers():
    wide, _ = six_card_cycles(CARD, 16, WRITES, peer=True)
    narrow, traffic = six_card_cycles(CARD, 4, WRITES, peer=True)
    assert narrow < 1.05 * wide
    assert traffic["uplink"]["to_host_payload_bytes"] == 6 * 4


def test_unclaimed_address_reads_all_ones_and_is_counted():
    with open_platform() as platform:
        assert platform.bus.read(0x2000, 8) == b"\xff" * 8
        assert platform.traffic()["uplink"]["unsupported_reads"] == 1


class Deaf(StandIn):
    """Takes everything and answers nothing."""

    def elaborate(self, platform):
        m = Module()
        seen = Signal()
        m.d.sync += seen.eq(seen | self.rx.valid)
        m.d.comb += [self.rx.ready.eq(1), self.rx_np_ok.eq(1)]
        return m


@pytest.mark.slow
def test_read_of_a_deaf_card_times_out_and_names_the_cards():
    with open_platform(factory=Deaf) as platform:
        with pytest.raises(TimeoutError, match=r"at 0xe0000000: no completion(.|\n)*card 1: cycle"):
            platform.bus.read(platform.bars[0].bar0, 4)
        assert platform.bus.read(0x2000, 4) == b"\xff" * 4


class Failing(StandIn):
    """Breaks an assertion when it receives anything."""

    def elaborate(self, platform):
        m = Module()
        seen = Signal()
        m.d.sync += [seen.eq(1), Assert(~self.rx.valid, "received something")]
        m.d.comb += self.rx_np_ok.eq(1)
        return m


def test_failed_assertion_in_pysim_reaches_the_host():
    with open_platform(factory=Failing, engine="pysim") as platform:
        with pytest.raises(AssertionError, match="received something"):
            platform.bus.read(platform.bars[0].bar0, 4)
        with pytest.raises(AssertionError, match="received something"):
            platform.run(10)


class Babbling(StandIn):
    """Sends packets that are no packets, without end."""

    def elaborate(self, platform):
        m = Module()
        count = Signal(12)
        m.d.comb += [
            self.rx.ready.eq(1),
            self.rx_np_ok.eq(1),
            self.tx.valid.eq(1),
            self.tx.p.data.eq(count.replicate(self.config.bus_bytes * 8 // 12)),
            self.tx.p.last.eq((count[:4] == 7) | (count == 0xFFF)),
        ]
        with m.If(self.tx.ready):
            m.d.sync += count.eq(count + 1)
        return m


@pytest.mark.slow
def test_malformed_packets_are_counted_and_harm_no_one():
    with open_platform(factory=Babbling) as platform:
        platform.run(10_000)
        traffic = platform.traffic()
        assert traffic["cards"][0]["malformed_packets"] > 100
        assert platform.bus.read(0x2000, 4) == b"\xff" * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "quantum"}, r"engine='quantum': unknown; known are native, pysim"),
        ({"cards": 0}, r"cards=0: must be 1 to 32"),
        ({"threads": 0}, "threads=0: must be a whole number, 1 or more"),
        ({"threads": 1.5}, "threads=1.5: must be a whole number, 1 or more"),
        ({"skip_idle": 3}, "skip_idle=3: must be True or False"),
        ({"waves": "x.vcd"}, "waves=.x.vcd.: must be a Waves or None"),
        ({"window_cycles": -1}, "window_cycles=-1: must be a whole number, 0 or more"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Platform(TINY, **{"card_factory": StandIn} | options)


def test_card_without_the_ports_is_refused():
    from tests.sim.rtl.test_native import Registers

    with pytest.raises(ValueError, match="no port 'rx__payload'"):
        open_platform(factory=lambda config: Registers())


def test_bad_sizes_are_refused():
    with open_platform() as platform:
        with pytest.raises(ValueError, match="nbytes=0"):
            platform.bus.read(platform.bars[0].bar0, 0)
        with pytest.raises(ValueError, match="nbytes=-4"):
            platform.bus.map(-4)


def test_buffers_are_given_back_and_merged():
    memory = HostMemory(0x1000, 8 * PAGE_BYTES)
    buffers = [memory.map(PAGE_BYTES * 2 - 5) for _ in range(4)]
    assert [b.address for b in buffers] == [0x1000 + i * 2 * PAGE_BYTES for i in range(4)]
    with pytest.raises(MemoryError, match="0 bytes free"):
        memory.map(1)
    for index in (1, 3, 2):
        buffers[index].array[:] = 9
        buffers[index].release()
        buffers[index].release()
    assert memory.free_bytes == 6 * PAGE_BYTES
    whole = memory.map(6 * PAGE_BYTES)
    assert whole.address == 0x1000 + 2 * PAGE_BYTES
    assert not whole.array.any()


def test_faults_of_a_platform_are_made_good_and_counted_by_link():
    faults = [
        Fault(kind=FaultKind.CORRUPT, card=card, to_card=to_card, skip=skip)
        for card, to_card, skip in [(0, False, 3), (1, True, 2), (None, True, 4), (None, False, 5)]
    ]
    with open_platform(cards=2, faults=FaultPlan(tuple(faults[:2]))) as platform:
        platform.inject(FaultPlan(tuple(faults[2:])))
        buffer = platform.bus.map(1 << 14)
        start_transfer(platform, 0, WRITES, buffer.address, 32)
        for number in range(8):
            platform.bus.write(platform.bars[1].bar2 + 32 * number, bytes([number + 1]) * 32)
        assert platform.bus.wait(100_000)
        assert platform.bus.read(platform.bars[1].bar2 + 7 * 32, 32) == bytes([8] * 32)
        counts = platform.fault_counts()
        assert platform.traffic()["cards"][0]["malformed_packets"] == 0
    struck = {name for name, count in counts.items() if count.injected}
    assert struck == {"card 0 up", "card 1 down", "uplink up", "uplink down"}
    assert all(counts[name].corrected == counts[name].injected == 1 for name in struck)
    assert all(counts[name].naks == 1 for name in struck)


def test_a_fault_on_a_card_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="card=2: must be 0 to 1, or None for the uplink"):
        open_platform(cards=2, faults=FaultPlan((Fault(kind=FaultKind.CORRUPT, card=2),)))
