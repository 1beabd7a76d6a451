"""A compiled component is what Amaranth simulates: the same test bench sees the same."""

import pytest
from amaranth.hdl import Elaboratable, Module, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.sim.testbench import simulate
from tests.sim.test_waves import Vcd

PAIR = data.StructLayout({"low": 4, "high": signed(70)})


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
        super().__init__()

    def elaborate(self, platform):
        m = Module()
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


@pytest.mark.parametrize("how", ["get", "set", "sample", "until", "changed"])
def test_inner_signals_of_a_compiled_component_are_refused(how):
    """They would look like signals that never change."""
    dut = Mixed()

    async def bench(ctx):
        match how:
            case "get":
                ctx.get(dut.hidden + dut.value)
            case "set":
                ctx.set(dut.hidden, 1)
            case "sample":
                ctx.tick().sample(dut.hidden)
            case "until":
                await ctx.tick().until(dut.hidden == 3)
            case "changed":
                await ctx.changed(dut.hidden)

    with pytest.raises(ValueError, match="hidden: is no port of Mixed; engine native knows ports"):
        simulate(dut, bench, engine="native")


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
