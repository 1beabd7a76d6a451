"""A program on the cards of a session, kept there whatever goes wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from halfdome.hdl import registers
from halfdome.host import arguments
from halfdome.host.driver.accelerator import Accelerator
from halfdome.host.driver.errors import CardError, CommandError, DataLost
from halfdome.host.driver.memory import Block
from halfdome.host.driver.session import Mark, Session
from halfdome.host.driver.settle import Settled, settle
from halfdome.host.runtime import loader
from halfdome.host.runtime.flights import Flights
from halfdome.host.runtime.program import Program

FAILURES = (CommandError, DataLost, CardError, TimeoutError)
"""What a request can fail with because something else than the request is wrong; a
`CommandError` only if it `is_transfer`."""
RETRIES = 3
"""How often a request is tried again before its failure is told."""
LOOK_CYCLES = 10_000_000
"""Cycles between two looks at a card that is silent, each of which may take a hundredth of that."""

_NOWHERE = "no card answers: the model is nowhere any more"


@dataclass(frozen=True)
class Before:
    """A program, and the numbers of the cards that ran it, by position."""

    program: Program
    numbers: Sequence[int]


Plan = Callable[[Sequence[int], Before | None], Program]
"""Makes the program for the cards of these numbers; the second is what ran before, part of which
may still be in their memory."""


@dataclass(frozen=True)
class Incident:
    """Something that went wrong, and what was done about it.

    Attributes
    ----------
    cycle : int, platform time
    cards : list of int, those that it happened to, as far as is known
    batches : list of int, the requests that had to be answered again
    error : str, named
    action : str
    """

    cycle: int
    cards: list[int]
    batches: list[int]
    error: str
    action: str


class Placement:
    """Where a program is, and on which of the cards that may serve it.

    Parameters
    ----------
    session : Session
    cards : those that may serve it
    plan : Plan, or a Program for exactly these cards
    clock : function that returns platform time in cycles
    as_list : bool, whether a card is told of many commands at once
    pass_on : bool, whether cards pass on to each other what all of them need
    priority : int, of `registers.PRIORITIES`: its cores go before those of a lower one

    Attributes
    ----------
    priority : int, see above; may be changed, and holds from the next call on
    incidents : list of Incident, what went wrong so far

    Raises `ProgramError` for a program that the cards cannot run, what `plan` raises, and
    `MemoryError` if it does not fit.
    """

    def __init__(
        self, session: Session, cards: Sequence[Accelerator], plan: Plan | Program,
        clock: Callable[[], int], *, as_list: bool = True, pass_on: bool = True, priority: int = 0,
    ):  # fmt: skip
        self.session = session
        self._all = list(cards)
        self._plan = plan if callable(plan) else _only(plan)
        self._clock = clock
        self._as_list = as_list
        self._pass_on = pass_on
        self.priority = priority
        self._formed: _Formed | None = None
        self._unsure = False  # whether a call has failed in the midst of something
        self._resident: dict[tuple[int, str], Block] = {}
        self._absent: list[Accelerator] = []  # given up
        self._looked = clock()
        self._rests = session.rests
        self.incidents: list[Incident] = []
        session.call(self._open)

    def _open(self) -> None:
        mark = self.session.mark()
        try:
            self._form(self._all, None)
        except FAILURES as error:
            self._recover(error, [], failed=mark)

    @property
    def priority(self) -> int:
        """See above."""
        return self._priority

    @priority.setter
    def priority(self, value: int) -> None:
        low, high = registers.PRIORITIES[0], registers.PRIORITIES[-1]
        self._priority = arguments.integer("priority", value, low, high)

    @property
    def program(self) -> Program:
        """The program that runs now. Raises `CardError` if none does."""
        if self._formed is None:
            raise CardError(_NOWHERE)
        return self._formed.program

    @property
    def cards(self) -> list[Accelerator]:
        """The cards that serve the model."""
        return list(self._formed.cards) if self._formed else []

    @property
    def _flights(self) -> Flights:
        if self._formed is None:
            raise CardError(_NOWHERE)
        return self._formed.flights

    def _mend(self) -> None:
        """Makes whole again what a call left that has failed in the midst of it."""
        formed = self._formed
        if formed is not None and formed.memory.intact():
            if self._unsure:
                self._formed = formed.anew(self._as_list)
        else:
            lost = [key for key, block in self._resident.items() if not self._owned(key, block)]
            for key in lost:
                del self._resident[key]
            self._dissolve()
            if self._absent and formed is None:  # those that are left may be too few for the model
                self._revive()
            living = [card for card in self._all if card not in self._absent]
            if self._formed is None and living:
                self._form(living, None)
        self._unsure = False

    def _form(self, cards: Sequence[Accelerator], before: Before | None) -> None:
        """Loads the program for `cards`, some of which may hold parts of it already."""
        if not cards:
            raise CardError(_NOWHERE)
        program = self._plan([card.index for card in cards], before)
        loader.check(program, cards, self.session.values)
        named = {(cards[s.position].index, s.name) for s in program.segments if s.contents}
        self._forget([key for key in self._resident if key not in named])
        memory = loader.Memory(self.session, program, cards, self._resident)
        memory.upload(self._pass_on)
        self._resident |= memory.resident
        self._formed = _Formed(program, tuple(cards), memory, self._as_list)
        self._go_first()
        self.session.keep()

    def _go_first(self) -> None:
        """Tells the cards how soon they serve the cores of this program."""
        for card in self.cards:
            card.set_priority(self.program.cores, self._priority)

    def _owned(self, key: tuple[int, str], block: Block) -> bool:
        card = next(card for card in self._all if card.index == key[0])
        return any(memory.owns(block) for memory in card.memories.values())

    def _forget(self, keys: Sequence[tuple[int, str]]) -> None:
        """Gives contents back."""
        for key in keys:
            loader.release(self._all, key[0], self._resident[key])
            del self._resident[key]

    def _dissolve(self) -> None:
        """Gives back all but contents; the cards are at rest or given up."""
        if self._formed is not None:
            self._formed.memory.release()
            self._formed = None

    def _recover(
        self, error: Exception, batches: list[int], suspects: Sequence[Accelerator] = (),
        failed: Mark | None = None, settled: Settled | None = None,
    ) -> None:  # fmt: skip
        """Settles all cards, and places the model again on those that live.

        What a placing that failed has taken since `failed` is given back first; `settled` says what
        became of cards that are at rest already. Raises `CardError`
        if no card lives, and the last failure after `RETRIES` vain attempts.
        """
        before = self._formed.before if self._formed else None
        for _ in range(1 + RETRIES):
            absent = self._absent
            if settled is None:
                settled = settle(self._all, self._all, [*suspects, *absent])
                self.session.rests, self.session.settled = self.session.rests + 1, settled
            self._rests = self.session.rests
            if failed is not None:
                self.session.give_back(failed)
            self._dissolve()
            whole_cards = {card.index for card in settled.whole}
            self._forget([key for key in self._resident if key[0] not in whole_cards])
            self._absent = dead = [card for card in self._all if card not in settled.living]
            if not dead:  # else one of them might still write there
                self.session.release_abandoned()
            concerned = [*dead, *settled.reset]
            self._log(error, batches, _told(settled, dead, absent), concerned)
            self._looked = self._clock()
            failed = self.session.mark()
            try:
                self._form(settled.living, before)
            except FAILURES as failure:
                if not settled.living:
                    raise failure from error
                error, batches, settled = failure, [], None
            else:
                return
        self._dissolve()
        self._forget(list(self._resident))
        self._absent = list(self._all)
        raise error

    def _log(
        self, error: Exception, batches: list[int], action: str,
        concerned: Sequence[Accelerator] = (),
    ) -> None:  # fmt: skip
        cards = {card.index for card in concerned}
        if isinstance(error, CommandError):
            cards.add(error.card)
        message = str(error).splitlines()[0]
        self.incidents.append(Incident(self._clock(), sorted(cards), batches, message, action))

    def _look_for_absent(self) -> None:
        """Lets cards that were given up take part again, if it is time to look for them."""
        if self._absent and self._clock() - self._looked >= LOOK_CYCLES:
            self._revive()

    def _revive(self) -> None:
        self._looked = self._clock()
        returned = [card for card in self._absent if card.answers]
        if returned:
            names = ", ".join(f"card {card.index}" for card in returned)
            self._recover(CardError(f"{names}: answers again"), [])


class _Formed:
    """A program on its cards, with what is in flight."""

    def __init__(
        self, program: Program, cards: tuple[Accelerator, ...], memory: loader.Memory, as_list: bool
    ):
        self.program = program
        self.cards = cards
        self.memory = memory
        self.flights = Flights(program, cards, memory, as_list)

    @property
    def before(self) -> Before:
        """What a plan is told of it."""
        return Before(self.program, [card.index for card in self.cards])

    def anew(self, as_list: bool) -> "_Formed":
        """The same with nothing in flight; the cards are at rest."""
        return _Formed(self.program, self.cards, self.memory, as_list)


def _only(program: Program) -> Plan:
    def plan(numbers: Sequence[int], before: Before | None) -> Program:
        return program

    return plan


def _told(settled: Settled, dead: Sequence[Accelerator], absent: Sequence[Accelerator]) -> str:
    """What became of the cards, in words."""
    back = [card for card in absent if card in settled.living]
    anew = [card for card in settled.living if card not in settled.whole and card not in back]
    groups = {
        "given up": dead,
        "back": back,
        "reset and loaded anew": anew,
        "reset": [card for card in settled.reset if card not in back and card not in anew],
    }
    parts = [
        f"card{'s' * (len(cards) > 1)} {', '.join(str(card.index) for card in cards)} {what}"
        for what, cards in groups.items()
        if cards
    ]
    return "; ".join(parts) or "all cards brought to rest"
