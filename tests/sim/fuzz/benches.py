"""A random test bench for a random component, and what it sees."""

import random
from contextlib import redirect_stdout
from io import StringIO
from typing import NamedTuple

from amaranth.hdl import Signal, Value
from amaranth.lib import enum

from halfdome.sim.testbench import simulate
from tests.sim.fuzz.components import RandomComponent
from tests.sim.fuzz.shapes import number

CYCLES = 300


class Outcome(NamedTuple):
    """Everything that test benches saw, and how the simulation ended."""

    seen: list
    end: str


class RandomBench:
    """The test bench of a seed for a component; equal seeds do the same."""

    def __init__(self, component: RandomComponent, seed: int):
        self._component = component
        self._rng = random.Random(seed)
        self._seen: list = []
        self._printed = StringIO()
        inputs = [v for v in component.inputs if isinstance(Value.cast(v), Signal)]
        self._rng.shuffle(inputs)
        self._given = [inputs.pop() for _ in range(self._rng.randrange(2)) if len(inputs) > 1]
        self._inputs = inputs
        self._domains = [
            name for name in ("sync", *component.clocks) if name not in component.late_resets
        ]
        self._is_bold = self._rng.random() < 0.2

    @property
    def _waits(self) -> list[Signal]:
        """Outputs to wait for: registers, which are always followed, or any, which may be not."""
        component = self._component
        outputs = map(Value.cast, component.outputs) if self._is_bold else component.steady
        return [signal for signal in outputs if isinstance(signal, Signal) and len(signal)]

    def run(self, engine: str) -> Outcome:
        """Simulates the component once."""
        rng = self._rng
        with redirect_stdout(self._printed):
            try:
                cycles = simulate(
                    self._component,
                    self._bench,
                    background=[self._monitor] if self._domains and rng.random() < 0.5 else [],
                    processes=[self._process] if self._domains and self._given else [],
                    clocks=self._component.clocks,
                    cycles=CYCLES,
                    engine=engine,
                )
            except Exception as error:
                return Outcome(self._seen, f"{type(error).__name__}: {error}")
        return Outcome(self._seen, f"{cycles} cycles")

    def _note(self, what: str, *values) -> None:
        """Lines of one moment have no order: they may be from several modules."""
        lines = self._printed.getvalue().splitlines()
        self._printed.seek(0)
        self._printed.truncate()
        self._seen.append((what, *values, sorted(set(lines))))

    def _outputs(self, ctx) -> list:
        return [ctx.get(Value.cast(value)) for value in self._component.outputs]

    async def _bench(self, ctx):
        rng = random.Random(self._rng.getrandbits(32))
        self._note("start", self._outputs(ctx))
        for _ in range(rng.randrange(10, 40)):
            await self._step(ctx, rng)
            self._note("outputs", self._outputs(ctx))

    async def _step(self, ctx, rng: random.Random) -> None:
        component = self._component
        kind = rng.randrange(12)
        if kind < 4 and self._inputs:
            _set(ctx, rng, rng.choice(self._inputs))
        elif kind < 5 and component.levers:
            lever = rng.choice(component.levers)
            ctx.set(lever, 1 - ctx.get(lever))
        elif kind < 6:
            await ctx.delay(rng.choice((0, 0.1e-6, 0.5e-6, 1e-6, 1.3e-6)))
        elif kind < 7 and (waits := self._waits):
            signal = rng.choice(waits)
            trigger = ctx.changed(signal) if rng.random() < 0.5 else ctx.edge(
                signal[rng.randrange(len(signal))], rng.randrange(2)
            )  # fmt: skip
            others = rng.choices(waits, k=rng.randrange(3))
            self._note("waited", await trigger.delay(2.7e-6).sample(signal, *others))
        elif not self._domains:
            await ctx.delay(1e-6)
        elif kind < 8:
            trigger = ctx.tick(rng.choice(self._domains)).sample(
                *map(Value.cast, component.outputs)
            )
            self._note("repeated", await _repeated(trigger, rng.randrange(1, 4)))
        else:
            trigger = ctx.tick(rng.choice(self._domains)).sample(
                *map(Value.cast, component.outputs)
            )
            self._note("ticked", await trigger)

    async def _monitor(self, ctx):
        outputs = [Value.cast(value) for value in self._component.outputs]
        async for seen in ctx.tick(self._domains[-1]).sample(*outputs):
            self._note("monitor", seen)

    async def _process(self, ctx):
        """Drives an input from what the outputs were at a clock's edge."""
        (given,) = self._given
        outputs = [Value.cast(value) for value in self._component.outputs]
        async for _, _, *values in ctx.tick(self._domains[-1]).sample(*outputs):
            target = Value.cast(given)
            ctx.set(target, sum(values) & ((1 << len(target)) - 1))


async def _repeated(trigger, count: int):
    """Like `repeat`, which is an error during a reset."""
    return [await trigger for _ in range(count)]


def _set(ctx, rng: random.Random, port) -> None:
    """Sets a port as its shape has it, or its bits."""
    shape = port.shape()
    if isinstance(shape, type) and issubclass(shape, enum.Enum):
        ctx.set(port, rng.choice(list(shape)))
        return
    target = Value.cast(port)
    ctx.set(target, number(rng, len(target), signed=target.shape().signed))
