"""Choice of one among many, fair or some first, and streams merged by it."""

from itertools import islice

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

URGENT_TURNS = 15
"""Turns that urgent requests have one after the other while another one waits; then it is its."""


def index_bits(n: int) -> int:
    """Width of a number below `n`, at least 1."""
    return max(1, ceil_log2(n))


def merged(shape, bits: int) -> data.StructLayout:
    """A payload of one of several streams, and the number of that stream."""
    return data.StructLayout({"p": shape, "index": bits})


class RoundRobin(wiring.Component):
    """Grants one of the requests: the next one after the last that was taken.

    Members
    -------
    requests : In(n)
    advance : In(1), the grant is taken in this cycle
    grant : Out(n), one-hot, zero if nobody requests
    index : Out, number of the granted request

    Combinational. A request that stays up is granted after at most `n - 1` others were taken.
    """

    def __init__(self, n: int):
        self._n = n
        super().__init__(
            {
                "requests": In(n),
                "advance": In(1),
                "grant": Out(n),
                "index": Out(index_bits(n)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        n = self._n
        # Requests above the last grant go first.
        above = Signal(n)
        pool = Signal(n)
        upper = Signal(n)
        m.d.comb += [
            upper.eq(self.requests & above),
            pool.eq(Mux(upper.any(), upper, self.requests)),
            self.grant.eq(pool & (~pool + 1)),
            self.index.eq(
                Cat(
                    (self.grant & sum(1 << i for i in range(n) if i >> bit & 1)).any()
                    for bit in range(len(self.index))
                )
            ),
        ]
        with m.If(self.advance & self.requests.any()):
            m.d.sync += above.eq(~(self.grant | (self.grant - 1)))
        return m


class UrgentFirst(wiring.Component):
    """Grants one of the requests: of the urgent ones in turn, and if there are none of the others.

    Members
    -------
    requests : In(n)
    urgent : In(n), which of them go first
    advance : In(1), the grant is taken in this cycle
    grant : Out(n), one-hot, zero if nobody requests
    index : Out, number of the granted request

    Combinational; a `RoundRobin` if all requests are alike. Others wait for `URGENT_TURNS` urgent
    ones at the most, then one of them is granted, in their turn. So a request that stays up is
    granted after at most `o - 1` others of its kind, of which there are `o`: an urgent one of up to
    `URGENT_TURNS` after one that is not urgent besides, one of the others after `URGENT_TURNS`
    urgent ones besides for each of these and itself.
    """

    def __init__(self, n: int):
        self._n = n
        super().__init__(
            {
                "requests": In(n),
                "urgent": In(n),
                "advance": In(1),
                "grant": Out(n),
                "index": Out(index_bits(n)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = RoundRobin(self._n)
        m.submodules.other = other = RoundRobin(self._n)
        waits = Signal()
        passed = Signal(range(URGENT_TURNS + 1))  # by urgent ones, while another one waited
        ordinary = Signal()
        m.d.comb += [
            first.requests.eq(self.requests & self.urgent),
            other.requests.eq(self.requests & ~self.urgent),
            waits.eq(other.requests.any()),
            ordinary.eq(waits & (~first.requests.any() | (passed == URGENT_TURNS))),
            first.advance.eq(self.advance & ~ordinary),
            other.advance.eq(self.advance & ordinary),
            self.grant.eq(Mux(ordinary, other.grant, first.grant)),
            self.index.eq(Mux(ordinary, other.index, first.index)),
        ]
        with m.If(self.advance & self.requests.any()):
            m.d.sync += passed.eq(Mux(waits & ~ordinary, passed + 1, 0))
        return m


class NextTurn(wiring.Component):
    """The request whose turn comes after that of `last`: `last` itself comes last.

    Members
    -------
    requests : In(n)
    last : In, number of a request
    index : Out, number of the next one; 0 if nobody requests

    Combinational.
    """

    def __init__(self, n: int):
        self._n = n
        super().__init__(
            {"requests": In(n), "last": In(index_bits(n)), "index": Out(index_bits(n))}
        )

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.last):
            for last in range(self._n):
                with m.Case(last):
                    self._pick_first(m, [(last + 1 + step) % self._n for step in range(self._n)])
        return m

    def _pick_first(self, m: Module, order: list[int]):
        for number in reversed(order):  # the last assignment wins
            with m.If(self.requests[number]):
                m.d.comb += self.index.eq(number)


class StreamArbiter(wiring.Component):
    """Merges streams fairly into one whose payload says where it came from.

    Parameters
    ----------
    shape : shape-like
        Payload of every input.
    sizes : int, at least one
        Inputs of each group. If there are several groups, those of each are merged first, and then
        the groups, so that each has an equal share of its kind, however many of its inputs ask; and
        no path grows with the number of all.

    Members
    -------
    i : In(stream of `shape`).array(sum(sizes)), group by group
    urgent : In(len(sizes)), groups that go before others, see `UrgentFirst`
    held : In(len(sizes)), groups that wait; both are no matter of an only group
    o : Out(stream of `merged(shape, ...)`), `index` being that of `numbers` which is the input's

    Latency is `latency` cycles, throughput one payload a cycle. `o` is registered. An input is
    overtaken at most once by each other input of its group, a group by each other group if all are
    urgent or none is.
    """

    def __init__(self, shape, *sizes: int):
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes={sizes}: an arbiter needs at least one input in each group")
        self._shape = shape
        self._sizes = sizes
        place_bits = index_bits(max(sizes))
        self.numbers = [
            group << place_bits | place for group, size in enumerate(sizes) for place in range(size)
        ]
        self.layout = merged(shape, index_bits(self.numbers[-1] + 1))
        self.latency = 1 if len(sizes) == 1 else 2
        super().__init__(
            {
                "i": In(stream.Signature(shape)).array(sum(sizes)),
                "urgent": In(len(sizes)),
                "held": In(len(sizes)),
                "o": Out(stream.Signature(self.layout)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        groups = len(self._sizes)
        if groups == 1:
            m.submodules.turn = turn = RoundRobin(len(self.i))
            self._pick(m, turn, [(i, i.p, turn.index) for i in self.i], 0)
            return m
        m.submodules.turn = turn = UrgentFirst(groups)
        m.d.comb += turn.urgent.eq(self.urgent)
        inputs, offers = iter(self.i), []
        for number, size in enumerate(self._sizes):
            m.submodules[f"group{number}"] = inner = StreamArbiter(self._shape, size)
            for i, inner_i in zip(islice(inputs, size), inner.i, strict=True):
                m.d.comb += [
                    inner_i.p.eq(i.p),
                    inner_i.valid.eq(i.valid),
                    i.ready.eq(inner_i.ready),
                ]
            place = inner.o.p.index | turn.index << index_bits(max(self._sizes))
            offers.append((inner.o, inner.o.p.p, place))
        self._pick(m, turn, offers, self.held)
        return m

    def _pick(self, m: Module, turn: RoundRobin | UrgentFirst, offers, held):
        """Registers what `turn` picks of streams, each with what it brings and its number, that
        are not held."""
        free = Signal()
        m.d.comb += [
            turn.requests.eq(Cat(i.valid for i, _, _ in offers) & ~held),
            free.eq(~self.o.valid | self.o.ready),
            turn.advance.eq(free),
        ]
        for k, (i, _, _) in enumerate(offers):
            m.d.comb += i.ready.eq(free & turn.grant[k])
        with m.If(free):
            m.d.sync += self.o.valid.eq(turn.requests.any())
            with m.Switch(turn.index):
                for k, (_, payload, number) in enumerate(offers):
                    with m.Case(k):
                        m.d.sync += [self.o.p.p.eq(payload), self.o.p.index.eq(number)]
