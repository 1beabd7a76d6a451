"""An endpoint with a host on its link, card memory and registers behind it, and its clients."""

from collections import Counter

from halfdome.hdl.config import PRESETS
from halfdome.hdl.pcie.endpoint import PcieEndpoint
from halfdome.hdl.pcie.port import READ_EVENTS, REQUEST_EVENTS
from tests.bench import Memory, get, monitor, put, simulate
from tests.hdl.pcie.host_model import Host, Registers

TINY = PRESETS["tiny"]
CONFIGS = {
    16: TINY,
    32: TINY.replace(bus_bytes=32, cores=2, max_read_request_bytes=512, dma_tags=5),
    128: TINY.replace(bus_bytes=128, cores=2, max_payload_bytes=256, max_read_request_bytes=256),
}
CARD_BYTES = 128 * 1024


EVENTS = REQUEST_EVENTS + READ_EVENTS


class Bench:
    """An endpoint between a host, card memory and registers.

    `events` counts each of `EVENTS`.
    """

    def __init__(self, config, *, seed=0, stall=0.0, latency=(1, 8), timeout=0, **host):
        self.config = config
        self.dut = PcieEndpoint(config)
        self.host = Host(config, seed=seed, stall=stall, **host)
        self.card = Memory(config, CARD_BYTES, seed=seed, stall=stall, latency=latency)
        self.registers = Registers()
        self.events = Counter()
        self.cycle = self.read_bytes = self.write_bytes = 0
        self._timeout = timeout

    def run(self, *benches, cycles=60_000):
        dut = self.dut

        async def count(ctx):
            ctx.set(dut.control.bus_master, 1)
            ctx.set(dut.control.completion_timeout, self._timeout)
            while True:
                _, _, seen, read_bytes, write_bytes, *tags = await ctx.tick().sample(
                    dut.control.events,
                    dut.read_bytes,
                    dut.write_bytes,
                    dut.control.outstanding_reads,
                    dut.control.quarantined_tags,
                )
                assert sum(tags) <= self.config.dma_tags
                self.events.update({name: 1 for name in EVENTS if seen[name]})
                self.cycle += 1
                self.read_bytes += read_bytes
                self.write_bytes += write_bytes

        simulate(
            dut,
            *benches,
            background=[
                *self.host.link(dut.rx, dut.rx_np_ok, dut.tx),
                self.card.read_port(dut.window_read),
                self.card.write_port(dut.window_write),
                self.card.write_port(dut.dma_write),
                self.registers.serve(dut.registers),
                count,
                monitor(dut.tx, "tx"),
                monitor(dut.window_read.request, "window_read"),
                monitor(dut.window_write.request, "window_write"),
                monitor(dut.dma_write.request, "dma_write"),
                monitor(dut.fetch.response, "fetch"),
            ],
            cycles=cycles,
        )

    async def until(self, ctx, condition):
        while not condition():
            await ctx.tick()

    def load(self, index, transfers, outcome):
        """A client that reads (host address, card address, bytes), then waits for idle."""
        port = self.dut.dma_reads[index]

        async def bench(ctx):
            for source, destination, size in transfers:
                await put(
                    ctx,
                    port.request,
                    {"address": source, "destination": destination, "bytes": size},
                )
            while not ctx.get(port.idle):
                await ctx.tick()
            outcome.append(ctx.get(port.failure))

        return bench

    def store(self, index, transfers):
        """A client that writes (host address, bytes), then waits for idle."""
        port = self.dut.posted[index]
        word = self.config.bus_bytes

        async def bench(ctx):
            for address, data in transfers:
                await put(ctx, port.request, {"address": address, "bytes": len(data)})
                for i in range(0, len(data), word):
                    await put(ctx, port.data, int.from_bytes(data[i : i + word], "little"))
            while not ctx.get(port.idle):
                await ctx.tick()

        return bench

    def fetch(self, transfers, received):
        """A client that fetches (host address, bytes) one after the other."""
        port = self.dut.fetch

        async def bench(ctx):
            for address, size in transfers:
                await put(ctx, port.request, {"address": address, "bytes": size})
                words, last = [], False
                while not last:
                    beat = await get(ctx, port.response)
                    last = beat.last
                    words.append(int(beat.data).to_bytes(self.config.bus_bytes, "little"))
                received.append(None if beat.failed else b"".join(words))

        return bench
