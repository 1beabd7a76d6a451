"""Fetches what a matrix multiplication reads, in the order in which it is used."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from hdl.config import ADDRESS_BITS, CardConfig
from hdl.matmul.sequencer import SIZE_BITS, pass_layout
from hdl.memory.port import ReadPort, read_word
from hdl.memory.reader import ReadBuffer, SequentialReader


class RowFetcher(wiring.Component):
    """From passes to the words that hold their rows of activations.

    Parameters
    ----------
    depth : int
        Words in flight or buffered; must cover the memory's latency for full throughput.

    Members
    -------
    i : In(stream of `pass_layout`)
    stride : In(32), bytes from one row to the next; constant while rows are fetched
    o : Out(stream of `read_word`), for each pass the word that holds its tile, row by row
    port : Out(ReadPort)

    The first request leaves in the cycle after `i` is taken; then one a cycle, across passes.
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(pass_layout(config))),
                "stride": In(32),
                "o": Out(stream.Signature(read_word(config))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.buffer = buffer = ReadBuffer(config, self._depth)
        connect(m, buffer.port, flipped(self.port))
        connect(m, buffer.o, flipped(self.o))

        address = Signal(ADDRESS_BITS)
        left = Signal(range(config.accumulator_rows + 1))
        word_bits = exact_log2(config.bus_bytes)
        m.d.comb += [
            buffer.i.p.address.eq(address[word_bits:] << word_bits),
            buffer.i.valid.eq(left != 0),
            self.i.ready.eq((left == 0) | ((left == 1) & buffer.i.ready)),
        ]
        with m.If(buffer.i.valid & buffer.i.ready):
            m.d.sync += [address.eq(address + self.stride), left.eq(left - 1)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [address.eq(self.i.p.x_address), left.eq(self.i.p.rows)]
        return m


class BlockReader(wiring.Component):
    """Reads one contiguous run of words once for each block of rows.

    Parameters
    ----------
    depth : int
        Words of prefetch.

    Members
    -------
    start : In(1), begin; only when all words asked for before were delivered
    m : In(SIZE_BITS), rows of x, taken at `start`
    address, words : In, the run; constant while it is read
    o : Out(stream of `read_word`)
    port : Out(ReadPort)
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "start": In(1),
                "m": In(SIZE_BITS),
                "address": In(ADDRESS_BITS),
                "words": In(32),
                "o": Out(stream.Signature(read_word(config))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = SequentialReader(self._config, self._depth)
        connect(m, reader.port, flipped(self.port))
        connect(m, reader.o, flipped(self.o))

        rows_left = Signal(SIZE_BITS)
        block = self._config.accumulator_rows
        m.d.comb += [
            reader.i.p.address.eq(self.address),
            reader.i.p.words.eq(self.words),
            reader.i.valid.eq(rows_left != 0),
        ]
        with m.If(reader.i.valid & reader.i.ready):
            m.d.sync += rows_left.eq(Mux(rows_left > block, rows_left - block, 0))
        with m.If(self.start):
            m.d.sync += rows_left.eq(self.m)
        return m
