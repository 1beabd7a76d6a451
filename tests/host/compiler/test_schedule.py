"""Schedules: nothing starts too early, and no two requests meet in a queue."""

from collections import defaultdict
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.compiler.commands import Command
from halfdome.host.compiler.schedule import LATER, schedule
from tests.host.compiler.commands import Work, needed, programs


def busy_twice(plan, commands):
    """Pairs of commands that are in a queue at the same time, of this request and of others."""
    found = []
    queues = defaultdict(list)
    for command in commands:
        queues[command.position, command.queue].append(command)
    for queue in queues.values():
        for place, one in enumerate(queue):
            for two in queue[:place]:
                gap = (plan.starts[two] - plan.starts[one]) % plan.interval
                near = 1e-6 * plan.interval
                if gap < one.cycles - near or plan.interval - gap < two.cycles - near:
                    found.append((one, two))
    return found


@given(commands=programs(cards=3))
def test_requests_follow_each_other_without_meeting(commands):
    needs = needed(commands)
    plan = schedule(commands, needs)
    busy = defaultdict(float)
    for command in commands:
        assert plan.starts[command] >= 0
        for other in needs[command]:
            assert plan.starts[command] >= plan.starts[other] + other.cycles
            assert plan.key(other) < plan.key(command)  # issued before
        busy[command.position, command.queue] += command.cycles
        assert 0 <= plan.stage(command) < plan.stages
    assert plan.interval >= max(busy.values())
    assert busy_twice(plan, commands) == []
    assert plan.syncs == ()


def chain(*queues, cycles=10.0):
    """Commands that each wait for the one before."""
    commands = [Command(0, Work(queue, cycles), "") for queue in queues]
    needs = {c: commands[max(0, n - 1) : n] for n, c in enumerate(commands)}
    return commands, needs


def test_the_busiest_queue_decides_how_often_a_request_begins():
    commands, needs = chain(0, 1, 0, 1, 1)
    plan = schedule(commands, needs)
    assert plan.interval == pytest.approx(30, rel=0.06)
    assert plan.stages == 2
    assert plan.starts[commands[-1]] >= 40


@pytest.mark.parametrize("queues", [(0, 1, 0, 1, 1), (0, 0, 0)])
def test_requests_follow_no_sooner_than_what_queues_share_allows(queues):
    commands, needs = chain(*queues)
    assert schedule(commands, needs, least=200.0).interval == 200
    assert schedule(commands, needs, least=20.0).interval >= 30


def test_what_needs_only_one_queue_takes_turns_within_one_round():
    commands, needs = chain(0, 0, 0)
    plan = schedule(commands, needs)
    assert (plan.interval, plan.stages) == (30, 1)


def test_a_request_waits_for_no_gap_if_requests_in_turn_come_about_as_often():
    """Of 103 cycles one queue is busy for 101: with gaps for others, the last would come late."""
    first, long, last, beside = (
        Command(0, Work(queue, cycles), "")
        for queue, cycles in ((0, 1.0), (1, 96.0), (1, 5.0), (0, 1.0))
    )
    needs = {first: [], long: [first], beside: [long], last: [beside]}
    plan = schedule([first, long, beside, last], needs)
    assert plan.starts[last] == 98
    assert plan.interval == 102
    assert busy_twice(plan, [first, long, beside, last]) == []


def test_no_request_waits_for_gaps_again_and_again():
    """Strips through two queues in turn, one of which is else busy: at the least interval each of
    them would wait for a gap, and a request take 371 cycles instead of 103."""
    strips = [Command(0, Work(n % 2, (2.0, 6.0)[n % 2]), "") for n in range(16)]
    beside = Command(0, Work(0, 45.0), "")
    needs = {c: strips[max(0, n - 1) : n] for n, c in enumerate(strips)} | {beside: []}
    plan = schedule([*strips, beside], needs)
    alone = schedule([*strips, beside], needs, inf)
    assert plan.latency <= LATER * alone.latency
    assert plan.interval < alone.interval
    assert busy_twice(plan, [*strips, beside]) == []


@given(lead=st.integers(1, 4), cycles=st.integers(1, 40))
def test_the_host_looks_between_what_it_must_see_and_what_comes_after(lead, cycles):
    """The relay of pooled rows through host memory."""
    commands, needs = chain(*range(lead), cycles=float(cycles))
    last = commands[-1]
    received = Command(1, Work(0, 5.0), "", once_seen=[last])
    then = Command(1, Work(1, 5.0), "")
    needs |= {received: [], then: [received]}
    every = [*commands, received, then]
    plan = schedule(every, needs)
    (sync,) = plan.syncs
    assert plan.stage(last) < sync <= plan.stage(received) <= plan.stage(then)
    assert plan.synced(last, received)
    assert plan.synced(last, then)
    assert not plan.synced(received, then)
    assert busy_twice(plan, every) == []
