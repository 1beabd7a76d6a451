"""`Assert`, `Assume`, `Cover` and `Print` do the same compiled, to the letter."""

import traceback

import pytest
from amaranth.hdl import Assert, Assume, ClockDomain, Cover, Format, Module, Print, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from halfdome.sim.testbench import simulate


class Level(enum.Enum, shape=signed(3)):
    """A member below zero."""

    LOW = -2
    ZERO = 0
    HIGH = 1


class Checked(wiring.Component):
    """A counter with every kind of check; those of `late` are in a module and domain of its own."""

    level: In(Level)
    value: In(16)
    limit: In(8, init=200)
    even: In(1)
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.domains.late = ClockDomain(clk_edge="neg", reset_less=True)
        m.submodules.late = late = Module()
        m.d.sync += self.count.eq(self.count + 1)
        m.d.sync += Assert(self.count < self.limit, Format("{} of {:#04x}", self.count, self.limit))
        m.d.comb += Assume(self.value != 0xDEAD)
        with m.If(self.even & ~self.count[0]):
            m.d.sync += Cover(self.count, Format("even {count}", count=self.count))
            m.d.sync += Cover(self.count)
            m.d.sync += Print(Format("{:_b}|{:>8x}|{}", self.value, self.value, self.level))
        with m.Switch(self.value):
            with m.Case(7):
                m.d.comb += Print("seven ", self.value.as_signed(), sep="", end="")
        with late.If(self.value == 9):
            late.d.late += Assert(0, "late nine {}")
        text = Signal(24, init=int.from_bytes(b"abc", "little"))
        late.d.late += Print(Format("<{:s}> <{:5s}> <{:c}>", text, text[:16], text[16:]))
        return m


@pytest.fixture(params=["pysim", "native"])
def engine(request):
    return request.param


def run(engine, drive, dut=None):
    dut = dut or Checked()

    async def bench(ctx):
        await drive(ctx, dut)

    simulate(dut, bench, clocks={"late": 1e-6}, engine=engine)


def line_of(error: AssertionError) -> str:
    """The line of the source that the traceback ends at."""
    return traceback.extract_tb(error.__traceback__)[-1].line


def test_failing_assert_has_its_message_and_line(engine):
    async def drive(ctx, dut):
        ctx.set(dut.limit, 3)
        for expected in (1, 2, 3):
            await ctx.tick()
            assert ctx.get(dut.count) == expected
        await ctx.tick()

    with pytest.raises(AssertionError, match=r"^Assertion violated: 3 of 0x03$") as caught:
        run(engine, drive)
    assert line_of(caught.value).startswith("m.d.sync += Assert(self.count < self.limit")


def test_combinational_assumption_fails_where_an_input_is_set(engine):
    async def drive(ctx, dut):
        await ctx.tick()
        with pytest.raises(AssertionError, match=r"^Assumption violated$") as caught:
            ctx.set(dut.value, 0xDEAD)
        assert line_of(caught.value) == "m.d.comb += Assume(self.value != 0xDEAD)"

    run(engine, drive)


def test_checks_of_every_domain_count(engine):
    async def drive(ctx, dut):
        ctx.set(dut.value, 9)
        await ctx.tick().repeat(2)

    with pytest.raises(AssertionError, match=r"^Assertion violated: late nine \{\}$"):
        run(engine, drive)


def test_output_is_that_of_the_simulator(capsys):
    """Print and Cover in clock domains; what is combinational prints when it has changed."""

    async def drive(ctx, dut):
        await ctx.tick().repeat(2)
        for even, value, level in ((1, 0xBEEF, Level.LOW), (0, 1, Level.HIGH), (1, 2, Level.HIGH)):
            ctx.set(dut.even, even)
            ctx.set(dut.value, value)
            ctx.set(dut.level, level)
            await ctx.tick().repeat(2)

    printed = {}
    for engine in ("pysim", "native"):
        run(engine, drive)
        printed[engine] = capsys.readouterr().out
    assert printed["native"] == printed["pysim"]
    lines = printed["native"].splitlines()
    assert lines.count("<abc> <ab   > <c>") == 7
    assert "1011_1110_1110_1111|    beef|LOW" in lines
    assert "10|       2|HIGH" in lines
    (covered,) = (line for line in lines if line.endswith("even 6"))
    assert covered.startswith(f"Coverage hit at {__file__}:")


def test_combinational_print_prints_what_is_new(capsys):
    async def drive(ctx, dut):
        for value in (7, 8, 7):
            ctx.set(dut.value, value)
            ctx.set(dut.limit, 100 + value)

    run("native", drive)
    assert capsys.readouterr().out == "seven 7" * 2
