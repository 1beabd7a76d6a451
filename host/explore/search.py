"""Chooses points, has them measured by worker processes, and keeps what came of them.

One process asks and tells; workers do not write. A point is stored before it is measured, so after
whatever end a study goes on where it was: what was measured is kept, and what was under way is
measured. A second process on the same storage takes what is under way in the first for that.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from halfdome.host.explore import bounds, measure, workers
from halfdome.host.explore.metrics import METRICS
from halfdome.host.explore.parameters import Value
from halfdome.host.explore.study import Study
from halfdome.host.explore.workers import Workers

NONE = 0.0
"""How far a point may be outside its constraints."""
_TRIES = 100
"""Points that a search may draw in a row that were measured before."""
_MAKING_SECONDS = 1
"""That a new storage takes to be made."""
_LOOK_SECONDS = 5
"""Between two looks at whether workers came or went."""


@dataclass(frozen=True)
class Point:
    """What is known of a point.

    Attributes
    ----------
    number : int, by which it is called
    name : str
    values : its parameters by name
    row : what was measured; empty if it is infeasible, or was pruned
    why : str, why that is so; else empty
    pruned : bool, whether it is not measured because others beat whatever it can do
    """

    number: int
    name: str
    values: Mapping[str, Value]
    row: Mapping[str, Any]
    why: str = ""
    pruned: bool = False

    @property
    def verdict(self) -> str:
        """Why there is no row, in a word."""
        return "pruned" if self.pruned else "infeasible"


def outside(study: Study, row: Mapping[str, Any]) -> list[float]:
    """How far a row is outside each constraint, of its bound; not more than `NONE` is inside."""
    found = []
    for name, bound in study.constraints.items():
        for limit, sign in ((bound.least, -1), (bound.most, 1)):
            if limit is not None:
                found.append(sign * (row[name] - limit) / (abs(limit) or 1))
    return found


def is_inside(study: Study, point: Point) -> bool:
    """Whether a point is feasible and inside all constraints."""
    return bool(point.row) and all(each <= NONE for each in outside(study, point.row))


class Results:
    """The points of a study in a storage, an SQLite file or any URL that Optuna takes."""

    def __init__(self, study: Study, storage: str):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study, self._url = study, storage
        try:
            try:
                self._stored = self._opened()
            except (IntegrityError, OperationalError):  # another process makes its tables just now
                time.sleep(_MAKING_SECONDS)
                self._stored = self._opened()
        except (StorageInternalError, SQLAlchemyError) as error:
            why = str(error).split("\n")[0]
            raise ValueError(
                f"--storage {storage}: cannot be opened: {why}; give the URL of a file or database "
                "that can be written, like sqlite:///study.db"
            ) from None
        self._space: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in study.parameters.items()
        }

    def _opened(self) -> optuna.Study:
        return optuna.create_study(
            storage=self._url, study_name=f"{self._study.name} {self._study.hash}",
            load_if_exists=True, sampler=_sampler(self._study),
            directions=[METRICS[name].better for name in self._study.objectives],
        )  # fmt: skip

    @contextmanager
    def written(self) -> Iterator[None]:
        """What is stored inside raises `OSError` if that fails, as on a disk that is full."""
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            cause = error.__cause__ or error
            raise OSError(
                f"storage {self._url}: {getattr(cause, 'orig', cause)}; make room there, or give "
                "another --storage; the same command goes on where this ended"
            ) from error

    @property
    def points(self) -> list[Point]:
        """Those that are done, by their numbers; of points drawn twice the first."""
        found: dict[tuple, Point] = {}
        for trial in self._trials(TrialState.COMPLETE, TrialState.PRUNED):
            found.setdefault(_key(trial.params), self._point(trial))
        return sorted(found.values(), key=lambda point: point.number)

    def point(self, number: int) -> Point:
        """One of them. Raises `ValueError` for another number."""
        for point in self.points:
            if point.number == number:
                return point
        numbers = ", ".join(str(point.number) for point in self.points)
        none = "none; measure them with `halfdome explore`, anew if the card's sources have changed"
        raise ValueError(f"point {number}: is not among those measured: {numbers or none}")

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._stored.get_trials(deepcopy=False, states=states)

    def _point(self, trial: FrozenTrial) -> Point:
        values = {name: trial.params[name] for name in self._study.parameters}
        found = trial.user_attrs
        name = self._study.point_name(values)
        return Point(
            trial.number, name, values, found.get("row", {}), found.get("why", ""),
            found.get("pruned", False),
        )  # fmt: skip

    @property
    def total(self) -> int:
        """Points that there will be at the end."""
        size = self._study.size
        return size if self._study.search.method == "grid" else min(self._study.search.points, size)

    def left(self, wanted: Iterable[Mapping[str, Value]] | None = None) -> Iterator[Point]:
        """The points that are not done yet, each stored before it comes: of a grid all, or those
        with the values that are wanted."""
        for trial in self._trials(TrialState.RUNNING):
            if self._study.parameters.keys() <= trial.params.keys():
                yield self._point(trial)
            else:  # ended while it was drawn
                self._stored.tell(trial.number, state=TrialState.FAIL)
        seen = {_key(trial.params) for trial in self._trials(*_COUNTED)}
        if self._study.search.method == "grid":
            for values in wanted or self._study.combinations():
                if _key(values) not in seen:
                    self._stored.enqueue_trial(values)
                    yield self._drawn()
            return
        tries = 0
        while len(seen) < self.total and tries < _TRIES:
            point = self._drawn()
            if _key(point.values) in seen:
                self._repeat(point)
                tries += 1
            else:
                seen.add(_key(point.values))
                tries = 0
                yield point

    def _drawn(self) -> Point:
        trial = self._stored.ask(self._space)
        return Point(trial.number, self._study.point_name(trial.params), trial.params, {})

    def _repeat(self, drawn: Point) -> None:
        """Tells of a point what is known, or nothing while it is under way."""
        for point in self.points:
            if _key(point.values) == _key(drawn.values):
                self.tell(replace(drawn, row=point.row, why=point.why))
                return
        self._stored.tell(drawn.number, state=TrialState.FAIL)

    def tell(self, point: Point) -> None:
        """Stores what came of a point, unless another process measured it too and was sooner."""
        trial = optuna.trial.Trial(self._stored, _id(self._stored, point.number))
        with suppress(UpdateFinishedTrialError):
            if not point.row:
                trial.set_user_attr("why", point.why)
                trial.set_user_attr("pruned", point.pruned)
                self._stored.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
                return
            trial.set_user_attr("row", point.row)
            trial.set_user_attr("outside", outside(self._study, point.row))
            values = [point.row[name] for name in self._study.objectives]
            self._stored.tell(trial, values, skip_if_finished=True)


_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def _id(stored: optuna.Study, number: int) -> int:
    return stored._storage.get_trial_id_from_study_id_trial_number(stored._study_id, number)


def _key(values: Mapping[str, Any]) -> tuple:
    return tuple(sorted(values.items()))


def _sampler(study: Study) -> BaseSampler:
    seed = study.search.seed
    constraints = _outside if study.constraints else None
    if study.search.method == "nsga2":
        return NSGAIISampler(seed=seed, constraints_func=constraints)
    if study.search.method == "tpe":
        return TPESampler(seed=seed, multivariate=True, constraints_func=constraints)
    return RandomSampler(seed=seed)


def _outside(trial: FrozenTrial) -> list[float]:
    return trial.user_attrs.get("outside", [])


def run(
    study: Study, results: Results, by: Workers,
    told: Callable[[Point], None] = lambda point: None,
    wanted: Iterable[Mapping[str, Value]] | None = None,
) -> None:  # fmt: skip
    """Measures all points that are left, as many at a time as there are workers, and tells of each
    when it is stored.

    Those of a grid may be the `wanted` ones alone. A search that prunes measures no point that
    another beats whatever it does. Raises what measuring raises, but for what makes
    a point infeasible, and `OSError` if no worker is left or nothing more can be stored.
    """
    left = results.left(wanted)
    under_way: dict[Future, Point] = {}
    inside = [point for point in results.points if is_inside(study, point)]
    with results.written(), workers.opened(by) as crew:
        while True:
            while len(under_way) < crew.size() and (point := next(left, None)) is not None:
                if study.search.prune and (other := bounds.beaten_by(study, point.values, inside)):
                    why = bounds.told(study, point.values, other)
                    pruned = replace(point, why=why, pruned=True)
                    results.tell(pruned)
                    told(pruned)
                    continue
                under_way[crew.executor.submit(_measured, study, dict(point.values))] = point
            if not under_way:
                return
            done, _ = wait(under_way, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                point = under_way.pop(future)
                row, why = future.result()
                found = replace(point, row=row, why=why)
                results.tell(found)
                told(found)
                if is_inside(study, found):
                    inside.append(found)


def only(single: Study, storage: str, by: Workers = 1) -> Point:
    """The point of a study that has one: measured, unless the storage has it."""
    results = Results(single, storage)
    run(single, results, by)
    [point] = results.points
    return point


def _measured(study: Study, values: Mapping[str, Value]) -> tuple[dict[str, Any], str]:
    """The row of a point, or why it has none."""
    try:
        return measure.measure(study, values), ""
    except (ValueError, MemoryError) as error:
        return {}, str(error)


def storage_in(folder: Path) -> str:
    """The URL of the storage of a folder."""
    return f"sqlite:///{folder / 'study.db'}"
