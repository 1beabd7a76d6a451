"""What the model sees of an interaction: only what was known before its second began.

Ratings that carry the same timestamp are unknown to each other. The model's weights are frozen
after the train split, but features go on following the past, as a feature store would.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from halfdome.host.models.movielens import Interactions

VERSION = 1
"""Rises whenever the meaning of a feature changes; trained weights carry it."""

LIKED = 4.0
"""Ratings from here on are the label 1."""

HISTORY = 50
"""Most recent past ratings of the user, shared out between the two history bags."""

DENSE = (
    "age", "user_count", "item_count", "user_mean", "user_liked", "user_spread", "user_days",
    "user_idle", "item_years", "genre_mean", "recent_mean",
)  # fmt: skip
"""Dense features, each scaled by a constant to within a few units of zero.

What others thought of an item is left to the embedding tables: as a dense feature, its mean rating
would leave them with almost nothing to say, and errors in them would not show in the AUC.
"""

TABLES = (
    "user", "item", "gender", "occupation", "age_bucket", "zip_prefix", "release_year",
    "hour", "weekday", "liked_history", "other_history", "genres",
)  # fmt: skip
"""Sparse features, one embedding table each. The last three are bags of any length, even 0."""

_PRIOR_MEAN = 3.5
_PRIOR_LIKED = 0.55
_PRIOR_COUNT = 5.0  # ratings that a prior is worth in a running mean
_FIRST_YEAR = 1920


@dataclass(frozen=True)
class Bags:
    """One sparse feature of many samples: int32 `indices`, and int32 `lengths` per sample."""

    indices: np.ndarray
    lengths: np.ndarray

    def take(self, samples: np.ndarray) -> "Bags":
        """The bags of some samples (int[n]), in that order."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        lengths = self.lengths[samples]
        first = ends[samples] - lengths - (np.cumsum(lengths, dtype=np.int64) - lengths)
        places = np.repeat(first, lengths) + np.arange(lengths.sum())
        return Bags(self.indices[places], lengths)


@dataclass(frozen=True)
class Batch:
    """Samples: `dense` float32[n, len(DENSE)], a `Bags` per table, `label` float32[n] of 0 or 1."""

    dense: np.ndarray
    sparse: tuple[Bags, ...]
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, samples: np.ndarray | range) -> "Batch":
        """Some samples by number, in that order. Raises `IndexError` beyond the last."""
        samples = np.asarray(samples, dtype=np.int64)
        return Batch(
            self.dense[samples], tuple(bags.take(samples) for bags in self.sparse),
            self.label[samples],
        )  # fmt: skip

    def batches(self, size: int) -> "list[Batch]":
        """Cut into batches of `size` samples in order; the last may be shorter."""
        if size < 1:
            raise ValueError(f"size={size}: must be at least 1")
        return [
            self.take(range(start, min(start + size, len(self))))
            for start in range(0, len(self), size)
        ]


@dataclass(frozen=True)
class Samples:
    """Every interaction as a sample, in time order, cut into three by time.

    `train` teaches the weights, `calibration` the quantisation scales, and `held_out` is what is
    measured. `table_rows` holds the rows that each table of `TABLES` needs.
    """

    train: Batch
    calibration: Batch
    held_out: Batch
    table_rows: tuple[int, ...]


def build(interactions: Interactions, train: float = 0.85, calibration: float = 0.05) -> Samples:
    """Features of all interactions, split by time into the given fractions; the rest is held out.

    Cuts move back to a change of timestamp, so that no second falls on both sides. Raises
    `ValueError` for fractions that leave nothing, or if a part would be empty.
    """
    if not (train > 0 and calibration > 0 and train + calibration < 1):
        raise ValueError(
            f"train={train}, calibration={calibration}: both must be > 0 and sum to less than 1"
        )
    everything = Batch(
        _dense(interactions), _sparse(interactions),
        (interactions.rating >= LIKED).astype(np.float32),
    )  # fmt: skip
    time, n = interactions.timestamp, len(interactions)
    cuts = [
        int(np.searchsorted(time, time[min(int(n * fraction), n - 1)]))
        for fraction in (train, train + calibration)
    ]
    parts = (range(cuts[0]), range(*cuts), range(cuts[1], n))
    if not all(parts):
        raise ValueError(
            f"{n} interactions over {len(np.unique(time))} timestamps: too few to split into "
            "train, calibration and held-out parts"
        )
    return Samples(*(everything.take(part) for part in parts), table_rows(interactions))


def table_rows(interactions: Interactions) -> tuple[int, ...]:
    """Rows of each table. Row 0 of a vocabulary stands for what is unknown."""
    users, items = interactions.users, interactions.items
    user_rows, item_rows = len(users) + 1, len(items) + 1
    return (
        user_rows, item_rows,
        len(_vocabulary(user.gender for user in users)) + 1,
        len(_vocabulary(user.occupation for user in users)) + 1,
        20, 101, 101, 24, 7, item_rows, item_rows,
        len(_vocabulary(genre for item in items for genre in item.genres)) + 1,
    )  # fmt: skip


def _vocabulary(words) -> dict[str, int]:
    return {word: row for row, word in enumerate(sorted(set(words)), start=1)}


def _one_each(rows: np.ndarray) -> Bags:
    return Bags(rows.astype(np.int32), np.ones(len(rows), np.int32))


def _ragged(bags: list[list[int]]) -> Bags:
    flat = [index for bag in bags for index in bag]
    return Bags(np.array(flat, np.int32), np.array([len(bag) for bag in bags], np.int32))


