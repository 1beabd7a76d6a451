"""What an elaborated design consists of: statements and memory ports, each with its clock domain.

Read as Amaranth's simulator reads it. What drives a signal, and what that depends on, follows.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from amaranth.hdl import ClockDomain, Fragment, MemoryData, MemoryInstance, Signal, Value
from amaranth.hdl._ast import (
    Assign,
    Concat,
    Operator,
    Part,
    Print,
    Property,
    SignalDict,
    SignalSet,
    Slice,
    Switch,
    SwitchValue,
)


def fragments(top: Fragment) -> Iterator[Fragment]:
    """The fragment and all below it."""
    yield top
    for fragment, _, _ in top.subfragments:
        yield from fragments(fragment)


def place(src_loc: tuple[str, int] | None) -> str:
    """Where something was written, to follow its name: ` (file:line)`."""
    return f" ({src_loc[0]}:{src_loc[1]})" if src_loc else ""


class Leaf(NamedTuple):
    """A statement that is no `Switch`, or a memory port; `domain` None is combinational."""

    domain: ClockDomain | None
    statement: Assign | Print | Property | None
    writes: tuple[Signal, ...]
    values: tuple[Value, ...]
    """What it depends on, the conditions that it is under included."""
    conditional: bool = False
    loads: MemoryData | None = None
    stores: MemoryData | None = None

    @property
    def reads(self) -> SignalSet:
        """The signals that it depends on."""
        return SignalSet(signal for value in self.values for signal in value._rhs_signals())


def leaves(top: Fragment) -> Iterator[Leaf]:
    """All statements and memory ports of a design whose domains are lowered."""
    for fragment in fragments(top):
        if isinstance(fragment, MemoryInstance):
            yield from _memory_ports(fragment)
        for name, statements in fragment.statements.items():
            domain = None if name == "comb" else fragment.domains[name]
            yield from _leaves(domain, statements, ())


def _leaves(domain: ClockDomain | None, statements: Iterable, tests: tuple) -> Iterator[Leaf]:
    for statement in statements:
        if isinstance(statement, Switch):
            for _, inner, _ in statement.cases:
                yield from _leaves(domain, inner, (*tests, statement.test))
        elif isinstance(statement, Assign):
            writes = tuple(statement.lhs._lhs_signals())
            values = (statement.rhs, *_offsets(statement.lhs), *tests)
            yield Leaf(domain, statement, writes, values, conditional=bool(tests))
        else:
            message = statement.message._chunks if statement.message is not None else ()
            values = [chunk[0] for chunk in message if not isinstance(chunk, str)]
            values += [statement.test] if isinstance(statement, Property) else []
            yield Leaf(domain, statement, (), (*values, *tests), conditional=bool(tests))


def _offsets(target: Value) -> Iterator[Value]:
    """The values that say which bits an assignment is to."""
    match target:
        case Part():
            yield target.offset
            yield from _offsets(target.value)
        case SwitchValue():
            yield target.test
            for _, value in target.cases:
                yield from _offsets(value)
        case Slice():
            yield from _offsets(target.value)
        case Concat():
            for part in target.parts:
                yield from _offsets(part)
        case Operator():
            yield from _offsets(target.operands[0])


def _memory_ports(memory: MemoryInstance) -> Iterator[Leaf]:
    for port in memory._read_ports:
        domain = None if port._domain == "comb" else memory.domains[port._domain]
        writes = tuple(port._data._lhs_signals())
        yield Leaf(domain, None, writes, (port._addr, port._en), loads=memory._data)
    for port in memory._write_ports:
        values = (port._addr, port._data, port._en)
        yield Leaf(memory.domains[port._domain], None, (), values, stores=memory._data)


class Flow:
    """The leaves of a design, and those that drive each signal and write each memory."""

    def __init__(self, top: Fragment):
        self.leaves = list(leaves(top))
        self.drivers: SignalDict = SignalDict()
        self.writers: dict[MemoryData, list[Leaf]] = {}
        for leaf in self.leaves:
            for signal in leaf.writes:
                self.drivers.setdefault(signal, []).append(leaf)
            if leaf.stores is not None:
                self.writers.setdefault(leaf.stores, []).append(leaf)

    def domains(self) -> list[ClockDomain]:
        """The clock domains in which something is."""
        return list(dict.fromkeys(leaf.domain for leaf in self.leaves if leaf.domain is not None))

    def copied(self, signal: Signal) -> Value | None:
        """The one value that the signal always is, if there is such an assignment."""
        match self.drivers.get(signal, ()):
            case [Leaf(domain=None, statement=Assign() as assign, conditional=False)]:
                return assign.rhs if isinstance(assign.lhs, Signal) else None
        return None
