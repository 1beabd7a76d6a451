"""Test files of users."""

COUNTER = '''
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Counter(wiring.Component):
    """Counts the cycles in which `go` is set."""

    go: In(1)
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.go):
            m.d.sync += self.count.eq(self.count + 1)
        return m


def count_to(dut, expected, steps=5):
    async def bench(ctx):
        ctx.set(dut.go, 1)
        for _ in range(steps):
            await ctx.tick()
        assert ctx.get(dut.count) == expected

    return bench

'''

SIMULATION = COUNTER + (
    "def test_counts(simulate):\n"
    "    dut = Counter()\n"
    "    assert simulate(dut, count_to(dut, {expected})) == 5\n"
)

WRONG = (
    "import numpy as np\n"
    "def test_wrong(runtime, card):\n"
    "    runtime.platform.run(100)\n"
    "    y = card.linear(np.ones((1, 4), np.uint8), np.ones((4, 4), np.int8), 1.0)\n"
    "    assert (y == {expected}).all()\n"
)
