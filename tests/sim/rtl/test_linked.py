"""Components in parts: what is combinational through several, what rests, what never settles."""

import random

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.sim.rtl import linked
from tests.sim.rtl.test_native import edge, read, step, write

COUNT = 3
WIDE = 70


class Unit(wiring.Component):
    """`y` is `x + 1`, at once; `total` adds up what `x` was whenever it was odd."""

    idle_period = 1

    x: In(8)
    y: Out(8)
    total: Out(WIDE)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(self.x + 1)
        with m.If(self.x[0]):
            m.d.sync += self.total.eq(self.total + (self.x << 60))
        return m


class Shell(wiring.Component):
    """A chain of units from `i` to `o`, a ring while `closed`; `sum` is that of their totals."""

    i: In(8)
    closed: In(1)
    o: Out(8)
    sum: Out(WIDE)
    x: Out(8).array(COUNT)
    y: In(8).array(COUNT)
    total: In(WIDE).array(COUNT)

    def elaborate(self, platform):
        m = Module()
        cycle = Signal(4)  # a component without a register has no clock
        m.d.sync += cycle.eq(cycle + 1)
        m.d.comb += [
            self.x[0].eq(self.i + (self.y[COUNT - 1] & self.closed.replicate(8))),
            *(self.x[n + 1].eq(self.y[n]) for n in range(COUNT - 1)),
            self.o.eq(self.y[COUNT - 1]),
            self.sum.eq(sum(self.total)),
        ]
        return m


@pytest.fixture
def model():
    parts = linked.Parts(Shell, Unit, COUNT)
    [model] = linked.models(Shell, 1, parts=parts)
    yield model
    model.close()


def test_the_ports_are_those_of_the_whole(model):
    assert {port.name for port in model.ports} == {"i", "closed", "o", "sum"} == set(model.pins)


def test_paths_through_all_parts_settle_within_the_cycle(model):
    rng, totals, value = random.Random(1), [0] * COUNT, 0
    for _ in range(500):
        if rng.random() < 0.1:  # else the units come to rest
            value = rng.randrange(256)
        write(model.pins["i"], value, 1)
        step(model)
        assert read(model.pins["o"], 1) == (value + COUNT) % 256
        assert read(model.pins["sum"], 12) == sum(totals) % (1 << WIDE)
        edge(model)
        xs = [(value + n) % 256 for n in range(COUNT)]
        totals = [t + (x << 60) * (x % 2) for t, x in zip(totals, xs, strict=True)]


def test_a_unit_at_rest_wakes_within_the_cycle(model):
    write(model.pins["i"], 0, 1)
    model.run(1000)
    step(model)
    before = read(model.pins["sum"], 12)
    write(model.pins["i"], 3, 1)
    model.run(1)
    step(model)
    assert read(model.pins["o"], 1) == 3 + COUNT
    assert read(model.pins["sum"], 12) == (before + (3 + 5 << 60)) % (1 << WIDE)


def test_a_combinational_loop_is_told(model):
    assert model.error is None
    write(model.pins["closed"], 1, 1)
    model.run(10)
    assert "do not settle: a loop through them is combinational" in str(model.error)
