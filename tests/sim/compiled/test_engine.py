"""A compiled component is what Amaranth simulates: the same test bench sees the same."""

import random

import pytest
from amaranth.hdl import Elaboratable, Module, ResetSignal, Signal, signed, unsigned
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.sim.testbench import simulate
from tests.sim.test_waves import Vcd

PAIR = data.StructLayout({"low": 4, "high": signed(70)})


class Level(enum.Enum, shape=signed(3)):
    """A member below zero."""

    LOW = -2
    ZERO = 0


class Header(data.Struct):
    """What a memory's port shows before it has read."""

    kind: 3 = 5
    length: 5 = 17


class Mixed(wiring.Component):
    """Registers, combinational paths, structures, signs and a stream."""

    value: In(8)
    structure: In(PAIR)
    total: Out(16)
    falling: Out(signed(5))
    next: Out(9)
    high: Out(signed(70))
    i: In(stream.Signature(unsigned(8)))
    o: Out(stream.Signature(unsigned(8)))

    def __init__(self):
        self.hidden = Signal(8)
        self.store = memory.Memory(shape=8, depth=4, init=[])
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = self.store
        m.d.sync += [
            self.total.eq(self.total + self.value),
            self.falling.eq(self.falling - 1),
            self.high.eq(self.structure.high - 1),
            self.hidden.eq(self.hidden + 1),
        ]
        m.d.comb += [self.next.eq(self.value + 1), self.i.ready.eq(self.o.ready | ~self.o.valid)]
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.p.eq(self.i.p)]
        return m


class Free(wiring.Component):
    """No input but the clock."""

    count: Out(8, init=7)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + 1)
        return m


@pytest.fixture(params=["pysim", "native"])
def engine(request):
    return request.param


def run_mixed(engine):
    """Checks what a test bench sees; returns what the stream gave, and the cycles."""
    dut = Mixed()
    received = []

    async def drive(ctx):
        assert ctx.get(dut.next) == 1
        for value in (3, 4, 255):
            ctx.set(dut.value, value)
            assert ctx.get(dut.next) == value + 1  # settled at once
            await ctx.tick()
        assert ctx.get(dut.total) == 262
        assert ctx.get(dut.falling) == -3
        ctx.set(dut.structure, {"low": 1, "high": -(1 << 69) + 1})
        await ctx.tick()
        assert ctx.get(dut.high) == -(1 << 69)
        assert ctx.get(dut.total[:8] + 1) == (262 + 255 & 0xFF) + 1
        for value in range(20):
            ctx.set(dut.i.payload, value)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(20)

    async def take(ctx):
        stream_state = ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
        beat = 0
        async for _, _, valid, ready, payload in stream_state:
            if valid and ready:
                received.append(payload)
            beat += 1
            ctx.set(dut.o.ready, beat % 7 in (1, 2, 5))

    return received, simulate(dut, drive, background=[take], engine=engine)


def test_test_bench_sees_the_same_on_both_engines():
    received, cycles = run_mixed("native")
    assert received == list(range(20))
    assert (received, cycles) == run_mixed("pysim")


def test_component_without_inputs_runs(engine):
    dut, seen = Free(), []

    async def bench(ctx):
        seen.append(ctx.get(dut.count))
        async for _, _, count in ctx.tick().sample(dut.count):
            seen.append(count)
            if count == 9:
                return

    assert simulate(dut, bench, engine=engine) == 3
    assert seen == [7, 7, 8, 9]


HIDDEN = "hidden: is no port of Mixed; engine native knows ports only, engine pysim every signal"
ROW = r"memory-row .*: engine native knows the ports of Mixed only, of its memories nothing"


@pytest.mark.parametrize(
    ("message", "look"),
    [
        (HIDDEN, lambda ctx, dut: ctx.get(dut.hidden + dut.value)),
        (HIDDEN, lambda ctx, dut: ctx.set(dut.hidden, 1)),
        (HIDDEN, lambda ctx, dut: ctx.tick().sample(dut.hidden)),
        (HIDDEN, lambda ctx, dut: ctx.tick().until(dut.hidden == 3)),
        (HIDDEN, lambda ctx, dut: ctx.changed(dut.hidden)),
        (HIDDEN, lambda ctx, dut: ctx.changed(dut.value).sample(dut.hidden)),
        (HIDDEN, lambda ctx, dut: ctx.delay(1e-6).sample(dut.hidden)),
        (HIDDEN, lambda ctx, dut: ctx.posedge(dut.value[0]).sample(dut.hidden)),
        (HIDDEN, lambda ctx, dut: ctx.posedge(dut.hidden[0])),
        (HIDDEN, lambda ctx, dut: ctx.negedge(dut.hidden[1])),
        (HIDDEN, lambda ctx, dut: ctx.edge(dut.hidden[2], 1)),
        (ROW, lambda ctx, dut: ctx.get(dut.store.data[0])),
        (ROW, lambda ctx, dut: ctx.set(dut.store.data[0], 1)),
        ("total: is driven inside", lambda ctx, dut: ctx.set(dut.total[2:], 1)),
        ("next: is driven inside", lambda ctx, dut: ctx.set(dut.next, 1)),
    ],
)
def test_what_a_compiled_component_does_not_show_is_refused(message, look):
    """It would look like what never changes."""
    dut = Mixed()

    async def bench(ctx):
        if (waiting := look(ctx, dut)) is not None:
            await waiting

    with pytest.raises(ValueError, match=message):
        simulate(dut, bench, engine="native")


