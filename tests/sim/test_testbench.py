"""`simulate` itself: clocks, processes, what hangs, and how benches end; alike on both engines."""

import gc
from pathlib import Path

import pytest
from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from halfdome.sim.settling import CombinationalLoop
from halfdome.sim.testbench import simulate


@pytest.fixture(params=["pysim", "native"])
def engine(request):
    return request.param


class TwoClocks(wiring.Component):
    """A counter in `sync`, seen by a register in `slow`, and one at the falling edge of its own."""

    value: In(8)
    next: Out(8)
    count: Out(8)
    seen: Out(8)
    fallen: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.domains.fall = ClockDomain(clk_edge="neg", reset_less=True)
        m.d.comb += self.next.eq(self.value + 1)
        m.d.sync += self.count.eq(self.count + 1)
        m.d.slow += self.seen.eq(self.count)
        m.d.fall += self.fallen.eq(self.value)
        return m


CLOCKS = {"slow": 3e-6, "fall": 2e-6}


def test_every_domain_has_the_clock_it_is_given(engine):
    """Where edges of `slow` and `sync` come together, `slow` takes what was before."""
    dut, seen = TwoClocks(), []

    async def bench(ctx):
        for _ in range(3):
            await ctx.tick("slow")
            seen.append((ctx.get(dut.count), ctx.get(dut.seen)))
        ctx.set(dut.value, 9)
        await ctx.tick("fall")
        seen.append(ctx.get(dut.fallen))

    assert simulate(dut, bench, clocks=CLOCKS, engine=engine) == 8
    assert seen == [(2, 1), (5, 4), (8, 7), 9]


def test_cycles_are_those_of_the_first_clock_where_there_is_no_sync(engine):
    class Slow(wiring.Component):
        count: Out(8)

        def elaborate(self, platform):
            m = Module()
            m.d.slow += self.count.eq(self.count + 1)
            return m

    dut = Slow()

    async def bench(ctx):
        await ctx.tick("slow").until(dut.count == 4)

    assert simulate(dut, bench, clocks={"slow": 1e-3}, engine=engine) == 5


def test_period_of_sync_may_be_given():
    dut, ticks = TwoClocks(), []

    async def watch(ctx):
        async for _ in ctx.tick("fall"):
            ticks.append(1)

    async def bench(ctx):
        await ctx.tick().repeat(10)

    simulate(dut, bench, background=[watch], clocks=CLOCKS | {"sync": 2e-6, "fall": 1e-6})
    assert len(ticks) == 19


@pytest.mark.parametrize(
    ("clocks", "message"),
    [
        ({"slow": 1e-6, "fall": 1e-6, "fast": 1e-6}, "no domain 'fast'; there is fall, "),
        ({"slow": 0, "fall": 1e-6}, "'slow': 0: must be a period in seconds"),
        ({"slow": float("nan"), "fall": 1e-6}, "'slow': nan: must be a period in seconds"),
        ({"fall": 1e-6}, r"domain 'slow': nothing drives it; give .* clocks=\{'slow'"),
    ],
)
def test_clocks_that_do_not_fit_the_domains_are_refused(engine, clocks, message):
    async def bench(ctx):
        await ctx.tick()

    with pytest.raises(ValueError, match=f"^TwoClocks: .*{message}"):
        simulate(TwoClocks(), bench, clocks=clocks, engine=engine)


def test_component_that_drives_the_clock_of_its_own_sync_is_refused(engine):
    class Driven(wiring.Component):
        clock: In(1)
        count: Out(8)

        def elaborate(self, platform):
            m = Module()
            m.domains.sync = ClockDomain()
            m.d.comb += ClockSignal().eq(self.clock)
            m.d.sync += self.count.eq(self.count + 1)
            return m

    async def bench(ctx):
        await ctx.tick()

    with pytest.raises(ValueError, match="Driven: drives the clock of its own domain 'sync'"):
        simulate(Driven(), bench, engine=engine)


def test_processes_stand_for_hardware(engine):
    """One is combinational, from an output to an input, the other has a clock."""
    dut, seen = TwoClocks(), []
    doubled, count = Signal(8), Signal(8)

    async def double(ctx):
        async for (value,) in ctx.changed(dut.next):
            ctx.set(doubled, 2 * value)

    async def step(ctx):
        async for _, _, value in ctx.tick().sample(dut.count):
            ctx.set(dut.value, value + 1)
            ctx.set(count, value)

    async def bench(ctx):
        for _ in range(4):
            await ctx.tick()
            seen.append([ctx.get(s) for s in (dut.value, dut.next, doubled, count)])

    simulate(dut, bench, processes=[double, step], clocks=CLOCKS, engine=engine)
    assert seen == [[n + 1, n + 2, 2 * n + 4, n] for n in range(4)]


def test_benches_at_both_ends_of_an_asynchronous_fifo(engine):
    class Crossing(wiring.Component):
        data: In(8)
        put: In(1)
        ready: Out(1)
        out: Out(8)
        take: In(1)
        valid: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.submodules.fifo = f = fifo.AsyncFIFO(
                width=8, depth=4, w_domain="sync", r_domain="slow"
            )
            m.d.comb += [
                f.w_data.eq(self.data), f.w_en.eq(self.put), self.ready.eq(f.w_rdy),
                self.out.eq(f.r_data), f.r_en.eq(self.take), self.valid.eq(f.r_rdy),
            ]  # fmt: skip
            return m

    dut, received = Crossing(), []

    async def put(ctx):
        ctx.set(dut.put, 1)
        for value in range(20):
            ctx.set(dut.data, value)
            await ctx.tick().until(dut.ready)
        ctx.set(dut.put, 0)

    async def take(ctx):
        ctx.set(dut.take, 1)
        for _ in range(20):
            received.extend(await ctx.tick("slow").sample(dut.out).until(dut.valid))

    cycles = simulate(dut, put, take, clocks={"slow": 1.7e-6}, engine=engine)
    assert received == list(range(20))
    assert cycles == 37


