"""What compiled RTL does otherwise than Amaranth's simulator, found before anything is simulated.

The simulator lets time pass in delta cycles: a register changes one after its clock, what is
combinational one or more later still, and a clock that is made from another clock or from logic
comes late by as many. A compiled model settles everything at once. Both are the same as long as
every clock comes from outside, and nothing is clocked late by something that has changed meanwhile.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from amaranth.hdl import ClockDomain, Fragment, Instance, IOBufferInstance, Signal
from amaranth.hdl._ast import Print, Property, SignalDict, SignalSet

from halfdome.sim.compiled.flow import Flow, Leaf, fragments, place


class NotFollowed(ValueError):
    """A compiled model would give other values than Amaranth's simulator."""


@dataclass(frozen=True)
class Clock:
    """Where the clock of a domain comes from: `root`, copied `copies` times."""

    root: Signal
    copies: int


def clocks(flow: Flow) -> dict[ClockDomain, Clock]:
    """The clock of each domain in which something is. Raises `NotFollowed`."""
    return {domain: _clock(flow, domain) for domain in flow.domains()}


def _clock(flow: Flow, domain: ClockDomain) -> Clock:
    chain = _copies(flow, domain.clk)
    if chain[-1] in flow.drivers:
        raise NotFollowed(
            f"the clock of domain {domain.name!r} is made by the component"
            f"{place(_where(flow.drivers[chain[-1]][0]))}"
        )
    return Clock(chain[-1], len(chain) - 1)


def _copies(flow: Flow, signal: Signal) -> list[Signal]:
    """The signal, what it is a copy of, what that is a copy of, and so on."""
    chain = [signal]
    while isinstance(source := flow.copied(chain[-1]), Signal) and len(chain) <= len(flow.drivers):
        chain.append(source)
    return chain


def check(
    top: Fragment, flow: Flow, *, ports: Iterable[Signal], periodic: SignalSet, processes: bool
) -> None:
    """Raises `NotFollowed` if a compiled model is not the same design.

    Parameters
    ----------
    ports : signals that test benches see
    periodic : the clocks that the simulator drives, which may rise at the same moment
    processes : whether there are any, which may change an input in the wake of a clock
    """
    _check_parts(top)
    sources = clocks(flow)
    _check_clocks_are_no_data(top, flow, ports, periodic)
    for domain in sources:
        if domain.async_reset and domain.rst is not None:
            _check_asynchronous_reset(flow, domain)
    _check_copies(flow, sources, periodic, processes)


def _where(leaf: Leaf) -> tuple[str, int] | None:
    return leaf.statement.src_loc if leaf.statement is not None else None


def _check_parts(top: Fragment) -> None:
    for fragment in fragments(top):
        if isinstance(fragment, Instance):
            raise NotFollowed(
                f"it has an instance of {fragment.type!r}{place(fragment.src_loc)}, whose inside "
                "is not known"
            )
        if isinstance(fragment, IOBufferInstance):
            raise NotFollowed(f"it has an I/O buffer{place(fragment.src_loc)}")


def _check_clocks_are_no_data(
    top: Fragment, flow: Flow, ports: Iterable[Signal], periodic: SignalSet
) -> None:
    copies, names = SignalSet(), SignalDict((signal, signal.name) for signal in periodic)
    used = flow.domains()
    for fragment in fragments(top):
        for domain in fragment.domains.values():
            chain = _copies(flow, domain.clk)
            copies |= chain[:-1]
            if domain in used:
                names.update((signal, domain.clk.name) for signal in chain)
    for leaf in flow.leaves:
        if any(signal in copies for signal in leaf.writes):
            continue
        for signal in leaf.reads:
            if signal in names:
                raise NotFollowed(
                    f"the clock {names[signal]!r} is used as data{place(_where(leaf))}"
                )
    for port in ports:
        if port in copies:
            raise NotFollowed(f"its port {port.name!r} shows the clock {names[port]!r}")


def _check_asynchronous_reset(flow: Flow, domain: ClockDomain) -> None:
    """One that is made of several signals has glitches, by which the simulator resets.

    The simulator executes whatever is in the domain at the reset's edge as well; what the reset
    does not put back is then clocked by it.
    """
    source, seen = domain.rst, SignalSet()
    while source not in seen and any(d.domain is None for d in flow.drivers.get(source, ())):
        seen.add(source)
        value = flow.copied(source)
        signals = list(value._rhs_signals()) if value is not None else []
        if value is None or len(signals) > 1:
            raise NotFollowed(
                f"the asynchronous reset of domain {domain.name!r} is made of several signals"
                f"{place(_where(flow.drivers[source][0]))}"
            )
        if not signals:
            break
        (source,) = signals
    for leaf in flow.leaves:
        if leaf.domain is domain and (kept := _kept_in_reset(leaf)):
            raise NotFollowed(
                f"its {kept} is not reset, but in domain {domain.name!r} with an asynchronous "
                "reset, whose edge the simulator takes for a clock's"
            )


def _kept_in_reset(leaf: Leaf) -> str | None:
    """What of a leaf a reset does not put back."""
    if memory := leaf.loads or leaf.stores:
        return f"memory {memory.name!r}{place(memory.src_loc)}"
    if isinstance(leaf.statement, Print | Property):
        return f"statement{place(leaf.statement.src_loc)}"
    for signal in leaf.writes:
        if signal.reset_less:
            return f"register {signal.name!r}{place(signal.src_loc)}"
    return None


def _check_copies(
    flow: Flow, sources: dict[ClockDomain, Clock], periodic: SignalSet, processes: bool
) -> None:
    """What is clocked late must not depend on what the earlier clock has changed."""

    def changes_before(other: ClockDomain, domain: ClockDomain) -> bool:
        earlier, later = sources[other], sources[domain]
        if earlier.root is later.root:
            together = other.clk_edge == domain.clk_edge
        else:
            together = earlier.root in periodic and later.root in periodic
        return together and earlier.copies < later.copies

    for leaf in flow.leaves:
        domain = leaf.domain
        if domain is None or not sources[domain].copies:
            continue
        for name, other in _origins(flow, leaf, sources[domain].copies):
            if changes_before(other, domain) if other is not None else processes:
                raise NotFollowed(
                    f"the clock of domain {domain.name!r} is a copy, which comes after the change "
                    f"of {name!r} that it should take the value before{place(_where(leaf))}"
                )


def _origins(flow: Flow, leaf: Leaf, copies: int) -> Iterator[tuple[str, ClockDomain | None]]:
    """The registers, memories and inputs from which a leaf takes values; inputs have no domain.

    `copies` is how late its clock is. An asynchronous reset that is a copy is as late as a first
    copy of the clock, or later.
    """
    domain = leaf.domain
    seen, reads = SignalSet(), leaf.reads
    late_reset = domain.async_reset and copies == 1 and flow.copied(domain.rst) is not None
    if domain.rst is not None and not late_reset:
        reads.add(domain.rst)
    waiting = [(leaf, reads)]
    while waiting:
        at, reads = waiting.pop()
        if at.loads is not None:
            yield from ((at.loads.name, port.domain) for port in flow.writers.get(at.loads, ()))
        for signal in reads:
            if signal in seen:
                continue
            seen.add(signal)
            drivers = flow.drivers.get(signal, ())
            if not drivers:
                yield signal.name, None
            for driver in drivers:
                if driver.domain is None:
                    waiting.append((driver, driver.reads))
                else:
                    yield signal.name, driver.domain
