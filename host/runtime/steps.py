"""Answering of requests cut into steps, so that several deployments take turns."""

from collections.abc import Generator, Sequence
from enum import Enum, auto

from halfdome.host.runtime.flights import Response


class Wait(Enum):
    """What a step may wait for."""

    #: Nothing: it does what can be done now.
    NOTHING = auto()
    #: Cards have done something more.
    EVENT = auto()
    #: The oldest request is done.
    END = auto()


Steps = Generator[bool, Wait, list[Response]]
"""Answers requests, one of which it begins, hands on or ends with each step. It is sent what it may
wait for, and yields whether there was nothing to do without waiting."""


def outcomes(running: Sequence[Steps]) -> list[list[Response] | Exception]:
    """What becomes of each, a step of one after a step of the other. If there is nothing to do for
    any, one waits for an event; the only one that is left waits for its requests."""
    found: dict[int, list[Response] | Exception] = {}
    idle = set[int]()

    def step(number: int, wait: Wait | None) -> None:
        try:
            is_idle = running[number].send(wait)  # type: ignore[arg-type]
        except StopIteration as end:
            found[number] = end.value
        except Exception as error:
            found[number] = error
        else:
            (idle.add if is_idle else idle.discard)(number)

    for number in range(len(running)):
        step(number, None)  # as a generator begins
    while left := [number for number in range(len(running)) if number not in found]:
        waiting = left[0] if idle.issuperset(left) else None
        for number in left:
            if len(left) == 1:
                step(number, Wait.END)
            else:
                step(number, Wait.EVENT if number == waiting else Wait.NOTHING)
    return [found[number] for number in range(len(running))]
