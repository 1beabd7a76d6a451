"""`Assert`, `Assume`, `Cover` and `Print` of a design, taken out of it and acted on in Python.

In their place come signals that say which of them holds at the moment, and with what values.
Messages, source lines and output are then those of Amaranth's simulator, since it is Python that
formats and prints.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.hdl import Cat, ClockDomain, Const, Fragment, Shape, Signal
from amaranth.hdl._ast import Print, Property, Statement, Switch

from halfdome.sim.compiled.flow import fragments

_VIOLATED = {Property.Kind.Assert: "Assertion", Property.Kind.Assume: "Assumption"}


@dataclass(frozen=True, eq=False)
class Check:
    """One statement: `fires` says when it acts, `values` are what it prints, one after another."""

    statement: Print | Property
    fires: Signal
    values: Signal

    def act(self, values: int) -> None:
        """Prints, or raises `AssertionError` at the statement's line."""
        text = self._text(values)
        if isinstance(self.statement, Print):
            print(text, end="")  # noqa: T201
        elif self.statement.kind is Property.Kind.Cover:
            if self.statement.message is not None:
                file, line = self.statement.src_loc
                print(f"Coverage hit at {file}:{line}: {text}")  # noqa: T201
        else:
            message = f"{_VIOLATED[self.statement.kind]} violated"
            if self.statement.message is not None:
                message += f": {text}"
            _raise_at(self.statement.src_loc, AssertionError(message))

    def _text(self, values: int) -> str:
        text = ""
        for chunk in _chunks(self.statement):
            if isinstance(chunk, str):
                text += chunk
                continue
            value, spec = chunk
            number = _cut(values, value.shape())
            values >>= len(value)
            if spec.endswith("s"):
                text += format(_decoded(number), spec[:-1])
            else:
                text += format(number, spec)
        return text


@dataclass(frozen=True, eq=False)
class Group:
    """The checks of one domain; bit `i` of `fires` is that of `checks[i]`."""

    domain: ClockDomain | None
    """None: combinational."""
    checks: list[Check]
    fires: Signal


def _raise_at(src_loc: tuple[str, int] | None, error: AssertionError) -> None:
    """Raises the error so that its traceback ends at a line of the design."""
    if src_loc is None:
        raise error
    file, line = src_loc
    exec(compile("\n" * (line - 1) + "raise error", file, "exec"), {"error": error})


def _decoded(number: int) -> str:
    """The text whose first character is the lowest byte; bytes of 0 are none."""
    raw = number.to_bytes(-(-number.bit_length() // 8), "little")
    return raw.replace(b"\0", b"").decode()


def _chunks(statement: Print | Property) -> tuple:
    return statement.message._chunks if statement.message is not None else ()


def _cut(raw: int, shape: Shape) -> int:
    number = raw & ((1 << shape.width) - 1)
    return number - (1 << shape.width) if shape.signed and number >> (shape.width - 1) else number


def take_out(top: Fragment) -> list[Group]:
    """Removes all checks from a design whose domains are lowered; a fragment computes them."""
    found: dict[ClockDomain | None, list[Check]] = {}
    computed = []
    for fragment in fragments(top):
        for name, statements in list(fragment.statements.items()):
            domain = None if name == "comb" else fragment.domains[name]
            checks: list[Check] = []
            kept, conditions = _divided(statements, checks)
            if checks:
                fragment.statements[name] = Statement.cast(kept)
                found.setdefault(domain, []).extend(checks)
                computed += conditions
    groups = []
    for domain, checks in found.items():
        group = Group(domain, checks, Signal(len(checks), name="fires"))
        computed.append(group.fires.eq(Cat(check.fires for check in checks)))
        groups.append(group)
        for check in checks:
            values = (chunk[0] for chunk in _chunks(check.statement) if not isinstance(chunk, str))
            computed.append(check.values.eq(Cat(values)))
    if computed:
        fragment = Fragment()
        fragment.add_statements("comb", computed)
        top.add_subfragment(fragment, "checks")
    return groups


def _divided(statements: Iterable, checks: list[Check]) -> tuple[list, list]:
    """The statements without checks, and those under the same conditions that compute checks."""
    kept, conditions = [], []
    for statement in statements:
        if isinstance(statement, Switch):
            cases = [
                (patterns, *_divided(inner, checks), src_loc)
                for patterns, inner, src_loc in statement.cases
            ]
            for chosen, place in ((kept, 1), (conditions, 2)):
                if any(case[place] for case in cases):
                    inner = [(case[0], case[place], case[3]) for case in cases]
                    chosen.append(Switch(statement.test, inner, src_loc=statement.src_loc))
        elif isinstance(statement, Print | Property):
            width = sum(len(chunk[0]) for chunk in _chunks(statement) if not isinstance(chunk, str))
            check = Check(statement, Signal(name="fires"), Signal(width, name="values"))
            checks.append(check)
            conditions.append(check.fires.eq(_acts(statement)))
        else:
            kept.append(statement)
    return kept, conditions


def _acts(statement: Print | Property):
    if isinstance(statement, Print):
        return Const(1)
    test = statement.test.bool()
    return test if statement.kind is Property.Kind.Cover else ~test
