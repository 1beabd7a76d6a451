"""A model served by the cards of a platform: requests in, responses out, whatever goes wrong."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

from halfdome.hdl.commands import ReadFailure
from halfdome.host.driver.errors import CardError, CommandError, DataLost
from halfdome.host.driver.session import whole
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.placement import FAILURES, RETRIES, Placement
from halfdome.host.runtime.requests import Checked, Request, check
from halfdome.host.runtime.steps import Steps, Wait, outcomes


class Deployment(Placement):
    """Answers requests with a program on some accelerators of a session.

    It is made and fails as a `Placement`.
    """

    _running = 0  # the turn of the session in which it runs
    _released = False

    @whole
    def run(
        self, requests: Sequence[Request], progress: Callable[[int], None] = lambda rows: None,
        arrivals: Sequence[int] | None = None,
    ) -> list[Response]:  # fmt: skip
        """Answers every request, several in flight; `progress` is told the rows of each.

        No request begins before its cycle in `arrivals`, platform time that never falls; without,
        all are there from the beginning.
        A request that fails because of the cards or the links is answered again, up to `RETRIES`
        times; cards that do not serve take part again if they answer, which is looked at every
        `LOOK_CYCLES`. Raises `ValueError` for a request that is not as the program wants it,
        before anything is done, else what a request failed with last, or `CommandError` for a
        command that can never succeed.
        """
        [outcome] = outcomes([self._running_of(requests, progress, arrivals)])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _running_of(
        self, requests: Sequence[Request], progress: Callable[[int], None] = lambda rows: None,
        arrivals: Sequence[int] | None = None,
    ) -> Steps:  # fmt: skip
        """Answers requests step by step."""
        self._check_usable()
        if isinstance(requests, Mapping) or not isinstance(requests, Sequence):
            raise ValueError(
                f"requests: is a {type(requests).__name__}, must be a list of requests"
            )
        if arrivals is None:
            arrivals = [0] * len(requests)
        elif len(arrivals) != len(requests) or any(a > b for a, b in pairwise(arrivals)):
            raise ValueError(
                f"arrivals: are {len(arrivals)} cycles, must be one for each of {len(requests)} "
                "requests, none smaller than the one before"
            )
        self._running = self.session.turn
        self._rests = self.session.rests
        self._mend()
        self._look_for_absent()
        checked = [check(self.program, request) for request in requests]
        self._unsure = True
        self._go_first()
        responses = yield from self._answer(requests, checked, progress, arrivals)
        self._unsure = False
        self._running = 0
        return responses

    @whole
    def revive(self) -> None:
        """Lets cards that were given up take part again if they answer."""
        self._check_usable()
        self._mend()
        self._revive()

    @whole
    def release(self) -> None:
        """Gives all memory back; it answers no more."""
        self._check_not_running()
        self._released = True
        self._dissolve()
        self._forget(list(self._resident))
        self.session.release_abandoned()

    def _check_usable(self) -> None:
        if self._released:
            raise ValueError("the deployment was released: deploy the model again")
        self._check_not_running()

    def _check_not_running(self) -> None:
        if self._running == self.session.turn:
            raise ValueError("the deployment is running: call it when that is over")

    def _answer(
        self, requests: Sequence[Request], checked: list[Checked], progress: Callable[[int], None],
        arrivals: Sequence[int],
    ) -> Steps:  # fmt: skip
        responses: dict[int, Response] = {}
        attempts: Counter[int] = Counter()
        waiting = deque(range(len(checked)))
        idle = False
        while len(responses) < len(checked):
            wait, idle = (yield idle), False
            if self._rests != self.session.rests:
                self._follow(waiting)
            flights = self._flights
            oldest = (*flights.numbers, *waiting)[0]
            if not flights.numbers:
                self._sleep_until(arrivals[waiting[0]])
            come = bool(waiting) and arrivals[waiting[0]] <= self._clock()
            try:
                if come and flights.has_room:
                    number = waiting.popleft()
                    flights.begin(number, checked[number])
                    continue
                if wait is not Wait.END:
                    if flights.advance(last=not come):
                        continue
                    if not flights.done:
                        idle = wait is Wait.NOTHING
                        if wait is Wait.EVENT:
                            flights.sleep()
                        continue
                responses[oldest] = flights.land(last=not come)
                progress(checked[oldest].rows)
            except FAILURES as error:
                attempts[oldest] += 1
                final = attempts[oldest] > RETRIES
                if isinstance(error, CommandError) and (final or not error.is_transfer):
                    self._land_rest()
                    raise
                program = self.program
                self._retry(error, oldest, waiting)
                if final:
                    self._land_rest()
                    raise
                if self.program is not program:  # which may want them otherwise
                    checked = [check(self.program, request) for request in requests]
        return [responses[number] for number in range(len(checked))]

    def _follow(self, waiting: deque[int]) -> None:
        """Begins anew what was in flight when another deployment brought the cards to rest."""
        again = list(self._flights.numbers)
        waiting.extendleft(reversed(again))
        error = CardError("another deployment brought the cards to rest")
        self._recover(error, again, settled=self.session.settled)

    def _sleep_until(self, cycle: int) -> None:
        """Lets platform time pass."""
        while (left := cycle - self._clock()) > 0:
            self.session.bus.wait(left)

    def _retry(self, error: Exception, oldest: int, waiting: deque[int]) -> None:
        """Puts what failed with `error` at the head of `waiting`, and the cards in order."""
        if isinstance(error, CommandError | DataLost) and not _exhausted(error):
            waiting.appendleft(oldest)
            self._log(error, [oldest], "answered again")
            return
        again = sorted({oldest, *self._flights.numbers})
        waiting.extendleft(number for number in reversed(again) if number not in waiting)
        suspects = []
        if isinstance(error, CommandError):
            suspects = [card for card in self._all if card.index == error.card]
        self._recover(error, again, suspects)

    def _land_rest(self) -> None:
        """Lets what is in flight end, whatever becomes of it."""
        while self._flights.numbers:
            with suppress(CommandError, DataLost):  # the first failure is the one to tell
                self._flights.land(last=True)
        self._unsure = False


def run_together(
    jobs: Sequence[tuple[Deployment, Sequence[Request]]],
) -> list[list[Response] | Exception]:
    """Answers the requests of several deployments of one session at once.

    Each should have cores of its own: cards work on all of them at a time then. Those of higher
    `priority` go first, on the host, too. Whatever one fails with stands in place of its responses,
    and the others go on. Raises `ValueError` for deployments of different platforms, one that is
    named twice, cores that two have, and two whose cards tell each other of what they sent: each
    card has one counter for that.
    """
    deployments = [deployment for deployment, _ in jobs]
    if len({id(each.session) for each in deployments}) > 1:
        raise ValueError("jobs: deployments are on different platforms: run them by themselves")
    if len({id(each) for each in deployments}) < len(deployments):
        raise ValueError("jobs: a deployment is named twice: give it all requests at once")
    if not jobs:
        return []
    programs = [each.program for each in deployments]
    taken = Counter(core for program in programs for core in program.cores)
    if shared := [core for core, count in taken.items() if count > 1]:
        raise ValueError(f"jobs: two deployments have core {min(shared)}: give each its own cores")
    if sum(any((part.peer >= 0).any() for part in program.parts) for program in programs) > 1:
        raise ValueError(
            "jobs: the cards of two deployments tell each other what they sent: run "
            "one after the other, or on one card"
        )

    order = sorted(range(len(jobs)), key=lambda number: -deployments[number].priority)

    def run() -> list[list[Response] | Exception]:
        found = outcomes([deployments[number]._running_of(jobs[number][1]) for number in order])
        return [found[order.index(number)] for number in range(len(jobs))]

    return deployments[0].session.call(run)


def _exhausted(error: CommandError | DataLost) -> bool:
    """Whether a card fails because it has run out of tags: only a reset helps."""
    return isinstance(error, CommandError) and error.detail == ReadFailure.NO_TAG
