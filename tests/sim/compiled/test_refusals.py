"""What a compiled model would do otherwise is refused by name; what is alike is not.

Whether that is so, the fuzzer judges. Nothing is compiled here.
"""

import pytest
from amaranth.hdl import (
    Assert,
    ClockDomain,
    ClockSignal,
    Fragment,
    Instance,
    IOBufferInstance,
    IOPort,
    Module,
    Print,
    ResetSignal,
    Signal,
)
from amaranth.hdl._ast import SignalSet
from amaranth.lib import cdc, memory, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.rtlil import ports_of
from halfdome.sim.compiled.refusals import NotFollowed
from halfdome.sim.compiled.translation import translate
from halfdome.sim.testbench import simulate


class Case(wiring.Component):
    """Ports, a counter in `sync`, and what a case adds."""

    data: In(8)
    bit: In(1)
    other: In(1)
    count: Out(8)
    result: Out(8)
    flag: Out(1)

    def __init__(self, add):
        self._add = add
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + 1)
        self._add(self, m)
        return m


def translated(add, *, processes=False):
    """The translation of a case in which `sync`, and `slow` if there is one, have clocks."""
    component = Case(add)
    design = Fragment.get(component, None).prepare()
    domains = design.fragment.domains
    periodic = SignalSet(domains[name].clk for name in ("sync", "slow") if name in domains)
    return translate(
        design.fragment,
        ports=[value for _, _, value in ports_of(component)],
        periodic=periodic,
        processes=processes,
    )


def gated_clock(self, m):
    m.domains.gated = ClockDomain()
    m.d.comb += ClockSignal("gated").eq(ClockSignal() & self.bit)
    m.d.gated += self.result.eq(self.count)


def divided_clock(self, m):
    m.domains.half = ClockDomain()
    m.d.comb += ClockSignal("half").eq(self.count[0])
    m.d.half += self.result.eq(self.data)


def registered_clock(self, m):
    m.domains.half = ClockDomain()
    m.d.sync += ClockSignal("half").eq(~ClockSignal("half"))
    m.d.half += self.result.eq(self.data)


def clock_under_a_condition(self, m):
    m.domains.gated = ClockDomain()
    with m.If(self.bit):
        m.d.comb += ClockSignal("gated").eq(ClockSignal())
    m.d.gated += self.result.eq(1)


def clock_of_a_memory(self, m):
    m.domains.gated = ClockDomain()
    m.d.comb += ClockSignal("gated").eq(self.bit & self.other)
    m.submodules.store = store = memory.Memory(shape=8, depth=4, init=[])
    port = store.write_port(domain="gated")
    m.d.comb += port.data.eq(self.data)


@pytest.mark.parametrize(
    "add",
    [gated_clock, divided_clock, registered_clock, clock_under_a_condition, clock_of_a_memory],
)
def test_clock_that_is_made_inside_is_refused(add):
    with pytest.raises(
        NotFollowed, match=r"clock of domain '\w+' is made by the component \(.*refusals"
    ):
        translated(add)


def clock_in_logic(self, m):
    m.d.comb += self.result.eq(ClockSignal())


def clock_in_a_condition(self, m):
    with m.If(ClockSignal()):
        m.d.sync += self.result.eq(self.data)


def clock_as_an_index(self, m):
    m.d.sync += self.result.bit_select(ClockSignal(), 1).eq(1)


def clock_in_a_message(self, m):
    m.d.sync += Print(ClockSignal())


def clock_as_an_address(self, m):
    m.submodules.store = store = memory.Memory(shape=8, depth=2, init=[])
    port = store.read_port(domain="comb")
    m.d.comb += [port.addr.eq(ClockSignal()), self.result.eq(port.data)]


@pytest.mark.parametrize(
    "add",
    [
        clock_in_logic,
        clock_in_a_condition,
        clock_as_an_index,
        clock_in_a_message,
        clock_as_an_address,
    ],
)
def test_clock_that_is_used_as_data_is_refused(add):
    with pytest.raises(NotFollowed, match=r"the clock 'clk' is used as data \(.*test_refusals"):
        translated(add)


def test_port_that_shows_a_clock_is_refused():
    def add(self, m):
        m.domains.copy = domain = ClockDomain()
        domain.clk = self.flag
        m.d.comb += ClockSignal("copy").eq(ClockSignal())
        m.d["copy"] += Signal(name="register").eq(1)

    with pytest.raises(NotFollowed, match="its port 'flag' shows the clock 'flag'"):
        translated(add)


def instance(self, m):
    m.submodules += Instance("BUFG", o_o=self.result)


def io_buffer(self, m):
    m.submodules += IOBufferInstance(IOPort(8, name="pads"), i=self.result)


@pytest.mark.parametrize(
    ("add", "message"),
    [(instance, r"an instance of 'BUFG' \(.*\), whose"), (io_buffer, "an I/O buffer")],
)
def test_parts_whose_inside_is_unknown_are_refused(add, message):
    with pytest.raises(NotFollowed, match=message):
        translated(add)


