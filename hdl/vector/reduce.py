"""Sums and largest elements of rows, a group of elements a cycle, without ever waiting."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.arith.add import FloatAdd
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register

PARTIAL_SUMS = 4
"""Partial results of a row: as many as an addition takes cycles, so that each group adds to one
that is finished."""

_MINUS_ZERO = 1 << 31
_MINUS_INFINITY = 1 << 31 | FLOAT32.infinity


def above(a, b) -> Value:
    """Whether fp32 `a` is above `b`, +0 being above -0; neither may be NaN."""
    a, b = FLOAT32.layout(a), FLOAT32.layout(b)
    return Mux(a.sign ^ b.sign, b.sign, (a.magnitude > b.magnitude) ^ a.sign)


class _Node(wiring.Component):
    """o = a + b, or the larger of both, NaN if either is; `latency` cycles later."""

    latency = FloatAdd.latency

    def __init__(self):
        super().__init__({"largest": In(1), "a": In(32), "b": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.add = add = FloatAdd(FLOAT32)
        larger = Signal(32)
        m.d.comb += larger.eq(Mux(above(self.a, self.b), self.a, self.b))
        with m.If(FLOAT32.layout(self.a).is_nan | FLOAT32.layout(self.b).is_nan):
            m.d.comb += larger.eq(FLOAT32.quiet_nan)
        top = register(m, larger, "top", cycles=self.latency)
        m.d.comb += [
            add.a.eq(self.a),
            add.b.eq(self.b),
            self.o.eq(Mux(self.largest, top, add.o)),
        ]
        return m


_TURNS = (_Node.latency, _Node.latency + 1, 2 * _Node.latency + 1)
"""Cycles after a row's last group in which one adder is given the first pair of partial results,
the second one, and the sums of both."""


class RowReducer(wiring.Component):
    """Reduces rows that come as groups of `lanes` fp32.

    Exactly as `halfdome.sim.golden.vector.reduce_rows`.

    Parameters
    ----------
    lanes : int
    in_turns : bool
        One adder for everything behind the tree over a group: after a row's last group there are
        cycles, those of `turns`, in which no other group may come, nor the only one of its row in
        the cycle after it.

    Members
    -------
    largest : In(1), the largest element rather than the sum; constant while anything is inside
    valid : In(1), a group comes
    i : In(lanes x 32)
    present : In(lanes), which elements belong to the row
    last : In(1), the group ends a row
    o : Out(32), with `o_valid`: the result of a row, `latency` cycles after its last group

    One group a cycle; rows follow each other without a gap, but for `turns`.
    """

    def __init__(self, lanes: int, *, in_turns: bool = False):
        self._lanes = lanes
        self._in_turns = in_turns
        self._tree_latency = exact_log2(lanes) * _Node.latency
        self.latency = self._tree_latency + 3 * _Node.latency + in_turns
        #: Cycles after a row's last group that its partial results take at the only adder.
        self.turns = _TURNS if in_turns else ()
        super().__init__(
            {
                "largest": In(1),
                "valid": In(1),
                "i": In(data.ArrayLayout(32, lanes)),
                "present": In(lanes),
                "last": In(1),
                "o": Out(32),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        neutral = Mux(self.largest, _MINUS_INFINITY, _MINUS_ZERO)

        def combine(a, b, name):
            m.submodules[name] = node = _Node()
            m.d.comb += [node.largest.eq(self.largest), node.a.eq(a), node.b.eq(b)]
            return node.o

        # A tree over the group.
        level = [Mux(self.present[k], self.i[k], neutral) for k in range(self._lanes)]
        depth = 0
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [combine(a, b, f"tree_{depth}_{k}") for k, (a, b) in enumerate(pairs)]
            depth += 1
        valid = _delay(m, self.valid, self._tree_latency, "valid")
        last = _delay(m, self.valid & self.last, self._tree_latency, "last")

        # Partial results: group g of a row joins number g % 4, the first four start theirs.
        turn = Signal(range(PARTIAL_SUMS))
        started = Signal()  # every number has been started
        partial = [Signal(32, name=f"partial_{k}") for k in range(PARTIAL_SUMS)]
        with m.If(valid):
            m.d.sync += turn.eq(Mux(last, 0, turn + 1))
            m.d.sync += started.eq(~last & (started | (turn == PARTIAL_SUMS - 1)))

        tag = data.StructLayout({"valid": 1, "last": 1, "turn": 2, "started": 1})
        tags = [Signal(tag, name=f"tag_{k}") for k in range(_Node.latency + 1)]
        m.d.comb += [
            tags[0].valid.eq(valid),
            tags[0].last.eq(last),
            tags[0].turn.eq(turn),
            tags[0].started.eq(started),
        ]
        for earlier, later in pairwise(tags):
            m.d.sync += later.eq(earlier)
        done = tags[-1]
        before = Signal(32)
        m.submodules.accumulate = accumulate = _Node()
        with m.If(~started):
            m.d.comb += before.eq(neutral)
        with m.Elif(done.valid & (done.turn == turn)):
            m.d.comb += before.eq(accumulate.o)
        with m.Else():
            with m.Switch(turn):
                for k in range(PARTIAL_SUMS):
                    with m.Case(k):
                        m.d.comb += before.eq(partial[k])
        operands = Signal(data.ArrayLayout(32, 2))
        m.d.comb += [
            operands[0].eq(before),
            operands[1].eq(level[0]),
            accumulate.largest.eq(self.largest),
            accumulate.a.eq(operands[0]),
            accumulate.b.eq(operands[1]),
        ]
        with m.If(done.valid):
            with m.Switch(done.turn):
                for k in range(PARTIAL_SUMS):
                    with m.Case(k):
                        m.d.sync += partial[k].eq(accumulate.o)

        # The row's last group has arrived: (s0 + s1) + (s2 + s3).
        ends = []
        for k in range(PARTIAL_SUMS):
            end = Signal(32, name=f"end_{k}")
            with m.If(done.turn == k):
                m.d.comb += end.eq(accumulate.o)
            with m.Elif(done.started | (done.turn > k)):
                m.d.comb += end.eq(partial[k])
            with m.Else():
                m.d.comb += end.eq(neutral)
            ends.append(end)
        ended = done.valid & done.last
        if self._in_turns:
            total = accumulate.o
            second = _delay(m, ended, 1, "second")
            both = _delay(m, second, _Node.latency, "both")
            out = _delay(m, both, _Node.latency, "out")
            # What the second pair is, and what the first one has become, wait for a cycle.
            waiting = register(m, Cat(ends[2:]), "waiting")
            first = register(m, accumulate.o, "first")
            with m.If(ended):
                m.d.comb += operands.as_value().eq(Cat(ends[:2]))
            with m.If(second):
                m.d.comb += operands.as_value().eq(waiting)
            with m.If(both):
                m.d.comb += operands.as_value().eq(Cat(first, accumulate.o))
        else:
            sums = combine(*ends[:2], "pair_0"), combine(*ends[2:], "pair_1")
            total = combine(*sums, "whole")
            out = _delay(m, ended, 2 * _Node.latency, "out")
        m.d.comb += [self.o.eq(total), self.o_valid.eq(out)]
        return m


def _delay(m: Module, bit, cycles: int, name: str):
    """`bit` some cycles later, 0 after reset."""
    for k in range(cycles):
        late = Signal(name=f"{name}_{k}")
        m.d.sync += late.eq(bit)
        bit = late
    return bit
