"""Simulating one component, with a clock and a watchdog, under Amaranth's simulator or compiled."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from amaranth.hdl import Elaboratable
from amaranth.lib import wiring
from amaranth.sim import Simulator

from halfdome.sim.compiled import Compiled
from halfdome.sim.engine.compiler import NO_CLOCK, UNDRIVEN, BuildError
from halfdome.sim.engine.ports import undriven_domain

CLOCK_PERIOD = 1e-6
ENGINES = ("pysim", "native")


def simulate(
    component: Elaboratable,
    *testbenches: Callable,
    background: Iterable[Callable] = (),
    cycles: int = 20_000,
    waves: Path | None = None,
    engine: str = "pysim",
    on_compiled: Callable[[Compiled], None] = lambda compiled: None,
) -> int:
    """Runs until every test bench returns; the number of clock edges until then.

    Parameters
    ----------
    component : wiring.Component; for pysim any elaboratable with something in the `sync` domain
    testbenches : asynchronous functions of the simulator's context
    background : test benches (monitors, memories, responders) that run as long as the others do
    cycles : what the simulation may take
    waves : VCD file to write, whole also when a test bench raises
    engine : "pysim", or "native" for a compiled component, of which test benches see the ports only
    on_compiled : is given the compiled component, which can write its waveforms afterwards

    Raises what a test bench raises, `AssertionError` if they do not all end within `cycles`,
    `ValueError` if there is nothing to run, no clock or a clock domain that nothing drives, and
    `BuildError` of a compilation.
    """
    name = type(component).__name__
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: unknown; known are {', '.join(ENGINES)}")
    if not testbenches:
        raise ValueError(f"{name}: no test bench to run, give at least one")
    if cycles < 1:
        raise ValueError(f"cycles={cycles}: must be 1 or more")
    taken = 0

    async def watchdog(ctx):
        nonlocal taken
        while taken < cycles:
            await ctx.tick()
            taken += 1
        raise AssertionError(f"{name}: simulation did not end within {cycles} cycles")

    with ExitStack() as stack:
        if engine == "native":
            compiled = _compiled(component)
            stack.callback(compiled.close)
            on_compiled(compiled)
            simulator, checked = compiled.simulator(), compiled.bench
            simulator.add_clock(CLOCK_PERIOD)
            if waves is not None:
                stack.callback(compiled.write_waves, waves)
        else:
            simulator, checked = _clocked(component), _unchanged
            if waves is not None:
                stack.enter_context(simulator.write_vcd(str(waves)))
        simulator.add_testbench(watchdog, background=True)  # first: one never begun is a warning
        for bench in testbenches:
            simulator.add_testbench(checked(bench))
        for bench in background:
            simulator.add_testbench(checked(bench), background=True)
        simulator.run()
    return taken


def _unchanged(bench: Callable) -> Callable:
    return bench


def _clocked(component: Elaboratable) -> Simulator:
    simulator = Simulator(component)
    try:
        simulator.add_clock(CLOCK_PERIOD)
    except NameError as error:
        raise _no_clock(component) from error
    inputs = [port for port, _, _ in simulator._design.ports]
    if domain := undriven_domain(inputs, ()):
        raise ValueError(f"{type(component).__name__}: {UNDRIVEN.format(domain)}")
    return simulator


def _compiled(component: Elaboratable) -> Compiled:
    name = type(component).__name__
    if not isinstance(component, wiring.Component):
        raise ValueError(f"{name}: engine native needs a wiring.Component, which says its ports")
    try:
        return Compiled(component)
    except BuildError as error:
        if str(error) == NO_CLOCK:
            raise _no_clock(component) from error
        raise


def _no_clock(component: Elaboratable) -> ValueError:
    return ValueError(
        f"{type(component).__name__}: has no clock, nothing in it is in the `sync` domain; rename "
        "its domain, or simulate a component around it that has registers"
    )