def test_signals_of_test_benches_are_their_own(engine):
    dut, mine = Mixed(), Signal(4)

    async def tell(ctx):
        await ctx.tick()
        ctx.set(mine, 3)

    async def bench(ctx):
        await ctx.changed(mine)
        assert ctx.get(mine + dut.next) == 4

    assert simulate(dut, bench, tell, engine=engine) == 1


WORDS = (
    "new", "int", "default", "register", "signed", "case", "name", "eval", "EOF", "errno", "NULL",
    "this", "class", "module", "wire", "always", "clk", "rst", "i0", "o0", "top", "card",
)  # fmt: skip


class Words(wiring.Component):
    """Ports, signals, a memory and a module called like words of C++ and Verilog; some of no bits.

    Further what Amaranth's own Verilog does otherwise than its simulator.
    """

    def __init__(self):
        super().__init__(
            {word: In(8) for word in WORDS}
            | {"nothing": In(0), "none": Out(0), "level": In(Level), "low": Out(Level)}
            | {
                "sum": Out(16),
                "beyond": Out(4),
                "above": Out(4),
                "set": Out(8),
                "read": Out(8),
                "reset": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += ResetSignal().eq(self.reset)
        m.submodules["randomize"] = inside = Module()
        this = Signal(16, name="this")
        inside.d.sync += this.eq(sum(getattr(self, word) for word in WORDS))
        m.d.comb += [self.sum.eq(this + self.nothing), self.none.eq(self.nothing)]
        m.d.sync += self.low.eq(self.level)
        m.d.comb += self.beyond.eq(self.level.as_value().bit_select(self.int[:2], 4))
        m.d.comb += self.above.eq((~self.new).bit_select(self.int[:4], 4))
        with m.Switch(self.EOF):
            with m.Case(0):
                m.d.comb += self.set.eq(1)
        with m.Switch(self.nothing):
            with m.Case(0):
                m.d.comb += self.set[4:].eq(9)
        m.submodules["super"] = store = memory.Memory(shape=Header, depth=3, init=[{"kind": 2}])
        port = store.read_port()
        m.d.comb += [port.addr.eq(self.i0), port.en.eq(self.new[0]), self.read.eq(port.data)]
        return m


def test_any_name_and_any_width_will_do():
    seen = {}
    for engine in ("pysim", "native"):
        dut, seen[engine] = Words(), []

        async def bench(ctx, dut=dut, note=seen[engine].append):
            def outputs():
                names = ("sum", "none", "nothing", "low", "beyond", "above", "set", "read")
                return [ctx.get(getattr(dut, name)) for name in names]

            note(outputs())
            rng = random.Random(1)
            for _ in range(40):
                for word in WORDS:
                    ctx.set(getattr(dut, word), rng.randrange(256))
                ctx.set(dut.level, rng.choice((Level.LOW, Level.ZERO)))
                ctx.set(dut.reset, rng.random() < 0.2)
                note((await ctx.tick().sample(dut.sum, dut.nothing), outputs()))

        simulate(dut, bench, engine=engine)
    assert seen["native"] == seen["pysim"]


def test_input_that_changes_with_the_edge_of_a_clock_is_refused():
    """The simulator lets some of the component see it before, and some after."""
    dut = Mixed()

    async def late(ctx):
        await ctx.delay(2.5e-6)
        ctx.set(dut.value, 3)

    async def bench(ctx):
        await ctx.tick().repeat(5)

    assert simulate(dut, bench, processes=[late]) == 5
    message = "^Mixed: 'value' changes in the very moment of an edge of 'clk'; engine native"
    with pytest.raises(ValueError, match=message):
        simulate(dut, bench, processes=[late], engine="native")


@pytest.mark.slow
def test_both_engines_write_the_same_waveforms(tmp_path):
    files = {}
    for engine in ("pysim", "native"):
        dut = Mixed()

        async def bench(ctx, dut=dut):
            for value in range(40):
                ctx.set(dut.value, value * 7 % 256)
                await ctx.tick()
            raise KeyError

        path = tmp_path / f"{engine}.vcd"
        with pytest.raises(KeyError):
            simulate(dut, bench, engine=engine, waves=path)
        files[engine] = Vcd(path)
    for name in ("total", "next", "hidden"):
        values = {
            engine: [value for _, value in file.changes[name]] for engine, file in files.items()
        }
        distinct = {
            engine: [v for v, last in zip(seen, [None, *seen], strict=False) if v != last]
            for engine, seen in values.items()
        }
        assert distinct["native"] == distinct["pysim"]
        assert len(distinct["native"]) > 30


def test_what_is_no_component_is_refused():
    class Plain(Elaboratable):
        def elaborate(self, platform):
            m = Module()
            m.d.sync += Signal().eq(1)
            return m

    async def bench(ctx):
        await ctx.tick()

    plain = Plain()
    assert simulate(plain, bench) == 1
    with pytest.raises(ValueError, match=r"Plain: engine native needs a wiring\.Component"):
        simulate(plain, bench, engine="native")


def test_component_without_clock_is_refused():
    """The clock that is missing is the component's, whatever holds its ports."""

    class Wire(wiring.Component):
        i: In(1)
        o: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.o.eq(self.i)
            return m

    async def bench(ctx):
        await ctx.tick()

    with pytest.raises(ValueError, match=r"Wire: has no clock, nothing in it is in the `sync`"):
        simulate(Wire(), bench, engine="native")
