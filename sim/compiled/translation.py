"""From an elaborated design to what is compiled: without checks, and clocks are pins."""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.hdl import ClockDomain, Fragment, Signal
from amaranth.hdl._ast import SignalDict, SignalSet
from amaranth.hdl._ir import Design, PortDirection

from halfdome.sim.build.verilator import TOP
from halfdome.sim.compiled.checks import Group, take_out
from halfdome.sim.compiled.flow import Flow, fragments
from halfdome.sim.compiled.moments import SEVERAL, moments
from halfdome.sim.compiled.read_ports import register_read_ports
from halfdome.sim.compiled.refusals import check, clocks
from halfdome.sim.rtl.ports import Port


@dataclass(frozen=True, eq=False)
class Translation:
    """A design that is to be compiled.

    Parameters
    ----------
    top : its statements
    inputs, outputs : the signals that test benches see; clocks and resets are inputs, too
    late : outputs that the simulator changes after the registers that have made them change
    unsteady : outputs that it may change several times, of which a model shows the last
    edges : for each input that is a clock, its levels after an edge at which something happens
    groups : its checks, each group with its clock and the level after the edge that it is for
    processes : whether there are any beside the test benches
    """

    top: Fragment
    inputs: list[Signal]
    outputs: list[Signal]
    late: SignalSet
    unsteady: SignalSet
    edges: SignalDict
    groups: list[tuple[Group, Signal | None, int]]
    processes: bool

    def pins(self) -> SignalDict:
        """The name of the pin of each signal that has bits.

        Those of the design might be words of C++ or of Verilog.
        """
        driven = [*self.outputs]
        for group, _, _ in self.groups:
            driven += [group.fires, *(check.values for check in group.checks)]
        names = [(signal, f"i{n}") for n, signal in enumerate(self.inputs)]
        names += [(signal, f"o{n}") for n, signal in enumerate(driven)]
        return SignalDict((signal, name) for signal, name in names if len(signal))


def ports(pins: SignalDict) -> list[Port]:
    """The ports of a model with these pins."""
    return [Port(name, len(signal), name.startswith("i")) for signal, name in pins.items()]


def design(top: Fragment, pins: SignalDict) -> Design:
    """What is compiled into a model with these pins."""
    directions = {"i": PortDirection.Input, "o": PortDirection.Output}
    named = [(name, signal, directions[name[0]]) for signal, name in pins.items()]
    return Design(top, named, hierarchy=(TOP,))


def translate(
    top: Fragment, *, ports: Iterable[Signal], periodic: SignalSet, processes: bool
) -> Translation:
    """The translation of a design whose domains are lowered, which is changed by it.

    Parameters
    ----------
    ports : the component's
    periodic : the clocks that the simulator drives
    processes : whether there are any beside the test benches

    Raises `NotFollowed` if a compiled model would give other values than Amaranth's simulator.
    """
    flow = Flow(top)
    visible = SignalSet(ports)
    check(top, flow, ports=visible, periodic=periodic, processes=processes)
    for fragment in fragments(top):
        for _, domain in sorted(fragment.domains.items()):
            if domain.clk not in flow.drivers:
                visible.add(domain.clk)
            if domain.rst is not None and not _is_reset_late(flow, domain):
                visible.add(domain.rst)
    edges = SignalDict()
    sources = clocks(flow)
    for domain, clock in sources.items():
        edges.setdefault(clock.root, set()).add(_level(domain))
    register_read_ports(top)
    groups = [
        (group, None, 0)
        if group.domain is None
        else (group, sources[group.domain].root, _level(group.domain))
        for group in take_out(top)
    ]
    outputs = [signal for signal in visible if signal in flow.drivers]
    inputs = [signal for signal in visible if signal not in flow.drivers]
    inputs += [signal for signal in edges if signal not in visible]
    copies = {domain: clock.copies for domain, clock in sources.items()}
    found = moments(flow, inputs, copies)
    changes = [(signal, found.get(signal, {}).values()) for signal in outputs]
    late = SignalSet(signal for signal, when in changes if any(moment > 1 for moment in when))
    unsteady = late if processes else SignalSet(s for s, when in changes if SEVERAL in when)
    return Translation(top, inputs, outputs, late, unsteady, edges, groups, processes)


def _level(domain: ClockDomain) -> int:
    """Of the clock after an edge."""
    return int(domain.clk_edge == "pos")


def _is_reset_late(flow: Flow, domain: ClockDomain) -> bool:
    """Whether an asynchronous reset is made inside, and so comes after what it is made from."""
    return domain.async_reset and domain.rst in flow.drivers
