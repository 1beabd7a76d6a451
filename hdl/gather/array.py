"""Reads an array of integers or floats, one element at a time."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort
from halfdome.hdl.memory.reader import SequentialReader

MOST_COUNT_BITS = 24
"""Width of a number of elements in descriptors."""
RUN_WORDS = 64
"""Words asked for at once: what may have to be thrown away when an array is abandoned."""


def count_bits(config: CardConfig) -> int:
    """Width of a number of elements: no more than card memory holds."""
    return min(MOST_COUNT_BITS, (config.window_bytes // 4).bit_length())


def prefetch_words(config: CardConfig) -> int:
    """Words read ahead: those of 32 lines. Up to 256 lines of others, two cycles each, may be
    queued in DRAM before them: still an element every two or four cycles. Without DRAM, of 4."""
    return (32 if config.dram_bytes else 4) * config.burst_words


class ArrayReader(wiring.Component):
    """Streams the elements of a word-aligned array of 32-bit or 64-bit elements, in order.

    Members
    -------
    i : In(stream of {address, count, wide}), taken while `idle`; elements are 64 bits if `wide`
    o : Out(stream of 64 bits), an element of 32 bits with its sign extended; withdrawn by `stop`
    stop : In(1), abandon the array; hold until `idle`
    idle : Out(1), no element is left and no read is in flight
    port : Out(ReadPort)

    Throughput is one element a cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        count = count_bits(config)
        job = data.StructLayout({"address": config.address_bits, "count": count, "wide": 1})
        super().__init__(
            {
                "i": In(stream.Signature(job)),
                "o": Out(stream.Signature(64)),
                "stop": In(1),
                "idle": Out(1),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        per_word = config.bus_bytes // 4
        bits = count_bits(config)
        m.submodules.reader = reader = SequentialReader(config, depth=prefetch_words(config))
        connect(m, reader.port, flipped(self.port))

        # Words: asked for in runs, so that an abandoned array costs at most one run.
        address = Signal(config.address_bits)
        words = Signal(bits)
        in_flight = Signal(range(2 * RUN_WORDS + prefetch_words(config)))
        run = Signal(range(RUN_WORDS + 1))
        asked = Signal()
        arrived = Signal()
        m.d.comb += [
            run.eq(Mux(words < RUN_WORDS, words, RUN_WORDS)),
            reader.i.p.address.eq(address),
            reader.i.p.words.eq(run),
            reader.i.valid.eq(words != 0),
            asked.eq(reader.i.valid & reader.i.ready),
            arrived.eq(reader.o.valid & reader.o.ready),
        ]
        m.d.sync += in_flight.eq(in_flight + Mux(asked, run, 0) - arrived)
        with m.If(asked):
            m.d.sync += [address.eq(address + run * config.bus_bytes), words.eq(words - run)]
        # A run once offered is not withdrawn.
        with m.If(self.stop & (asked | ~reader.i.valid)):
            m.d.sync += words.eq(0)

        # Elements: of one held word, from which two of 32 bits are shifted out at once.
        wide = Signal()
        odd = Signal()
        elements = Signal(bits)
        word = Signal(config.bus_bytes * 8)
        single = Signal(32)
        held = Signal(range(per_word + 1))
        capacity = Signal.like(held)
        fill = Signal.like(held)
        m.d.comb += [
            single.eq(Mux(odd, word[32:64], word[:32])),
            self.o.p.eq(Cat(single, Mux(wide, word[32:64], single[-1].replicate(32)))),
            self.o.valid.eq(held != 0),
            reader.o.ready.eq((held == 0) | ((held == 1) & self.o.ready) | self.stop),
            capacity.eq(Mux(wide, per_word // 2, per_word)),
            fill.eq(Mux(elements < capacity, elements, capacity)),
        ]
        with m.If(self.stop):
            m.d.sync += [held.eq(0), elements.eq(0)]
        with m.Elif(arrived):
            m.d.sync += [word.eq(reader.o.p.data), held.eq(fill), elements.eq(elements - fill)]
            m.d.sync += odd.eq(0)
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [held.eq(held - 1), odd.eq(~odd & ~wide)]
            with m.If(wide | odd):
                m.d.sync += word.eq(word >> 64)

        m.d.comb += [
            self.idle.eq((words == 0) & (in_flight == 0) & (held == 0)),
            self.i.ready.eq(self.idle & ~self.stop),
        ]
        with m.If(self.i.valid & self.i.ready):
            job = self.i.p
            singles = Signal(bits + 1)
            m.d.comb += singles.eq(Mux(job.wide, job.count << 1, job.count))
            m.d.sync += [
                address.eq(job.address),
                words.eq((singles + (per_word - 1)) >> exact_log2(per_word)),
                elements.eq(job.count),
                wide.eq(job.wide),
            ]
        return m
