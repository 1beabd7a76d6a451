"""Simulating one component under Amaranth's simulator, with a clock and a watchdog."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator

from sim.engine.compiler import UNDRIVEN
from sim.engine.ports import undriven_domain

CLOCK_PERIOD = 1e-6


def simulate(
    component: Elaboratable,
    *testbenches: Callable,
    background: Iterable[Callable] = (),
    cycles: int = 20_000,
    waves: Path | None = None,
) -> int:
    """Runs until every test bench returns; the number of clock edges until then.

    Parameters
    ----------
    component : wiring.Component or another elaboratable with something in the `sync` domain
    testbenches : asynchronous functions of the simulator's context
    background : test benches (monitors, memories, responders) that run as long as the others do
    cycles : what the simulation may take
    waves : VCD file to write, whole also when a test bench raises

    Raises what a test bench raises, `AssertionError` if they do not all end within `cycles`, and
    `ValueError` if there is nothing to run, no clock, or a clock domain that nothing drives.
    """
    name = type(component).__name__
    simulator = Simulator(component)
    if not testbenches:
        raise ValueError(f"{name}: no test bench to run, give at least one")
    if cycles < 1:
        raise ValueError(f"cycles={cycles}: must be 1 or more")
    try:
        simulator.add_clock(CLOCK_PERIOD)
    except NameError as error:
        raise ValueError(
            f"{name}: has no clock, nothing in it is in the `sync` domain; rename its domain, or "
            "simulate a component around it that has registers"
        ) from error
    inputs = [port for port, _, _ in simulator._design.ports]
    if domain := undriven_domain(inputs, ()):
        raise ValueError(f"{name}: {UNDRIVEN.format(domain)}")
    for bench in testbenches:
        simulator.add_testbench(bench)
    for bench in background:
        simulator.add_testbench(bench, background=True)
    taken = 0

    async def watchdog(ctx):
        nonlocal taken
        while taken < cycles:
            await ctx.tick()
            taken += 1
        raise AssertionError(f"{name}: simulation did not end within {cycles} cycles")

    simulator.add_testbench(watchdog, background=True)
    with ExitStack() as stack:
        if waves is not None:
            stack.enter_context(simulator.write_vcd(str(waves)))
        simulator.run()
    return taken
