"""Amaranth's simulator, with two faults mended.

It follows a loop that never settles for ever; here that is an error. And it takes the bits beyond
the end of a value from what an operator has left there; here they are the sign, or zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.hdl import Signal
from amaranth.hdl._ir import Design
from amaranth.sim import _pyrtl
from amaranth.sim.pysim import PySimEngine

SPARE_DELTAS = 1000
"""Delta cycles that a moment may take besides one for every bit of the design."""
WATCHED_DELTAS = 100
"""The last of them; what changes in these is named."""


class CombinationalLoop(RuntimeError):
    """Signals that depend on themselves. The message names them."""


class SettlingEngine(PySimEngine):
    """An engine for `amaranth.sim.Simulator`. Raises `CombinationalLoop` while it simulates.

    Without a loop a change reaches everything within as many delta cycles as there are bits.
    """

    def __init__(self, design: Design):
        with _parts_mended():
            super().__init__(design)
        self._deltas = 0
        self._changing: dict[str, None] = {}
        self._commit = self._state.commit
        self._state.commit = self._commit_counted

    def _commit_counted(self, changed: set | None = None) -> bool:
        self._deltas += 1
        if self._deltas > SPARE_DELTAS:
            self._watch()
        settled = self._commit(changed)
        if settled:
            self._deltas = 0
        return settled

    def _watch(self) -> None:
        states = [state for state in self._state.slots if hasattr(state, "signal")]
        most = SPARE_DELTAS + sum(len(state.signal) for state in states)
        if self._deltas <= most:
            return
        for state in self._state.pending:
            if state in states and state.curr != state.next:
                self._changing[_named(state.signal)] = None
        if self._deltas > most + WATCHED_DELTAS:
            raise CombinationalLoop(
                f"after {self._deltas} delta cycles these signals go on changing, they depend on "
                f"themselves: {', '.join(sorted(self._changing))}"
            )


def _named(signal: Signal) -> str:
    file, line = signal.src_loc
    return f"{signal.name} ({file}:{line})"


def _on_part(compiler, value) -> str:
    """The Python of `bit_select` and `word_select`, of a value that is cut to its width first."""
    offset = f"{(1 << len(value.offset)) - 1:#x} & {compiler.rrhs(value.offset)}"
    shifted = f"{compiler.sign(value.value)} >> ({value.stride} * ({offset}))"
    return f"({(1 << value.width) - 1:#x} & ({shifted}))"


@contextmanager
def _parts_mended() -> Iterator[None]:
    original = _pyrtl._RHSValueCompiler.on_Part
    _pyrtl._RHSValueCompiler.on_Part = _on_part
    try:
        yield
    finally:
        _pyrtl._RHSValueCompiler.on_Part = original
