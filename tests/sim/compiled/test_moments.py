"""What changes step by step in the simulator, and at once where it is compiled."""

import pytest
from amaranth.hdl import Assert, Cat, ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from halfdome.sim.testbench import simulate


class Steps(wiring.Component):
    """Registers, and what comes after them: by one way, or by several that differ in length."""

    value: In(8)
    reset: In(1)
    count: Out(8)
    copied: Out(8)
    cleared: Out(8)
    cleared_late: Out(8)
    following: Out(8)
    next: Out(8)
    next_to_value: Out(8)
    next_of_both: Out(8)
    spiked: Out(8)
    ripple: Out(8)
    row: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.domains.copy = ClockDomain(reset_less=True)
        m.domains.cleared = ClockDomain(async_reset=True)
        m.domains.late = ClockDomain(async_reset=True)
        m.d.comb += [
            ClockSignal("copy").eq(ClockSignal()),
            ResetSignal("cleared").eq(self.reset),
            ResetSignal("late").eq(self.count[2]),
        ]
        m.d.sync += self.count.eq(self.count + 1)
        m.d.copy += self.copied.eq(self.copied + 1)
        m.d.cleared += self.cleared.eq(self.cleared + 1)
        m.d.late += self.cleared_late.eq(self.cleared_late + 1)
        inverted, back = Signal(8), Signal(8)
        m.d.comb += [
            self.following.eq(self.count),
            self.next.eq(self.count + 1),
            self.next_to_value.eq(self.value + 1),
            self.next_of_both.eq(self.value + self.count),
            inverted.eq(~self.count),
            back.eq(~inverted),
            self.spiked.eq(self.count ^ back),
            self.ripple.eq(Cat(self.count[0], self.ripple[:7])),
        ]
        m.submodules.store = store = memory.Memory(shape=8, depth=2, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        m.d.comb += [write.data.eq(self.count), write.en.eq(1), self.row.eq(read.data)]
        return m


async def ticking(ctx):
    async for _ in ctx.tick():
        pass


@pytest.fixture
def compiled():
    """Simulates what waits for a component; returns what it has given under both engines."""

    def compiled(waiting, **options):
        seen = {"native": [], "pysim": []}
        for engine, noted in seen.items():
            dut = Steps()

            async def bench(ctx, dut=dut, noted=noted):
                for _ in range(5):
                    noted.append((await waiting(ctx, dut), ctx.get(dut.count)))

            clocks = {"cleared": 1e-6, "late": 1e-6}
            simulate(dut, bench, clocks=clocks, engine=engine, **options)
        assert len(seen["native"]) == 5
        assert seen["native"] == seen["pysim"]

    return compiled


REGISTERS = ("count", "cleared")
SETTLE_AT_ONCE = ("copied", "following", "next", "next_of_both", "row")
SETTLE_IN_STEPS = ("cleared_late", "spiked", "ripple")


@pytest.mark.parametrize("name", REGISTERS + SETTLE_AT_ONCE)
def test_what_changes_once_is_waited_for(compiled, name):
    compiled(lambda ctx, dut: ctx.changed(getattr(dut, name)).sample(dut.count))
    compiled(lambda ctx, dut: ctx.posedge(getattr(dut, name)[0]))


@pytest.mark.parametrize("name", SETTLE_IN_STEPS)
def test_what_settles_in_several_steps_is_not_waited_for(compiled, name):
    with pytest.raises(ValueError, match=f"^{name}: may change several times .* engine pysim"):
        compiled(lambda ctx, dut: ctx.changed(getattr(dut, name)))


@pytest.mark.parametrize("name", SETTLE_AT_ONCE)
def test_beside_processes_only_registers_are_waited_for(compiled, name):
    compiled(lambda ctx, dut: ctx.changed(dut.count), processes=[ticking])
    with pytest.raises(ValueError, match=f"^{name}: may change several times"):
        compiled(lambda ctx, dut: ctx.changed(getattr(dut, name)), processes=[ticking])


@pytest.mark.parametrize("name", SETTLE_AT_ONCE + SETTLE_IN_STEPS)
def test_what_comes_late_is_not_sampled_at_the_change_of_a_register(compiled, name):
    with pytest.raises(ValueError, match=f"^{name}: changes after count at whose change"):
        compiled(lambda ctx, dut: ctx.changed(dut.count).sample(getattr(dut, name)))


def test_whether_two_outputs_change_together_is_not_asked(compiled):
    with pytest.raises(ValueError, match=r"^next: changes after count"):
        compiled(lambda ctx, dut: ctx.posedge(dut.count[0]).negedge(dut.next[0]))


def test_clock_samples_everything(compiled):
    names = REGISTERS + SETTLE_AT_ONCE + SETTLE_IN_STEPS
    compiled(
        lambda ctx, dut: ctx.tick().sample(*(getattr(dut, name) for name in names)),
        processes=[ticking],
    )


def test_what_a_process_sets_is_not_waited_for_to_sample_what_comes_late(compiled):
    compiled(lambda ctx, dut: ctx.changed(dut.count).sample(dut.next_to_value))
    mine = Signal()

    async def toggles(ctx):
        async for _, _, level in ctx.tick().sample(mine):
            ctx.set(mine, ~level)

    with pytest.raises(ValueError, match=r"^next: changes after mine"):
        compiled(lambda ctx, dut: ctx.changed(mine).sample(dut.next), processes=[toggles])


class Matched(wiring.Component):
    """Asserts that its input follows its register."""

    value: In(8)
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + 1)
        m.d.comb += Assert(self.value == self.count)
        return m


@pytest.mark.parametrize("engine", ["pysim", "native"])
@pytest.mark.parametrize("off", [0, 1])
def test_combinational_check_sees_what_a_process_sets_with_the_registers(engine, off):
    dut = Matched()

    async def follow(ctx):
        async for _, _, count in ctx.tick().sample(dut.count):
            ctx.set(dut.value, count + 1 + off)

    async def bench(ctx):
        await ctx.tick().repeat(5)

    if off:
        with pytest.raises(AssertionError, match="Assertion violated"):
            simulate(dut, bench, processes=[follow], engine=engine)
    else:
        assert simulate(dut, bench, processes=[follow], engine=engine) == 5
