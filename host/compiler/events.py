"""What each command waits for, once their order is known: no more than it must.

A queue runs in order, so a command need not wait for what is before it in its own queue, nor for
what something it waits for has waited for. What remains beyond what a descriptor can say is waited
for by fences in front of it.
"""

from collections.abc import Hashable, Mapping, Sequence

from halfdome.host.compiler.commands import Command
from halfdome.host.compiler.schedule import Schedule
from halfdome.host.compiler.target import Target

Waits = dict[Command, list[Command]]


def ordered(commands: Sequence[Command], schedule: Schedule) -> list[Command]:
    """Commands in the order of their starts, what was first staying first."""
    return sorted(commands, key=lambda command: schedule.starts[command])


def waits(
    order: Sequence[Command], needed: Mapping[Command, Sequence[Command]], schedule: Schedule
) -> Waits:
    """For each command what it waits for: of its own card, or what tells its card.

    What the host has seen done before it issues a command is not waited for again.
    """
    numbers: dict[Command, int] = {}
    known: dict[Command, dict[Hashable, int]] = {}
    latest: dict[Hashable, dict[Hashable, int]] = {}
    result: Waits = {}
    for command in order:
        queue = command.position, command.queue
        seen = dict(latest.get(queue, {}))
        chosen = []
        for other in sorted(needed[command], key=lambda o: -numbers[o]):
            if other.position == command.position:
                source: Hashable = (other.position, other.queue)
            else:
                source = ("from", other.position, command.position)
            number = numbers[other]
            if source == queue or seen.get(source, 0) >= number:
                continue
            if schedule.synced(other, command):
                continue
            chosen.append(other)
            seen[source] = number
            if other.position == command.position:
                for key, value in known[other].items():
                    seen[key] = max(value, seen.get(key, 0))
        numbers[command] = len(numbers) + 1
        seen[queue] = numbers[command]
        known[command] = latest[queue] = seen
        result[command] = chosen
    return result


def with_fences(
    order: Sequence[Command], waits: Waits, target: Target
) -> tuple[list[Command], Waits, dict[Command, Command]]:
    """The order with fences in it, so that no command waits for more than it can; and for each
    fence the command that it stands in front of."""
    result, fenced, before = [], {}, {}
    for command in order:
        waited = list(waits[command])
        while len(waited) > target.waits:
            fence = Command(command.position, target.fence(command.queue), command.label)
            fenced[fence], waited = waited[: target.waits], waited[target.waits :]
            before[fence] = command
            result.append(fence)
        fenced[command] = waited
        result.append(command)
    return result, fenced, before
