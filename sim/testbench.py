"""Simulating one component, with clocks and a watchdog, under Amaranth's simulator or compiled."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from amaranth.hdl import Elaboratable
from amaranth.lib import wiring
from amaranth.sim import Simulator

from halfdome.sim.benches import ended, waiting
from halfdome.sim.compiled.engine import CompiledEngine, compiled
from halfdome.sim.compiled.flow import fragments
from halfdome.sim.compiled.recording import Recording
from halfdome.sim.compiled.refusals import NotFollowed
from halfdome.sim.settling import CombinationalLoop, SettlingEngine

CLOCK_PERIOD = 1e-6
SHORTEST_PERIOD = 2e-15
_ENGINES = {"pysim": SettlingEngine, "native": CompiledEngine}
ENGINES = tuple(_ENGINES)


def simulate(
    component: Elaboratable,
    *testbenches: Callable,
    background: Iterable[Callable] = (),
    processes: Iterable[Callable] = (),
    clocks: Mapping[str, float] | None = None,
    cycles: int = 20_000,
    waves: Path | None = None,
    engine: str = "pysim",
    on_compiled: Callable[[Recording], None] = lambda recording: None,
) -> int:
    """Runs until every test bench returns; the number of clock edges until then.

    Parameters
    ----------
    component : wiring.Component; for pysim any elaboratable with something in a clock domain
    testbenches : asynchronous functions of the simulator's context
    background : test benches (monitors, memories, responders) that run as long as the others do
    processes : what stands for hardware around the component, see `Simulator.add_process`
    clocks : period of each clock domain in seconds; `sync` has 1 µs unless it is given
    cycles : what the simulation may take, in cycles of `sync`, or of the first of `clocks` if there
        is no `sync`
    waves : VCD file to write, whole also when a test bench raises
    engine : "pysim", or "native" for a compiled component, of which test benches see the ports only
    on_compiled : is given the recording of a compiled component, which can write waveforms

    Raises what a test bench or an `Assert` raises, `AssertionError` if the benches do not all end
    within `cycles`, `ValueError` if there is nothing to run, no clock, a clock domain that nothing
    drives, or something that the engine cannot simulate, `CombinationalLoop`, and `BuildError` of
    a compilation.
    """
    name = type(component).__name__
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: unknown; known are {', '.join(ENGINES)}")
    if not testbenches:
        raise ValueError(f"{name}: no test bench to run, give at least one")
    if cycles < 1:
        raise ValueError(f"cycles={cycles}: must be 1 or more")
    if engine == "native" and not isinstance(component, wiring.Component):
        raise ValueError(f"{name}: engine native needs a wiring.Component, which says its ports")
    taken = 0
    processes = list(processes)

    async def watchdog(ctx):
        nonlocal taken
        while taken < cycles:
            await ctx.edge(counted.clk, int(counted.clk_edge == "pos"))
            taken += 1
        raise AssertionError(
            f"{name}: simulation did not end within {cycles} cycles{waiting(simulator._engine)}"
        )

    simulator = Simulator(component, engine=_ENGINES[engine])
    with ExitStack() as stack:
        stack.enter_context(_named(name))
        periods = _add_clocks(simulator, name, clocks or {})
        counted = simulator._design.fragment.domains[next(iter(periods))]
        if engine == "native":
            recording = stack.enter_context(compiled(simulator, component, periods, processes))
            on_compiled(recording)
            if waves is not None:
                stack.callback(recording.write_waves, waves)
        elif waves is not None:
            stack.enter_context(simulator.write_vcd(str(waves)))
        stack.enter_context(ended(simulator._engine))
        simulator.add_testbench(watchdog, background=True)
        for process in processes:
            simulator.add_process(process)
        for bench in testbenches:
            simulator.add_testbench(bench)
        for bench in background:
            simulator.add_testbench(bench, background=True)
        simulator.run()
    return taken


@contextmanager
def _named(component: str) -> Iterator[None]:
    """Errors of the engines say whose they are, and what to do."""
    try:
        yield
    except NotFollowed as error:
        raise ValueError(
            f"{component}: {error}; engine native does not follow that, engine pysim does"
        ) from error
    except CombinationalLoop as error:
        raise CombinationalLoop(f"{component}: {error}") from error


def _add_clocks(
    simulator: Simulator, component: str, clocks: Mapping[str, float]
) -> dict[str, float]:
    """Adds a clock for `sync` and for each of `clocks`; the periods by domain, `sync` first.

    Raises `ValueError` for a domain that is not there, and for one that is left without a clock.
    """
    top = simulator._design.fragment
    periods = {"sync": CLOCK_PERIOD, **clocks} if "sync" in top.domains else dict(clocks)
    for domain, period in periods.items():
        if domain not in top.domains:
            known = ", ".join(top.domains) or "none"
            raise ValueError(f"{component}: clocks: no domain {domain!r}; there is {known}")
        if not SHORTEST_PERIOD <= period < math.inf:
            raise ValueError(
                f"{component}: clocks: {domain!r}: {period}: must be a period in seconds, "
                f"{SHORTEST_PERIOD} or more"
            )
    missing = [signal for _, signal, _ in simulator._design.ports]
    for domain in top.domains.values():
        if domain.name not in periods and any(domain.clk is signal for signal in missing):
            raise ValueError(
                f"{component}: clock domain {domain.name!r}: nothing drives it; give its period "
                f"with clocks={{{domain.name!r}: ...}}, rename the domain or define it in the "
                "component"
            )
    if not periods:
        raise ValueError(
            f"{component}: has no clock, nothing in it is in the `sync` domain; rename its domain, "
            "give clocks, or simulate a component around it that has registers"
        )
    driven = {
        id(signal)
        for fragment in fragments(top)
        for statements in fragment.statements.values()
        for signal in statements._lhs_signals()
    }
    for domain, period in periods.items():
        if id(top.domains[domain].clk) in driven:
            raise ValueError(
                f"{component}: drives the clock of its own domain {domain!r}; rename the domain, "
                "or simulate a component around it that has the clock"
            )
        simulator.add_clock(period, domain=domain)
    return periods
