"""Read clients: from requests, or a start and a length, to words that may be refused."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort, read_request, read_word


class ReadBuffer(wiring.Component):
    """Issues reads only when their data has room, and lets the consumer stall.

    Parameters
    ----------
    depth : int
        Words of room, at least `config.burst_words`; bounds the words in flight.

    Members
    -------
    i : In(stream of `read_request`)
    o : Out(stream of `read_word`), in request order
    port : Out(ReadPort)
    empty : Out(1), no word is buffered or in flight

    Throughput is one word a cycle if `depth` covers the memory latency.
    """

    def __init__(self, config: CardConfig, depth: int):
        if depth < config.burst_words:
            raise ValueError(f"depth={depth}: must hold a burst of {config.burst_words} words")
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(read_request(config))),
                "o": Out(stream.Signature(read_word(config))),
                "port": Out(ReadPort(config)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = read_word(self._config)
        # One entry more than is promised: a buffered FIFO of two refuses a second word that comes
        # while the first is on its way to the output.
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=layout.size, depth=self._depth + 1)

        free = Signal(range(self._depth + 1), init=self._depth)
        count = self.i.p.count_minus_1 + 1
        granted = Signal()
        m.d.comb += [
            granted.eq(free >= count),
            self.port.request.p.eq(self.i.p),
            self.port.request.valid.eq(self.i.valid & granted),
            self.i.ready.eq(self.port.request.ready & granted),
            fifo.w_data.eq(self.port.response.p),
            fifo.w_en.eq(self.port.response.valid),
            self.o.p.eq(data.View(layout, fifo.r_data)),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            self.empty.eq(free == self._depth),
        ]
        taken = Signal(range(self._config.burst_words + 1))
        returned = Signal()
        with m.If(self.i.valid & self.i.ready):
            m.d.comb += taken.eq(count)
        m.d.comb += returned.eq(self.o.valid & self.o.ready)
        m.d.sync += free.eq(free - taken + returned)
        return m


def run_layout(config: CardConfig) -> data.StructLayout:
    """A word-aligned start and a number of words, 0 for none, at most all of card memory."""
    words = range(config.window_bytes // config.bus_bytes + 1)
    return data.StructLayout({"address": config.address_bits, "words": words})


class BurstCutter(wiring.Component):
    """Cuts a contiguous run of words into bursts that end where memory lines do.

    Members
    -------
    i : In(stream of `run_layout`)
    o : Out(stream of `read_request`)

    The first burst leaves in the cycle after `i` is taken; then one a cycle. A run is taken as the
    last burst of the one before leaves, so that runs follow each other without a gap.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(config))),
                "o": Out(stream.Signature(read_request(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        address = Signal(config.address_bits)
        words = Signal.like(self.i.p.words)
        word_index = address[(config.bus_bytes - 1).bit_length() :]
        to_line_end = Signal(range(config.burst_words + 1))
        count = Signal.like(to_line_end)
        last = Signal()
        m.d.comb += [
            to_line_end.eq(config.burst_words - (word_index & (config.burst_words - 1))),
            last.eq(words <= to_line_end),
            count.eq(Mux(last, words, to_line_end)),
            self.o.p.address.eq(address),
            self.o.p.count_minus_1.eq(count - 1),
            self.o.valid.eq(words != 0),
            self.i.ready.eq((words == 0) | (self.o.ready & last)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(address + count * config.bus_bytes), words.eq(words - count)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [address.eq(self.i.p.address), words.eq(self.i.p.words)]
        return m


class SequentialReader(wiring.Component):
    """Streams a contiguous run of words in line-sized bursts, prefetching as far as it has room.

    Parameters
    ----------
    depth : int
        Words of prefetch.

    Members
    -------
    i : In(stream of `run_layout`)
    o : Out(stream of `read_word`), the words of every run in order; `last` ends a burst, not a run
    port : Out(ReadPort)

    The first request leaves in the cycle after `i` is taken; then one burst a cycle, across runs.
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(config))),
                "o": Out(stream.Signature(read_word(config))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cutter = cutter = BurstCutter(self._config)
        m.submodules.buffer = buffer = ReadBuffer(self._config, self._depth)
        connect(m, flipped(self.i), cutter.i)
        connect(m, cutter.o, buffer.i)
        connect(m, buffer.port, flipped(self.port))
        connect(m, buffer.o, flipped(self.o))
        return m
