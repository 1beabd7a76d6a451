"""Received packets parted into requests to the card and completions of the card's own reads."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.packet_buffer import PacketBuffer, packet_beat
from halfdome.hdl.pcie.tlp import HEADER_BYTES, CompletionHeader, is_completion, rx_beat


class TlpDemux(wiring.Component):
    """Sends completions one way and every other packet the other way, whole and in order.

    Members
    -------
    rx : In(stream of `rx_beat`)
    requests : Out(stream of `packet_beat`)
    completions : Out(stream of `packet_beat`)

    Latency as `PacketBuffer`; one beat a cycle. A packet that is refused holds up those behind it,
    so completions never overtake the writes sent before them.
    """

    latency = PacketBuffer.latency

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "rx": In(stream.Signature(rx_beat(config))),
                "requests": Out(stream.Signature(packet_beat(config))),
                "completions": Out(stream.Signature(packet_beat(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = PacketBuffer(self._config)
        connect(m, flipped(self.rx), buffer.i)

        header = CompletionHeader(buffer.o.p.data[: HEADER_BYTES * 8])
        completion = Signal()
        completion_before = Signal()
        m.d.comb += [
            completion.eq(Mux(buffer.o.p.first, is_completion(header.type), completion_before)),
            self.requests.p.eq(buffer.o.p),
            self.completions.p.eq(buffer.o.p),
            self.requests.valid.eq(buffer.o.valid & ~completion),
            self.completions.valid.eq(buffer.o.valid & completion),
            buffer.o.ready.eq(Mux(completion, self.completions.ready, self.requests.ready)),
        ]
        with m.If(buffer.o.valid & buffer.o.ready):
            m.d.sync += completion_before.eq(completion)
        return m
