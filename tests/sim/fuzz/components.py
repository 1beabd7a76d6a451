"""A random component: ports, clock domains, registers, logic, memories, parts of the library."""

import random

from amaranth.hdl import (
    ClockDomain,
    Const,
    DomainRenamer,
    EnableInserter,
    Module,
    ResetInserter,
    ResetSignal,
    Shape,
    Signal,
    Value,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.sim.fuzz.parts import Parts
from tests.sim.fuzz.shapes import NAMES, WIDTHS, names, number, signature
from tests.sim.fuzz.values import Expressions, Statements

PERIODS = (1e-6, 0.7e-6, 2e-6, 3e-6, 0.31e-6)


class RandomComponent(wiring.Component):
    """The component of a seed: equal seeds give equal ones.

    Attributes
    ----------
    inputs, outputs : its ports, as their shapes show them
    probe : an output that depends on everything inside
    steady : outputs that registers drive, which have no glitches
    levers : one-bit signals of its clock domains that a test bench may set
    clocks : periods of its domains besides `sync`, in seconds
    late_resets : domains whose asynchronous reset is made inside, after what makes it
    """

    def __init__(self, seed: int):
        self.seed = seed
        rng = random.Random(seed)
        super().__init__(signature(rng, rng.randrange(3, 8)) | {"probe": Out(32)})
        self.inputs, self.outputs = [], []
        for _, member, value in self.signature.flatten(self):
            (self.inputs if member.flow == In else self.outputs).append(value)
        self.steady: list[Value] = []
        self.levers: list[Signal] = []
        self.clocks: dict[str, float] = {}
        self.domains: dict[str, ClockDomain] = {}
        self.inner_resets: set[str] = set()
        self._plan_domains(rng)
        self.late_resets = {n for n in self.inner_resets if self.is_asynchronous(n)}
        self._plan = rng.getrandbits(32)

    def _plan_domains(self, rng: random.Random) -> None:
        """`sync` as Amaranth makes it or the component's own, and up to three more."""
        if rng.random() < 0.4:
            self._own_domain(rng, "sync", clk_edge=rng.choice(("pos", "neg")))
        elif rng.random() < 0.2:
            self.inner_resets.add("sync")
        if rng.random() < 0.4:
            self.clocks["slow"] = rng.choice(PERIODS)
        if rng.random() < 0.3:
            self.clocks["class"] = rng.choice(PERIODS)
            self._own_domain(rng, "class", clk_edge=rng.choice(("pos", "neg")))
        if rng.random() < 0.3:
            self._own_domain(rng, "manual", local=rng.random() < 0.5)
            self.levers.append(self.domains["manual"].clk)

    def _own_domain(self, rng: random.Random, name: str, **options) -> None:
        domain = ClockDomain(
            name, reset_less=rng.random() < 0.2, async_reset=rng.random() < 0.4, **options
        )
        self.domains[name] = domain
        if domain.rst is not None:
            if rng.random() < 0.3:
                self.inner_resets.add(name)
            else:
                self.levers.append(domain.rst)

    def is_asynchronous(self, domain: str) -> bool:
        """Whether the reset of a domain is."""
        return domain in self.domains and self.domains[domain].async_reset

    def elaborate(self, platform):
        return _Builder(self, random.Random(self._plan)).build()


class _Builder:
    """One elaboration of a random component.

    Registers may be read everywhere. What is combinational is made in layers that read only what
    was there before, so that there is no loop.
    """

    def __init__(self, component: RandomComponent, rng: random.Random):
        self.rng = rng
        self.module = Module()
        self._names = names(rng, len(NAMES))
        self._component = component
        self.domains = list(dict.fromkeys(("sync", *component.clocks, *component.domains)))
        self.asynchronous = set(filter(component.is_asynchronous, self.domains))
        self.falling = {n for n, domain in component.domains.items() if domain.clk_edge == "neg"}
        self.late_resets = component.late_resets
        self.inputs = list(map(Value.cast, component.inputs))
        self.expressions = Expressions(rng, self.inputs or [Const(5)])

    def build(self) -> Module:
        rng, component = self.rng, self._component
        for domain in component.domains.values():
            self.module.domains += domain
        for name in sorted(component.inner_resets):
            self._drive_reset(name)
        outputs = [Value.cast(v) for v in component.outputs if v is not component.probe]
        outputs = [signal for signal in outputs if isinstance(signal, Signal)]
        rng.shuffle(outputs)
        split = rng.randrange(len(outputs) + 1)
        component.steady, combinational = outputs[:split], outputs[split:]
        registered = list(component.steady)
        groups = [(name, self._registers(registered, name)) for name in self.domains]
        steady = [signal for _, group in groups for signal in group]
        steady += [self._counter(name) for name in ("sync", *component.clocks)]
        self.expressions.readable = [*self.expressions.readable, *steady]
        parts = Parts(self, steady)
        for signal in combinational:
            if rng.random() < 0.9:
                self._layer([signal])
        for _ in range(rng.randrange(4)):
            self._layer([])
            parts.add()
        for _ in range(rng.randrange(4)):
            parts.check()
        for name, group in groups:
            if group:
                inside, domain = self.place(name)
                Statements(self.expressions, group).add(inside, domain)
        self._drive_probe()
        return self.module

    def _counter(self, domain: str) -> Signal:
        count = Signal(8, name=self.name())
        self.module.d[domain] += count.eq(count + self.rng.choice((1, 3, 77)))
        return count

    def _drive_probe(self) -> None:
        folded = Const(0, 32)
        for position, value in enumerate(self.expressions.readable):
            for start in range(0, len(value), 32):
                folded = folded ^ (value[start : start + 32] << position % 24)
        self.module.d.comb += self._component.probe.eq(folded)

    def _registers(self, outputs: list[Signal], domain: str) -> list[Signal]:
        """Some of the outputs, which are taken away, and new signals."""
        group = [outputs.pop() for _ in range(self.rng.randrange(len(outputs) + 1))]
        return group + [self.signal(domain=domain) for _ in range(self.rng.randrange(3))]

    def _layer(self, signals: list[Signal]) -> None:
        layer = signals + [self.signal() for _ in range(self.rng.randrange(2))]
        if layer:
            inside, _ = self.place("comb")
            Statements(self.expressions, layer).add(inside, "comb")
            self.expressions.readable += layer

    def _drive_reset(self, name: str) -> None:
        bits = [value[0] for value in self.inputs if len(value)]
        bit = self.rng.choice(bits) if bits else Const(0, 1)
        if name not in self.asynchronous:
            bit = bit & self.expressions.bit()
        elif self.rng.random() < 0.5:
            bit = ~bit
        self.module.d.comb += ResetSignal(name).eq(bit)

    def name(self) -> str:
        """A name that is not used yet."""
        return self._names.pop()

    def signal(self, *, domain: str = "comb") -> Signal:
        """A new signal, perhaps without reset where its domain allows it."""
        rng = self.rng
        width = rng.choice(WIDTHS)
        shape = Shape(width, width > 0 and rng.random() < 0.3)
        init = number(rng, width, signed=shape.signed) if rng.random() < 0.5 else 0
        reset_less = rng.random() < 0.2 and domain not in self.asynchronous
        return Signal(shape, name=self.name(), init=init, reset_less=reset_less)

    def place(self, domain: str) -> tuple[Module, str]:
        """A module for something in a domain, and what the domain is called in it."""
        rng = self.rng
        if rng.random() < 0.5:
            return self.module, domain
        inside: Module = Module()
        placed, called = inside, domain
        if domain != "comb":
            if rng.random() < 0.3:
                called = "renamed"
                placed = DomainRenamer({called: domain})(placed)
            if rng.random() < 0.2:
                placed = ResetInserter({domain: self.expressions.bit()})(placed)
            if rng.random() < 0.2:
                placed = EnableInserter({domain: self.expressions.bit()})(placed)
        self.module.submodules[self.name()] = placed
        return inside, called