def asynchronous(reset):
    """Adds a register whose domain is reset by what `reset(component)` returns."""

    def add(self, m):
        m.domains.slow = ClockDomain(async_reset=True)
        m.d.comb += ResetSignal("slow").eq(reset(self))
        m.d.slow += self.result.eq(self.data)

    return add


@pytest.mark.parametrize(
    "reset",
    [
        lambda self: self.bit,
        lambda self: ~self.bit,
        lambda self: ~~self.data[3],
        lambda self: self.data.any(),
        lambda self: self.count[7],
        lambda self: 0,
    ],
    ids=["input", "inverted", "bit", "any", "register", "never"],
)
def test_asynchronous_reset_of_one_signal_is_followed(reset):
    translated(asynchronous(reset))


@pytest.mark.parametrize(
    "reset",
    [
        lambda self: self.bit & self.other,
        lambda self: ~(self.bit | self.other),
        lambda self: self.data.bit_select(self.bit, 1),
    ],
    ids=["and", "nor", "select"],
)
def test_asynchronous_reset_of_several_signals_is_refused(reset):
    with pytest.raises(NotFollowed, match="reset of domain 'slow' is made of several signals"):
        translated(asynchronous(reset))


def kept_register(self, m):
    m.d.slow += Signal(8, reset_less=True, name="kept").eq(self.data)


def kept_memory(self, m):
    m.submodules.store = store = memory.Memory(shape=8, depth=2, init=[])
    port = store.write_port(domain="slow")
    m.d.comb += port.data.eq(self.data)


def read_memory(self, m):
    m.submodules.store = store = memory.Memory(shape=8, depth=2, init=[])
    m.d.comb += self.result.eq(store.read_port(domain="slow").data)


def check(self, m):
    m.d.slow += Assert(self.bit)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (kept_register, "its register 'kept'"),
        (kept_memory, "its memory 'store'"),
        (read_memory, "its memory 'store'"),
        (check, "its statement"),
    ],
)
def test_what_an_asynchronous_reset_does_not_reset_is_refused(part, message):
    def add(self, m):
        m.domains.slow = ClockDomain(async_reset=True)
        part(self, m)

    with pytest.raises(NotFollowed, match=rf"{message} \(.*\) is not reset, but in domain 'slow'"):
        translated(add)


def copied(clocked, *, edge="pos", source="sync"):
    """Adds a domain whose clock is a copy, and in it what `clocked(component)` returns."""

    def add(self, m):
        m.domains.copy = ClockDomain(clk_edge=edge)
        m.d.comb += ClockSignal("copy").eq(self.bit if source == "bit" else ClockSignal(source))
        m.d["copy"] += self.result.eq(clocked(self))

    return add


@pytest.mark.parametrize(
    "add",
    [
        copied(lambda self: self.result + 1),
        copied(lambda self: self.data),
        copied(lambda self: self.count, edge="neg"),
        copied(lambda self: self.count, source="bit"),
    ],
    ids=["itself", "input", "other edge", "clock of a port"],
)
def test_copy_of_a_clock_is_followed_where_being_late_changes_nothing(add):
    translated(add)


@pytest.mark.parametrize(
    "value",
    [lambda self: self.count, lambda self: ~self.count & self.data],
    ids=["direct", "logic"],
)
def test_copy_of_a_clock_behind_registers_of_the_clock_is_refused(value):
    with pytest.raises(NotFollowed, match="copy, which comes after the change of 'count' that"):
        translated(copied(value))


def test_copy_of_a_clock_behind_a_memory_of_the_clock_is_refused():
    def add(self, m):
        m.submodules.store = store = memory.Memory(shape=8, depth=2, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        m.d.comb += [write.data.eq(self.data), write.en.eq(1)]
        copied(lambda _: read.data)(self, m)

    with pytest.raises(NotFollowed, match="copy, which comes after the change of 'store' that"):
        translated(add)


def test_process_may_change_an_input_in_the_wake_of_a_clock():
    add = copied(lambda self: self.data)
    translated(add, processes=False)
    with pytest.raises(NotFollowed, match="copy, which comes after the change of 'data' that"):
        translated(add, processes=True)


@pytest.mark.parametrize("edge", ["pos", "neg"])
def test_synchronizer_of_the_library_is_followed(edge):
    def add(self, m):
        m.submodules += cdc.AsyncFFSynchronizer(self.bit, self.flag, async_edge=edge)

    translated(add, processes=True)


def test_component_is_named_with_what_to_do():
    async def bench(ctx):
        await ctx.tick()

    message = r"^Case: the clock .* \(.*\); engine native does not follow that, engine pysim does$"
    with pytest.raises(ValueError, match=message):
        simulate(Case(gated_clock), bench, engine="native")