class Counter(wiring.Component):
    """Counts the cycles in which `go` is set."""

    go: In(1)
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.go):
            m.d.sync += self.count.eq(self.count + 1)
        return m


async def until_done(ctx, dut):
    await ctx.tick().until(dut.count == 200)


def place_of(line: str) -> str:
    """Where this file first has the line, as messages have it."""
    lines = [text.strip() for text in Path(__file__).read_text().splitlines()]
    return f"{__file__}:{lines.index(line) + 1}"


def test_hanging_bench_is_named_with_the_lines_it_waits_at(engine):
    dut = Counter()

    async def finished(ctx):
        await ctx.tick()

    async def drive(ctx):
        await until_done(ctx, dut)

    async def watch(ctx):
        while True:
            await ctx.tick()

    with pytest.raises(AssertionError) as caught:
        simulate(dut, finished, drive, background=[watch], cycles=20, engine=engine)
    outer, inner = "await until_done(ctx, dut)", "await ctx.tick().until(dut.count == 200)"
    assert str(caught.value).splitlines() == [
        "Counter: simulation did not end within 20 cycles",
        f"  drive waits at {place_of(outer)}: {outer}",
        f"    until_done at {place_of(inner)}: {inner}",
    ]


@pytest.mark.parametrize("wait", ["until", "repeat", "for", "tick", "changed"])
def test_benches_that_still_wait_are_ended(engine, wait):
    """CPython before 3.13 cannot close some of them by itself, and tells so at pytest's end."""
    dut, ended = Counter(), []

    async def waiting(ctx):
        try:
            match wait:
                case "until":
                    await ctx.tick().until(dut.count == 200)
                case "repeat":
                    await ctx.tick().repeat(1000)
                case "for":
                    async for _ in ctx.tick().sample(dut.count):
                        pass
                case "tick":
                    while True:
                        await ctx.tick()
                case "changed":
                    await ctx.changed(dut.count)
        finally:
            ended.append(wait)

    async def bench(ctx):
        await ctx.tick()

    async def fails(ctx):
        await ctx.tick()
        raise KeyError

    simulate(dut, bench, background=[waiting], engine=engine)
    with pytest.raises(KeyError):
        simulate(dut, fails, background=[waiting], engine=engine)
    with pytest.raises(AssertionError, match="did not end"):
        simulate(dut, waiting, cycles=5, engine=engine)
    gc.collect()
    assert ended == [wait] * 3


def test_bench_that_is_never_begun_is_ended_without_a_warning():
    async def fails(ctx):
        raise KeyError

    async def never(ctx):
        await ctx.tick()

    with pytest.raises(KeyError):
        simulate(Counter(), fails, never, background=[never])
    with pytest.raises(TypeError, match="not an async function"):
        simulate(Counter(), never, len)
    gc.collect()


def test_what_a_background_bench_finds_at_its_end_counts():
    async def watch(ctx):
        try:
            while True:
                await ctx.tick()
        finally:
            raise AssertionError("something is left over")

    async def bench(ctx):
        await ctx.tick()

    async def fails(ctx):
        await ctx.tick()
        raise KeyError

    with pytest.raises(AssertionError, match="something is left over"):
        simulate(Counter(), bench, background=[watch])
    with pytest.raises(KeyError):
        simulate(Counter(), fails, background=[watch])


def test_bench_that_goes_on_waiting_at_its_end_is_left():
    is_stubborn = True

    async def stubborn(ctx):
        while is_stubborn:
            try:
                await ctx.tick()
            except BaseException:
                continue

    async def bench(ctx):
        await ctx.tick()

    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        simulate(Counter(), bench, background=[stubborn])
    is_stubborn = False
    gc.collect()


class Loop(wiring.Component):
    """A latch that oscillates while it is enabled."""

    enable: In(1)
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        there = Signal()
        back = Signal()
        m.d.comb += [there.eq(~back & self.enable), back.eq(there)]
        m.d.sync += self.count.eq(self.count + there)
        return m


def test_combinational_loop_is_named(engine):
    dut = Loop()

    async def bench(ctx):
        ctx.set(dut.enable, 1)

    with pytest.raises(CombinationalLoop, match=r"^Loop: ") as caught:
        simulate(dut, bench, engine=engine)
    for name in ("there", "back"):
        assert name in str(caught.value)
    assert "test_testbench.py:" in str(caught.value)


def test_long_chain_is_no_loop():
    """A bit more each delta cycle, as each module sees its own signal's change only then."""

    class Ripple(wiring.Component):
        start: In(1)
        end: Out(1)

        def elaborate(self, platform):
            m = Module()
            chain = Signal(3000)
            m.d.comb += [chain.eq((chain << 1) | self.start), self.end.eq(chain[-1])]
            m.d.sync += Signal().eq(1)
            return m

    dut = Ripple()

    async def bench(ctx):
        ctx.set(dut.start, 1)
        assert ctx.get(dut.end)

    simulate(dut, bench)
