"""What every card does, as arrays in the order of a round."""

from collections.abc import Mapping, Sequence

import numpy as np

from halfdome.host.compiler.commands import Command
from halfdome.host.compiler.events import Waits
from halfdome.host.compiler.schedule import Schedule
from halfdome.host.compiler.segments import Segments
from halfdome.host.compiler.target import Target
from halfdome.host.runtime.program import MOST_WAITS, Part


def parts(
    order: Sequence[Command], waits: Waits, before: Mapping[Command, Command],
    schedule: Schedule, segments: Segments, cards: int, target: Target,
) -> tuple[Part, ...]:  # fmt: skip
    """What every card does, in the order of a round."""
    places = {command: place for place, command in enumerate(order)}

    def key(command: Command) -> tuple[float, int]:
        timed = before.get(command, command)  # a fence is issued with what it is for
        return schedule.key(timed)[1], places[command]

    rounds = [sorted((c for c in order if c.position == card), key=key) for card in range(cards)]
    events = {command: n for n, command in enumerate(c for mine in rounds for c in mine)}
    arrivals = {}
    for command in order:
        if command.tells >= 0:
            arrivals[command] = len(events) + len(arrivals)
    made = []
    for card, mine in enumerate(rounds):
        waited = np.full((len(mine), MOST_WAITS), -1, np.int32)
        for row, command in enumerate(mine):
            for place, other in enumerate(waits[command]):
                own = other.position == card
                waited[row, place] = events[other] if own else arrivals[other]
        stages = [schedule.key(before.get(command, command))[0] for command in mine]
        made.append(Part(
            queue=np.array([command.queue for command in mine], np.uint8),
            stage=np.array(stages, np.uint8),
            waits=waited,
            peer=np.array([command.tells for command in mine], np.int16),
            arrival=np.array([arrivals.get(command, -1) for command in mine], np.int32),
            labels=tuple(command.label for command in mine),
            code=target.encode(mine, [len(waits[command]) for command in mine], segments),
        ))  # fmt: skip
    return tuple(made)
