"""The hot-row cache: lines of embedding rows that were read before."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort, read_request
from halfdome.hdl.memory.reader import ReadBuffer


class RowCache(wiring.Component):
    """A set-associative cache in front of a read port, of `config.gather_cache_bytes`.

    Members
    -------
    client : In(ReadPort)
    memory : Out(ReadPort)
    hold : In(1), take no request
    flush : In(1), forget every line; later requests wait until that is done
    hit, miss : Out(1), a request for DRAM was found, or was not

    A line is a whole burst (`config.burst_words` words); a miss reads all of it. Addresses beyond
    DRAM are passed on and never kept. A request takes a cycle and an answer a cycle a word, a miss
    a cycle for every word of its line. Answers are in request order and a line's place is decided
    when it is asked for, so that hits pass no miss, yet later misses are already under way: up to
    `config.gather_outstanding` lines. A flush takes a cycle for each set.

    A line that comes in gives way first, until it is hit: rows that are looked up once, half of a
    production trace, leave those alone that are looked up often.
    """

    hit_latency = 4
    """Cycles from a request to its first word, if nothing is before it."""

    def __init__(self, config: CardConfig):
        self._config = config
        self.ways = config.gather_cache_ways
        self.line_bytes = config.burst_words * config.bus_bytes
        self.sets = config.gather_cache_bytes // (self.ways * self.line_bytes)
        super().__init__(
            {
                "client": In(ReadPort(config)),
                "memory": Out(ReadPort(config)),
                "hold": In(1),
                "flush": In(1),
                "hit": Out(1),
                "miss": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        words = config.burst_words
        word_bits, set_bits = exact_log2(words), exact_log2(self.sets)
        low = exact_log2(config.bus_bytes)  # of the word within its line
        line_of = slice(low + word_bits, exact_log2(config.dram_bytes))
        way_bits = exact_log2(self.ways)

        entry = data.StructLayout(
            {"valid": 1, "recent": 1, "tag": line_of.stop - line_of.start - set_bits}
        )
        row = data.ArrayLayout(entry, self.ways)
        m.submodules.tags = tags = Memory(shape=row, depth=self.sets, init=[])
        tag_write = tags.write_port()
        tag_read = tags.read_port(transparent_for=[tag_write])
        m.submodules.lines = lines = Memory(
            shape=config.bus_bytes * 8, depth=self.sets * self.ways * words, init=[]
        )
        line_write = lines.write_port()
        line_read = lines.read_port()

        # What is to be answered, in order. A slot is a line's place in `lines`.
        answer = data.StructLayout(
            {"cached": 1, "fill": 1, "slot": set_bits + way_bits, "first": word_bits,
             "last": word_bits}
        )  # fmt: skip
        outstanding = config.gather_outstanding
        m.submodules.answers = answers = SyncFIFOBuffered(
            width=answer.size, depth=2 * outstanding * words
        )
        m.submodules.misses = misses = SyncFIFO(width=read_request(config).size, depth=4)
        m.submodules.buffer = buffer = ReadBuffer(config, outstanding * words)
        connect(m, buffer.port, flipped(self.memory))
        m.d.comb += [
            buffer.i.p.eq(misses.r_data),
            buffer.i.valid.eq(misses.r_rdy),
            misses.r_en.eq(buffer.i.ready),
        ]

        def set_of(address):
            # Rows often are a power of two apart: fold the bits above into the number of the set.
            line = address[line_of]
            return line[:set_bits] ^ line[set_bits : 2 * set_bits]

        # Look up, then decide a cycle later.
        request, asked, advance = Signal(read_request(config)), Signal(), Signal()
        sweeping, swept = Signal(), Signal(range(self.sets))
        m.d.comb += [
            advance.eq(~asked | (answers.w_rdy & misses.w_rdy)),
            self.client.request.ready.eq(advance & ~sweeping & ~self.hold & ~self.flush),
            tag_read.addr.eq(set_of(self.client.request.p.address)),
            tag_read.en.eq(advance),
        ]
        with m.If(advance):
            m.d.sync += [
                asked.eq(self.client.request.valid & self.client.request.ready),
                request.eq(self.client.request.p),
            ]

        in_dram = Signal()
        line = request.address[line_of]
        matches, recent = Signal(self.ways), Signal(self.ways)
        way = Signal(range(self.ways))
        found = Signal()
        m.d.comb += [
            in_dram.eq(request.address < config.dram_bytes),
            matches.eq(
                Cat(e.valid & (e.tag == line[set_bits:]) for e in _entries(tag_read.data, self))
            ),
            found.eq(in_dram & matches.any()),
            recent.eq(Cat(e.recent for e in _entries(tag_read.data, self))),
        ]
        for number in reversed(range(self.ways)):
            with m.If(Mux(found, matches[number], ~recent[number])):
                m.d.comb += way.eq(number)

        moved = Signal()
        used = Signal(self.ways)
        m.d.comb += [
            moved.eq(asked & advance),
            used.eq(recent | matches),
            self.hit.eq(moved & found),
            self.miss.eq(moved & in_dram & ~found),
            tag_write.addr.eq(set_of(request.address)),
            tag_write.en.eq(moved & in_dram),
        ]
        for number, new in enumerate(_entries(tag_write.data, self)):
            old = tag_read.data[number]
            m.d.comb += new.eq(old)
            with m.If(found):
                m.d.comb += new.recent.eq(Mux(used.all(), matches[number], used[number]))
            with m.Elif(way == number):
                m.d.comb += [new.valid.eq(1), new.recent.eq(0), new.tag.eq(line[set_bits:])]

        # Words of the line that are asked for, and those that are read.
        first = request.address[low : low + word_bits]
        queued = Signal(answer)
        fetched = Signal(read_request(config))
        m.d.comb += [
            queued.cached.eq(found),
            queued.fill.eq(in_dram & ~found),
            queued.slot.eq(Cat(way[:way_bits], set_of(request.address))),
            queued.first.eq(first),
            queued.last.eq(first + request.count_minus_1),
            answers.w_data.eq(queued),
            answers.w_en.eq(moved),
            fetched.eq(request),
            misses.w_data.eq(fetched),
            misses.w_en.eq(moved & ~found),
        ]
        with m.If(in_dram):
            m.d.comb += [
                fetched.address.eq(request.address & ~(self.line_bytes - 1)),
                fetched.count_minus_1.eq(words - 1),
            ]

        # Forget: one set a cycle, once nothing is being decided.
        with m.If(self.flush):
            m.d.sync += [sweeping.eq(1), swept.eq(0)]
        with m.Elif(sweeping & ~asked):
            m.d.comb += [
                tag_write.addr.eq(swept),
                tag_write.data.eq(0),
                tag_write.en.eq(1),
            ]
            m.d.sync += swept.eq(swept + 1)
            with m.If(swept == self.sets - 1):
                m.d.sync += sweeping.eq(0)

        self._answer(m, answers, data.View(answer, answers.r_data), buffer, line_read, line_write)
        return m

    def _answer(self, m, answers, answer, buffer, line_read, line_write):
        """Words of the oldest request, from the lines or from memory, one a cycle."""
        last_word = self._config.burst_words - 1
        begun, next_word = Signal(), Signal.like(answer.first, init=0)
        word, end = Signal.like(next_word), Signal.like(next_word)
        step, inside = Signal(), Signal()
        m.d.comb += [
            # A line that comes in comes from its first word to its last.
            word.eq(Mux(begun, next_word, Mux(answer.fill, 0, answer.first))),
            end.eq(Mux(answer.fill, last_word, answer.last)),
            inside.eq((word >= answer.first) & (word <= answer.last)),
            step.eq(answers.r_rdy & (answer.cached | buffer.o.valid)),
            buffer.o.ready.eq(answers.r_rdy & ~answer.cached),
            answers.r_en.eq(step & (word == end)),
            line_read.addr.eq(Cat(word, answer.slot)),
            line_read.en.eq(step & answer.cached),
            line_write.addr.eq(Cat(word, answer.slot)),
            line_write.data.eq(buffer.o.p.data),
            line_write.en.eq(step & answer.fill),
        ]
        with m.If(step):
            m.d.sync += [begun.eq(word != end), next_word.eq(word + 1)]

        cached, response = Signal(), self.client.response
        passed = Signal.like(buffer.o.p.data)
        valid, last = Signal(), Signal()
        m.d.sync += [
            valid.eq(step & inside),
            last.eq(word == answer.last),
            cached.eq(answer.cached),
            passed.eq(buffer.o.p.data),
        ]
        m.d.comb += [
            response.valid.eq(valid),
            response.p.last.eq(last),
            response.p.data.eq(Mux(cached, line_read.data, passed)),
        ]


def _entries(view, cache: RowCache):
    return [view[number] for number in range(cache.ways)]
