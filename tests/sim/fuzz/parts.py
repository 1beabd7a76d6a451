"""Parts of random components that are more than statements: memories, checks, the library's."""

from amaranth.hdl import (
    Assert,
    Assume,
    ClockDomain,
    ClockSignal,
    Const,
    Cover,
    Format,
    Module,
    Print,
    Signal,
    Value,
)
from amaranth.lib import cdc, fifo, memory

from tests.sim.fuzz.shapes import Header, number
from tests.sim.fuzz.values import Expressions, Statements

SPECS = ("", "d", "b", "o", "x", "X", "_b", "_x", "#x", "+d", "08b", ">12d", "*<9x", "=+8d", "_o")


class Parts:
    """Adds parts to the component that `builder` builds.

    `steady` are its registers; together with its inputs they have no glitches.
    """

    def __init__(self, builder, steady: list[Signal]):
        self._builder = builder
        self._rng = builder.rng
        self._steady = Expressions(builder.rng, [*builder.inputs, *steady] or [Const(5)])

    def add(self) -> None:
        """Adds one part, if its domain allows it."""
        kinds = {
            self._memory: 3, self._library: 2, self._state_machine: 1, self._copied_domain: 1,
        }  # fmt: skip
        (kind,) = self._rng.choices(list(kinds), list(kinds.values()))
        kind()

    def _domain(self, *, reset_kept: bool = False, rising: bool = False) -> str | None:
        """A clock domain; with `reset_kept`, none whose reset is asynchronous."""
        builder = self._builder
        domains = [
            name
            for name in builder.domains
            if not (reset_kept and name in builder.asynchronous)
            and not (rising and name in builder.falling)
        ]
        return self._rng.choice(domains) if domains else None

    def _memory(self) -> None:
        builder, rng, e = self._builder, self._rng, self._builder.expressions
        depth = rng.randrange(1, 10)
        shape = rng.choice((1, 8, 12, 40, 70, Header, 0))
        rows = [] if shape is Header else [
            number(rng, shape, signed=False) for _ in range(rng.randrange(depth + 1))
        ]  # fmt: skip
        store = memory.Memory(shape=shape, depth=depth, init=rows)
        inside, _ = builder.place("comb")
        inside.submodules[builder.name()] = store
        writes = {}
        for _ in range(rng.randrange(3)):
            domain = self._domain(reset_kept=True)
            if domain is None:
                continue
            granularity = 4 if shape in (8, 12, 40) and rng.random() < 0.5 else None
            port = store.write_port(domain=domain, granularity=granularity)
            writes.setdefault(domain, []).append(port)
            inside.d.comb += [port.addr.eq(e.value()), Value.cast(port.data).eq(e.value())]
            inside.d.comb += port.en.eq(e.value())
        read = []
        for _ in range(rng.randrange(1, 3)):
            domain = self._domain(reset_kept=True) if rng.random() < 0.6 else "comb"
            if domain is None:
                continue
            transparent = [p for p in writes.get(domain, ()) if rng.random() < 0.5]
            port = store.read_port(domain=domain, transparent_for=transparent)
            inside.d.comb += port.addr.eq(e.value())
            if domain != "comb":
                inside.d.comb += port.en.eq(e.bit())
            read.append(Value.cast(port.data))
        e.readable += read

    def check(self) -> None:
        """Adds a check, or none.

        What is combinational only asserts, and of steady values: others have glitches, and the
        simulator prints again whenever anything else has changed.
        """
        builder, rng = self._builder, self._rng
        domain = self._domain(reset_kept=True) if rng.random() < 0.7 else "comb"
        if domain is None or (domain == "comb" and builder.late_resets):
            return
        e = self._steady if domain == "comb" else builder.expressions
        fields = [e.signal(), *(e.value(1) for _ in range(rng.randrange(3)))]
        text = "".join(f" {{:{rng.choice(SPECS)}}}" for _ in fields)
        message = Format(f"{builder.name()} {{{{}}}}{text}", *fields)
        test = e.value(2)
        match rng.randrange(2 if domain == "comb" else 6):
            case 0:
                statement = Assert(test | e.value(2).any() | (e.value() != 0), message)
            case 1:
                statement = Assume((test == test) | e.bit())
            case 2:
                statement = Cover(test, message)
            case _:
                statement = Print(message)
        inside, called = builder.place(domain)
        if rng.random() < 0.6:
            with inside.If(e.bit()):
                inside.d[called] += statement
        else:
            inside.d[called] += statement

    def _state_machine(self) -> None:
        builder, rng, e = self._builder, self._rng, self._builder.expressions
        domain = self._domain()
        register = builder.signal(domain=domain)
        inside, called = builder.place(domain)
        states = [builder.name() for _ in range(rng.randrange(1, 5))]
        with inside.FSM(domain=called) as machine:
            for state in states:
                with inside.State(state):
                    Statements(e, [register]).add(inside, called, depth=1)
                    with inside.If(e.bit()):
                        inside.next = rng.choice(states)
        ongoing = Signal(name=builder.name())
        inside.d.comb += ongoing.eq(machine.ongoing(states[-1]))
        e.readable += [register, ongoing]

    def _library(self) -> None:
        builder, rng, e = self._builder, self._rng, self._builder.expressions
        domain = self._domain(reset_kept=True, rising=True)
        other = self._domain(reset_kept=True, rising=True)
        if domain is None or other is None:
            return
        bit = Signal(name=builder.name())
        result = Signal(name=builder.name())
        match rng.randrange(5):
            case 0:
                part = cdc.FFSynchronizer(e.signal(), wide := Signal(9), o_domain=domain)
                result = wide
            case 1:
                source = next((v[0] for v in builder.inputs if len(v)), Const(0, 1))
                part = cdc.AsyncFFSynchronizer(source, result, o_domain=domain)
            case 2:
                part = cdc.PulseSynchronizer(domain, other)
                builder.module.d.comb += [part.i.eq(e.bit()), result.eq(part.o)]
            case 3:
                part = fifo.SyncFIFOBuffered(width=rng.randrange(9), depth=rng.randrange(1, 5))
                self._drive_fifo(part)
                return
            case _:
                part = fifo.AsyncFIFO(width=5, depth=4, w_domain=domain, r_domain=other)
                self._drive_fifo(part)
                return
        builder.module.submodules[builder.name()] = part
        e.readable += [bit, result]

    def _drive_fifo(self, part) -> None:
        builder, e = self._builder, self._builder.expressions
        builder.module.submodules[builder.name()] = part
        builder.module.d.comb += [
            part.w_data.eq(e.value()), part.w_en.eq(e.bit()), part.r_en.eq(e.bit()),
        ]  # fmt: skip
        e.readable += [part.r_data, part.r_rdy, part.w_rdy]

    def _copied_domain(self) -> None:
        """A domain whose clock is a copy, either for itself alone or for the other edge."""
        builder, rng = self._builder, self._rng
        domain, name = self._domain(), f"copied_{builder.name()}"
        other_edge = rng.random() < 0.5
        edge = "pos" if (domain in builder.falling) == other_edge else "neg"
        inside: Module = Module()
        inside.domains += ClockDomain(name, local=True, reset_less=True, clk_edge=edge)
        inside.d.comb += ClockSignal(name).eq(ClockSignal(domain))
        register = builder.signal()
        own = Expressions(rng, [register])
        e = builder.expressions if other_edge else own
        Statements(e, [register]).add(inside, name)
        builder.module.submodules[builder.name()] = inside
        builder.expressions.readable.append(register)
