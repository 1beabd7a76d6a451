"""Tables over the cores of a card: as much to do for each, and DRAM sees one table at a time."""

import pytest

from halfdome.host.compiler.placement import Task
from halfdome.host.compiler.sharing import LEAST_CYCLES, deal

SAMPLES = 64


def tables(count):
    return [Task(number, 0, range(SAMPLES), range(32)) for number in range(count)]


def cost(task):
    """All tables cost the same, and that is much."""
    return 100.0 * LEAST_CYCLES * len(task.samples) / SAMPLES


def numbers(mine):
    return [task.table for task in mine]


def pooled(dealt, table):
    """The samples of a table, by core."""
    return [sorted(s for t in mine if t.table == table for s in t.samples) for mine in dealt.tasks]


@pytest.mark.parametrize("cores", [1, 2, 3, 4])
@pytest.mark.parametrize("far", [0, 3, 7])
def test_every_sample_of_every_table_is_pooled_once_and_cores_have_as_much_to_do(cores, far):
    dealt = deal(tables(7), cost, cores, tables(far))
    for table in range(7):
        assert sorted(s for mine in pooled(dealt, table) for s in mine) == list(range(SAMPLES))
    taken = [sum(map(cost, mine)) for mine in dealt.tasks]
    assert len(taken) == cores
    assert max(taken) <= 1.1 * min(taken)


def test_tables_in_far_memory_are_pooled_by_all_cores_one_after_the_other():
    dealt = deal(tables(3), cost, 4, tables(3))
    assert [numbers(mine) for mine in dealt.tasks] == [[0, 1, 2]] * 4
    assert [len(samples) for samples in pooled(dealt, 0)] == [SAMPLES // 4] * 4
    for core in range(4):
        assert dealt.behind(core, 0) == []
        assert dealt.behind(core, 2) == [(core, 1), ((core - 1) % 4, 1)]


@pytest.mark.parametrize("cores", [2, 4])
def test_each_core_pools_its_near_table_at_another_time(cores):
    """So that others read DRAM meanwhile; two of them keep it busy, one alone waits for nobody."""
    dealt = deal(tables(2 * cores), cost, cores, tables(cores))
    near = [[table >= cores for table in numbers(mine)].index(True) for mine in dealt.tasks]
    assert len(set(near)) == cores
    assert all(sum(table >= cores for table in numbers(mine)) == 1 for mine in dealt.tasks)
    for core, mine in enumerate(dealt.tasks):
        for turn, task in enumerate(mine):
            waits = [(core, turn - 1)] if turn else []
            if cores > 2 and 0 < task.table < cores:
                other = (core - 1) % cores
                waits.append((other, numbers(dealt.tasks[other]).index(task.table - 1)))
            assert dealt.behind(core, turn) == waits


def test_a_core_with_a_near_table_pools_less_of_the_others():
    dealt = deal(tables(4), cost, 2, tables(3))
    near, other = sorted(dealt.tasks, key=lambda mine: -sum(t.table == 3 for t in mine))
    assert sum(map(cost, near)) == pytest.approx(sum(map(cost, other)), rel=0.1)


def test_what_is_soon_pooled_is_not_cut_into_more_commands():
    """A part would take less than it costs to begin; cores are free to order what they have."""

    def short(task):
        return cost(task) / 100

    dealt = deal(tables(4), short, 4, tables(4))
    assert sorted(numbers(mine) for mine in dealt.tasks) == [[0], [1], [2], [3]]
    assert dealt.behind(1, 0) == []
