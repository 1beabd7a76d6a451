"""Features come from the past alone, fit their tables, and batches cut them without loss."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.models.features import DENSE, HISTORY, LIKED, TABLES, Bags, build
from halfdome.host.models.movielens import Interactions, Item, User


def every_sample(interactions, **split):
    """Dense features, then a list of bags per table, then labels, of all samples in time order."""
    parts = build(interactions, **split)
    batches = (parts.train, parts.calibration, parts.held_out)
    bags = [
        [bag.tolist() for batch in batches for bag in in_bags(batch.sparse[table])]
        for table in range(len(TABLES))
    ]
    return (
        np.concatenate([batch.dense for batch in batches]),
        bags,
        np.concatenate([batch.label for batch in batches]),
    )


def in_bags(bags):
    return np.split(bags.indices, np.cumsum(bags.lengths)[:-1])


def by_hand(events):
    """Interactions (user, item, rating, time) of three users and two items."""
    user, item, rating, time = map(np.array, zip(*events, strict=True))
    users = (
        User(20, "F", "pilot", "12345"), User(99, "M", "cook", "00501"), User(0, "M", "cook", "V3N")
    )  # fmt: skip
    items = (Item(1990, ("Sea", "Robots")), Item(None, ()), Item(1890, ("Sea",)))
    return Interactions(
        user.astype(np.int32), item.astype(np.int32), rating.astype(np.float32),
        time.astype(np.int64), users, items,
    )  # fmt: skip


def bags_by_name(events):
    _, bags, _ = every_sample(by_hand(events), train=0.34, calibration=0.33)
    return dict(zip(TABLES, bags, strict=True))


def test_identities_and_descriptions_name_their_rows():
    # 1970-01-05 was a Monday; the events are at 00:00, 05:00 and a day later.
    monday = 4 * 86400
    bags = bags_by_name([(0, 0, 5, monday), (1, 1, 3, monday + 18000), (2, 2, 4, monday + 86400)])
    assert bags["user"] == [[1], [2], [3]]
    assert bags["item"] == [[1], [2], [3]]
    assert bags["gender"] == [[1], [2], [2]]
    assert bags["occupation"] == [[2], [1], [1]]
    assert bags["age_bucket"] == [[4], [19], [0]]
    assert bags["zip_prefix"] == [[13], [1], [0]]
    assert bags["release_year"] == [[71], [0], [1]]
    assert bags["hour"] == [[0], [5], [0]]
    assert bags["weekday"] == [[0], [0], [1]]
    assert bags["genres"] == [[2, 1], [], [2]]


def test_history_holds_earlier_seconds_only_split_by_liking():
    bags = bags_by_name([(0, 0, 5, 1), (0, 1, 2, 2), (0, 2, 4, 2), (1, 2, 4, 3), (0, 1, 4, 4)])
    assert bags["liked_history"] == [[], [1], [1], [], [1, 3]]
    assert bags["other_history"] == [[], [], [], [], [2]]


def test_history_keeps_the_latest_ratings():
    events = [(0, number % 2, 4 + number % 2, number) for number in range(HISTORY + 20)]
    bags = bags_by_name(events)
    assert [len(bag) for bag in bags["liked_history"]] == [
        min(number, HISTORY) for number in range(len(events))
    ]
    assert bags["liked_history"][-1] == [number % 2 + 1 for number in range(19, HISTORY + 19)]


def test_the_first_sight_of_a_user_and_an_item_has_prior_values():
    dense, _, _ = every_sample(
        by_hand([(0, 0, 5, 1), (1, 1, 3, 2), (2, 2, 4, 3)]), train=0.34, calibration=0.33
    )
    known = {"age", "item_years"}
    nothing = {"user_count": -1.0, "item_count": -1.0}
    for row in dense:
        for name, value in zip(DENSE, row, strict=True):
            assert name in known or value == nothing.get(name, 0.0), name


@given(second=st.integers(0, 99), seed=st.integers(0, 2**16))
def test_no_feature_knows_its_own_second_or_later(interactions, second, seed):
    time = np.unique(interactions.timestamp)
    now = time[second % len(time)]
    later = interactions.timestamp >= now
    rng = np.random.default_rng(seed)
    changed = dataclasses.replace(
        interactions,
        rating=np.where(later, rng.integers(1, 6, len(later)), interactions.rating).astype("f4"),
    )
    dense, bags, _ = every_sample(interactions)
    other_dense, other_bags, _ = every_sample(changed)
    same = interactions.timestamp <= now
    np.testing.assert_array_equal(dense[same], other_dense[same])
    for table, other in zip(bags, other_bags, strict=True):
        assert table[: same.sum()] == other[: same.sum()]


def test_what_a_user_did_shows_in_the_next_second(interactions):
    """The counterpart: features do follow the past."""
    dense, bags, _ = every_sample(interactions)
    history = TABLES.index("liked_history"), TABLES.index("other_history")
    count = DENSE.index("user_count")
    seen = 0
    for n in range(len(interactions)):
        past = (interactions.user[:n] == interactions.user[n]) & (
            interactions.timestamp[:n] < interactions.timestamp[n]
        )
        assert len(bags[history[0]][n]) + len(bags[history[1]][n]) == min(past.sum(), HISTORY)
        assert dense[n, count] == pytest.approx(np.log1p(past.sum()) / 3 - 1, abs=1e-6)
        seen += past.sum()
    assert seen


def test_indices_fit_their_tables_and_dense_values_stay_small(interactions, samples):
    dense, bags, label = every_sample(interactions)
    assert dense.dtype == np.float32
    assert dense.shape == (len(interactions), len(DENSE))
    assert np.abs(dense).max() < 8
    assert len(bags) == len(samples.table_rows) == len(TABLES)
    for name, table, rows in zip(TABLES, bags, samples.table_rows, strict=True):
        assert min(map(min, filter(None, table))) >= 0, name
        assert max(map(max, filter(None, table))) < rows, name
    np.testing.assert_array_equal(label, interactions.rating >= LIKED)


def test_the_split_is_by_time_and_complete(interactions):
    parts = build(interactions, train=0.5, calibration=0.25)
    sizes = [len(part) for part in (parts.train, parts.calibration, parts.held_out)]
    assert sum(sizes) == len(interactions)
    assert abs(sizes[0] / len(interactions) - 0.5) < 0.03
    assert abs(sizes[1] / len(interactions) - 0.25) < 0.03
    time = interactions.timestamp
    for cut in np.cumsum(sizes)[:-1]:
        assert time[cut - 1] < time[cut]


@given(data=st.data())
def test_taking_samples_keeps_each_with_its_bag(data):
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    bags = Bags(np.arange(sum(lengths), dtype=np.int32), np.array(lengths, np.int32))
    wanted = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=12))
    taken = bags.take(np.array(wanted, np.int64))
    whole = in_bags(bags)
    assert taken.lengths.tolist() == [lengths[number] for number in wanted]
    assert taken.indices.tolist() == [i for number in wanted for i in whole[number]]
    assert taken.indices.dtype == taken.lengths.dtype == np.int32


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_batches_put_together_are_the_whole(samples, size):
    batches = samples.held_out.batches(size)
    assert all(len(batch) == size for batch in batches[:-1])
    np.testing.assert_array_equal(
        np.concatenate([batch.dense for batch in batches]), samples.held_out.dense
    )
    for table, bags in enumerate(samples.held_out.sparse):
        for part in ("indices", "lengths"):
            np.testing.assert_array_equal(
                np.concatenate([getattr(batch.sparse[table], part) for batch in batches]),
                getattr(bags, part),
            )


def test_impossible_requests_are_refused(interactions, samples):
    with pytest.raises(ValueError, match="size=0: must be at least 1"):
        samples.held_out.batches(0)
    with pytest.raises(IndexError):
        samples.held_out.take(range(len(samples.held_out) + 1))
    with pytest.raises(ValueError, match="must be > 0 and sum to less than 1"):
        build(interactions, train=0.9, calibration=0.1)
    with pytest.raises(ValueError, match="2 interactions over 1 timestamps: too few"):
        build(by_hand([(0, 0, 5, 1), (1, 1, 3, 1)]))
