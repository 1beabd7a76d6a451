"""Waits: all that must come before does, and nothing is waited for twice."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.compiler.commands import Command
from halfdome.host.compiler.events import ordered, waits, with_fences
from halfdome.host.compiler.schedule import Schedule, schedule
from tests.host.compiler.commands import QUEUES, Work, needed, programs


def before(order, waited):
    """For each command all that is done when it starts."""
    known, last = {}, {}
    for command in order:
        queue = command.position, command.queue
        sources = [*waited[command], *([last[queue]] if queue in last else [])]
        known[command] = {c for source in sources for c in (source, *known[source])}
        last[queue] = command
    return known


@given(commands=programs(cards=2, most=20))
def test_what_is_needed_is_done_and_no_wait_could_be_left_out(commands):
    needs = needed(commands)
    plan = schedule(commands, needs)
    order = ordered(commands, plan)
    waited = waits(order, needs, plan)
    known = before(order, waited)
    for command in order:
        assert set(needs[command]) <= known[command]
        for left_out in waited[command]:
            fewer = [other for other in waited[command] if other is not left_out]
            assert left_out not in before(order, waited | {command: fewer})[command]


@given(st.lists(st.integers(0, QUEUES - 1), min_size=2, max_size=20))
def test_a_chain_waits_where_it_changes_queues(queues):
    commands = [Command(0, Work(queue, 1.0), "") for queue in queues]
    needs = {command: commands[:place] for place, command in enumerate(commands)}
    plan = Schedule({c: float(n) for n, c in enumerate(commands)}, 100.0, ())
    waited = waits(commands, needs, plan)
    for one, two in pairwise(commands):
        assert waited[two] == ([] if one.queue == two.queue else [one])


def test_what_a_peer_tells_is_waited_for_once():
    told = [Command(1, Work(0, 1.0), "", tells=0) for _ in range(2)]
    mine = [Command(0, Work(queue, 1.0), "") for queue in (0, 0, 1)]
    order = [*told, *mine]
    needs = {mine[0]: told, mine[1]: told[:1], mine[2]: [told[1]], told[0]: [], told[1]: []}
    plan = Schedule({c: float(n) for n, c in enumerate(order)}, 100.0, ())
    waited = waits(order, needs, plan)
    assert [waited[each] for each in mine] == [[told[1]], [], [told[1]]]


class Target:
    """Commands of it wait for `waits` others."""

    def __init__(self, waits):
        self.waits = waits

    def fence(self, queue):
        return Work(queue, 0.0)


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6), most=st.integers(1, 3),
)  # fmt: skip
def test_fences_wait_for_what_a_command_cannot(counts, most):
    sources = [Command(0, Work(0, 1.0), "") for _ in range(9)]
    commands = [Command(0, Work(1, 1.0), f"c{n}") for n in range(len(counts))]
    waited = {source: [] for source in sources} | {
        command: sources[:count] for command, count in zip(commands, counts, strict=True)
    }
    order, fenced, in_front = with_fences([*sources, *commands], waited, Target(most))
    assert [each for each in order if each not in in_front] == [*sources, *commands]
    for command, count in zip(commands, counts, strict=True):
        fences = [fence for fence, of in in_front.items() if of is command]
        place = order.index(command)
        assert order[place - len(fences) : place] == fences
        assert {fence.queue for fence in fences} <= {command.queue}
        group = [*fences, command]
        assert all(len(fenced[each]) <= most for each in group)
        assert [source for each in group for source in fenced[each]] == sources[:count]
        assert len(fences) == max(0, -(-count // most) - 1)
