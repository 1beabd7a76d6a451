"""Tables over the cores of a card: as much to do for each, and DRAM sees one table at a time."""

from itertools import pairwise

import pytest

from halfdome.host.compiler.placement import Task
from halfdome.host.compiler.sharing import LEAST_CYCLES, deal

SAMPLES = 64
TABLE = 100.0 * LEAST_CYCLES


def tables(count):
    return [Task(number, 0, range(SAMPLES), range(32)) for number in range(count)]


def cost(task):
    """All tables cost the same, and that is much."""
    return TABLE * len(task.samples) / SAMPLES


def far_cost(task):
    """As long as two gather units need, as of RM1."""
    return 0.8 * cost(task)


def pooled(dealt, table):
    """The samples of a table, in order."""
    return sorted(s for turn in dealt.turns if turn.task.table == table for s in turn.task.samples)


def of_core(dealt, core):
    return [turn for turn in dealt.turns if turn.core == core]


def parts(dealt, window):
    """Samples of the far table of a window that each core pools, by core."""
    return {turn.core: len(turn.task.samples) for turn in dealt.turns if turn.window == window}


def is_near(turn, count):
    return turn.task.table >= count


@pytest.mark.parametrize("cores", [1, 2, 3, 4])
@pytest.mark.parametrize("far", [0, 3, 7])
def test_every_sample_of_every_table_is_pooled_once_and_cores_have_as_much_to_do(cores, far):
    dealt = deal(tables(7), cost, far_cost, cores, tables(far))
    for table in range(7):
        assert pooled(dealt, table) == list(range(SAMPLES))
    taken = [sum(cost(turn.task) for turn in of_core(dealt, core)) for core in range(cores)]
    assert max(taken) <= 1.15 * min(taken)


def test_tables_in_far_memory_are_pooled_by_all_cores_one_after_the_other():
    dealt = deal(tables(3), cost, far_cost, 4, tables(3))
    assert [turn.task.table for turn in dealt.turns] == [0] * 4 + [1] * 4 + [2] * 4
    assert parts(dealt, 0) == dict.fromkeys(range(4), SAMPLES // 4)
    for core in range(4):
        assert dealt.behind(core) == []
        assert dealt.behind(8 + core) == [4 + core, 4 + (core - 1) % 4]


@pytest.mark.parametrize("cores", [2, 4])
def test_each_core_pools_its_near_table_at_another_time(cores):
    """So that others read DRAM meanwhile."""
    dealt = deal(tables(2 * cores), cost, far_cost, cores, tables(cores))
    near = [turn for turn in dealt.turns if is_near(turn, cores)]
    assert sorted(turn.core for turn in near) == list(range(cores))
    starts = sorted(turn.start for turn in near)
    gaps = [later - sooner for sooner, later in pairwise(starts)]
    assert gaps == pytest.approx([gaps[0]] * (cores - 1))
    assert gaps[0] >= 0.5 * TABLE


def test_a_core_pools_of_each_far_table_what_it_has_time_for_beside_its_near_one():
    """A window takes 0.8 of what a near table does, which covers one and a quarter of the next."""
    dealt = deal(tables(8), cost, far_cost, 4, tables(4))
    assert 0 not in parts(dealt, 0)
    assert parts(dealt, 1).keys() == {0, 2, 3}
    assert parts(dealt, 1)[0] < 0.8 * parts(dealt, 1)[2] < SAMPLES / 2
    assert [turn.window for turn in of_core(dealt, 0)] == [-1, 1, 2, 3]


def test_what_else_far_memory_moves_lengthens_the_first_window():
    short = deal(tables(8), cost, far_cost, 4, tables(4))
    long = deal(tables(8), cost, far_cost, 4, tables(4), period=4 * TABLE)
    assert parts(short, 0).keys() == {1, 2, 3}
    assert parts(long, 0).keys() == {0, 1, 2, 3}
    assert max(turn.start for turn in long.turns) > max(turn.start for turn in short.turns)


def test_two_cores_with_near_tables_wait_for_nobody_and_have_the_same_part():
    """One alone does not keep DRAM busy, so that it does not wait for the other."""
    dealt = deal(tables(4), cost, far_cost, 2, tables(2))
    for number, turn in enumerate(dealt.turns):
        before = [at for at in range(number) if dealt.turns[at].core == turn.core]
        assert dealt.behind(number) == before[-1:]
    assert not dealt.in_step
    assert parts(dealt, 0) == parts(dealt, 1) == {0: SAMPLES // 2, 1: SAMPLES // 2}


@pytest.mark.parametrize("cores", [3, 4])
def test_a_turn_waits_for_none_that_stands_behind_it(cores):
    """All that begin a window wait for each other; who comes later from a near table does not."""
    dealt = deal(tables(7), cost, far_cost, cores, tables(3))
    assert dealt.in_step
    assert dealt.paced
    late = 0
    for number, turn in enumerate(dealt.turns):
        behind = dealt.behind(number)
        assert all(other < number for other in behind)
        if turn.window > 0:
            others = [at for at in behind if dealt.turns[at].core != turn.core]
            joins = any(
                each.window == turn.window and each.start < turn.start for each in dealt.turns
            )
            late += joins
            assert [dealt.turns[at].window for at in others] == [turn.window - 1] * (not joins)
    assert late > 0


def test_far_memory_sets_no_pace_where_no_table_is_near():
    assert not deal(tables(4), cost, far_cost, 4, tables(4)).paced
    assert not deal(tables(4), cost, far_cost, 4, []).paced


def test_a_core_with_a_near_table_pools_less_of_the_others():
    dealt = deal(tables(4), cost, far_cost, 2, tables(3))
    near, other = sorted(
        (of_core(dealt, core) for core in range(2)),
        key=lambda mine: -sum(is_near(t, 3) for t in mine),
    )
    assert sum(cost(t.task) for t in near) == pytest.approx(
        sum(cost(t.task) for t in other), rel=0.1
    )


def test_what_is_soon_pooled_is_not_cut_into_more_commands():
    """A part would take less than it costs to begin; cores are free to order what they have."""

    def short(task):
        return cost(task) / 100

    dealt = deal(tables(4), short, far_cost, 4, tables(4))
    assert [(turn.core, turn.task.table) for turn in dealt.turns] == [(n, n) for n in range(4)]
    assert dealt.behind(1) == []
