"""When signals change in Amaranth's simulator, counted in delta cycles.

A compiled model shows everything at once. Where the simulator takes several delta cycles, a test
bench that waits for a change could see the ones in between.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from amaranth.hdl import ClockDomain, Signal
from amaranth.hdl._ast import SignalDict

from halfdome.sim.compiled.flow import Flow, Leaf

SEVERAL = math.inf
"""Instead of one moment: there are more, and in between the signal may have other values."""
_CLOCK, _INPUT = "clock", "input"


def moments(flow: Flow, inputs: Iterable[Signal], copies: Mapping[ClockDomain, int]) -> SignalDict:
    """The delta cycles after which each signal changes, by what makes it change: clock or input.

    `copies` says for each domain how often its clock is copied. Signals that never change are not
    there.
    """
    found = SignalDict((signal, {_INPUT: 0}) for signal in inputs)
    readers = SignalDict()
    for leaf in flow.leaves:
        for signal in _followed(leaf):
            readers.setdefault(signal, []).append(leaf)
    waiting = list(flow.leaves)
    while waiting:
        leaf = waiting.pop()
        causes = list(_clocked(flow, leaf, copies))
        for signal in _followed(leaf):
            causes += ((kind, moment + 1) for kind, moment in found.get(signal, {}).items())
        for signal in leaf.writes:
            known = found.get(signal, {})
            changed = dict(known)
            for kind, moment in causes:
                changed[kind] = moment if changed.get(kind, moment) == moment else SEVERAL
            if changed != known:
                found[signal] = changed
                waiting += readers.get(signal, ())
    return found


def _followed(leaf: Leaf) -> Iterable[Signal]:
    """The signals at whose change the simulator executes a leaf, besides its clock."""
    if leaf.domain is None:
        return leaf.reads
    return (leaf.domain.rst,) if leaf.domain.async_reset and leaf.domain.rst is not None else ()


def _clocked(
    flow: Flow, leaf: Leaf, copies: Mapping[ClockDomain, int]
) -> Iterator[tuple[str, int]]:
    if leaf.domain is not None:
        yield _CLOCK, 1 + copies[leaf.domain]
    elif leaf.loads is not None:
        for port in flow.writers.get(leaf.loads, ()):
            yield _CLOCK, 2 + copies[port.domain]