def _sparse(interactions: Interactions) -> tuple[Bags, ...]:
    users, items, time = interactions.users, interactions.items, interactions.timestamp
    genders = _vocabulary(user.gender for user in users)
    occupations = _vocabulary(user.occupation for user in users)
    genres = _vocabulary(genre for item in items for genre in item.genres)
    of_user = np.array([
        (
            row + 1, genders[user.gender], occupations[user.occupation],
            min(max(user.age, 0) // 5, 19),
            int(user.zip_code[:2]) + 1 if user.zip_code[:2].isdecimal() else 0,
        )
        for row, user in enumerate(users)
    ])[interactions.user].T  # fmt: skip
    year = np.array([
        0 if item.year is None else min(max(item.year - _FIRST_YEAR, 0), 99) + 1 for item in items
    ])  # fmt: skip
    genre_bags = Bags.take(
        _ragged([[genres[genre] for genre in item.genres] for item in items]), interactions.item
    )
    liked, other = _histories(interactions)
    return (
        _one_each(of_user[0]), _one_each(interactions.item + 1), *map(_one_each, of_user[1:]),
        _one_each(year[interactions.item]), _one_each(time // 3600 % 24),
        _one_each((time // 86400 + 3) % 7),  # 1970 began on a Thursday; Monday is 0
        liked, other, genre_bags,
    )  # fmt: skip


def _seconds(interactions: Interactions):
    """Ranges of interactions that share a timestamp, in order."""
    starts = np.flatnonzero(np.diff(interactions.timestamp, prepend=-1)).tolist()
    return zip(starts, [*starts[1:], len(interactions)], strict=True)


def _histories(interactions: Interactions) -> tuple[Bags, Bags]:
    """The user's last `HISTORY` items as table rows, oldest first: liked ones and others."""
    user, item = interactions.user.tolist(), (interactions.item + 1).tolist()
    is_liked = (interactions.rating >= LIKED).tolist()
    past: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    bags: tuple[list, list] = ([], [])
    for start, end in _seconds(interactions):
        for number in range(start, end):
            window = past[user[number]][-HISTORY:]
            bags[0].append([row for row, liked in window if liked])
            bags[1].append([row for row, liked in window if not liked])
        for number in range(start, end):
            past[user[number]].append((item[number], is_liked[number]))
    return _ragged(bags[0]), _ragged(bags[1])


class _Running:
    """Count, sum, sum of squares and liked of ratings so far, for each of a set of subjects."""

    def __init__(self, subjects: int):
        self.count = [0] * subjects
        self.total = [0.0] * subjects
        self.squares = [0.0] * subjects
        self.liked = [0] * subjects

    def add(self, subject: int, rating: float) -> None:
        self.count[subject] += 1
        self.total[subject] += rating
        self.squares[subject] += rating * rating
        self.liked[subject] += rating >= LIKED

    def mean(self, subject: int) -> float:
        """Mean rating, drawn towards the prior while ratings are few."""
        count = self.count[subject]
        return (self.total[subject] + _PRIOR_COUNT * _PRIOR_MEAN) / (count + _PRIOR_COUNT)

    def share(self, subject: int) -> float:
        """Share of liked ratings, drawn towards the prior likewise."""
        count = self.count[subject]
        return (self.liked[subject] + _PRIOR_COUNT * _PRIOR_LIKED) / (count + _PRIOR_COUNT)

    def spread(self, subject: int) -> float:
        """Standard deviation, drawn towards 1."""
        count = self.count[subject]
        if not count:
            return 1.0
        mean = self.total[subject] / count
        variance = max(self.squares[subject] / count - mean * mean, 0.0)
        return math.sqrt((variance * count + _PRIOR_COUNT) / (count + _PRIOR_COUNT))


def _dense(interactions: Interactions) -> np.ndarray:
    users, items = interactions.users, interactions.items
    genres = _vocabulary(genre for item in items for genre in item.genres)
    genre_rows = [[genres[genre] for genre in item.genres] for item in items]
    width = len(genres) + 1
    by_user, by_item = _Running(len(users)), _Running(len(items))
    by_genre = _Running(len(users) * width)
    first, last, recent = {}, {}, [0.0] * len(users)  # recent: decaying mean of rating - user mean
    user, item = interactions.user.tolist(), interactions.item.tolist()
    rating, time = interactions.rating.tolist(), interactions.timestamp.tolist()
    rows = np.empty((len(interactions), len(DENSE)), np.float32)
    for start, end in _seconds(interactions):
        now = time[start]
        this_year = datetime.fromtimestamp(now, UTC).year
        for n in range(start, end):
            u, i = user[n], item[n]
            mean = by_user.mean(u)
            affinity = 0.0
            for genre in genre_rows[i]:
                cell = u * width + genre
                count = by_genre.count[cell]
                affinity += (by_genre.total[cell] - count * mean) / (count + _PRIOR_COUNT)
            released = items[i].year
            rows[n] = (
                users[u].age / 50 - 0.7,
                math.log1p(by_user.count[u]) / 3 - 1,
                math.log1p(by_item.count[i]) / 3 - 1,
                2 * (mean - _PRIOR_MEAN),
                4 * (by_user.share(u) - _PRIOR_LIKED),
                3 * (by_user.spread(u) - 1),
                math.log1p((now - first.get(u, now)) / 86400) / 2,
                math.log1p(now - last.get(u, now)) / 8,
                0.0 if released is None else min(max(this_year - released, 0) / 20, 4.0),
                2 * affinity / max(len(genre_rows[i]), 1),
                recent[u],
            )
        for n in range(start, end):
            u, i = user[n], item[n]
            recent[u] += 0.1 * (rating[n] - by_item.mean(i) - recent[u])
            by_user.add(u, rating[n])
            by_item.add(i, rating[n])
            for genre in genre_rows[i]:
                by_genre.add(u * width + genre, rating[n])
            first.setdefault(u, now)
            last[u] = now
    return rows
