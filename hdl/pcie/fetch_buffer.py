"""The words of one fetch, collected until they are complete."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import write_request
from halfdome.hdl.pcie.port import FetchPort, fetch_request


class FetchBuffer(wiring.Component):
    """Serves a fetch: asks for the bytes, collects them, then hands them on in order.

    Members
    -------
    port : In(FetchPort)
    request : Out(stream of `fetch_request`)
    write : In(stream of `write_request`, always ready), addresses from 0
    done : In(1), pulse: every word is written, or the read failed
    failed : In(1), with `done`: it failed

    `latency` cycles from `done` to the first response, then one word a cycle. Completions are
    never held up by a client that refuses its words.
    """

    latency = 2

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "port": In(FetchPort(config)),
                "request": Out(stream.Signature(fetch_request())),
                "write": In(stream.Signature(write_request(config), always_ready=True)),
                "done": In(1),
                "failed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self._config.bus_bytes
        depth = max(1, self._config.max_read_request_bytes // bus)
        m.submodules.words = words = Memory(shape=data.ArrayLayout(8, bus), depth=depth, init=[])
        write, read = words.write_port(granularity=1), words.read_port()
        m.d.comb += [
            write.addr.eq(self.write.p.address >> exact_log2(bus)),
            write.data.eq(self.write.p.data),
            write.en.eq(self.write.p.strobe & self.write.valid.replicate(bus)),
        ]

        index = Signal(range(depth + 1))
        count = Signal(range(depth + 1))
        response = self.port.response
        advance = Signal()
        last = Signal()
        failed = Signal()
        m.d.comb += [
            self.request.p.eq(self.port.request.p),
            read.addr.eq(index),
            read.en.eq(advance),
            response.p.data.eq(read.data),
            response.p.last.eq(last),
            response.p.failed.eq(failed),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    self.request.valid.eq(self.port.request.valid),
                    self.port.request.ready.eq(self.request.ready),
                ]
                m.d.sync += [
                    index.eq(0),
                    count.eq(self.port.request.p.bytes >> exact_log2(bus)),
                    failed.eq(0),
                    last.eq(0),
                ]
                with m.If(self.request.valid & self.request.ready):
                    m.next = "COLLECT"
            with m.State("COLLECT"):
                with m.If(self.done):
                    m.next = "HAND_OVER"
                    with m.If(self.failed):
                        m.d.sync += [
                            failed.eq(1),
                            last.eq(1),
                            response.valid.eq(1),
                        ]
            with m.State("HAND_OVER"):
                m.d.comb += advance.eq((~response.valid | response.ready) & ~last)
                with m.If(response.ready):
                    m.d.sync += response.valid.eq(0)
                with m.If(advance):
                    m.d.sync += [
                        response.valid.eq(1),
                        last.eq(index + 1 == count),
                        index.eq(index + 1),
                    ]
                with m.If(response.valid & response.ready & last):
                    m.next = "IDLE"
        return m
