"""Points as people and other programs take them: rows, a table, the Pareto front."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfdome.host.explore.metrics import METRICS, as_costs
from halfdome.host.explore.on_rtl import OnRtl
from halfdome.host.explore.search import Point, is_inside, outside
from halfdome.host.explore.study import Study

if TYPE_CHECKING:
    from halfdome.host.explore.host_cpu import HostCpu


def within(study: Study, points: Sequence[Point]) -> list[Point]:
    """The points that are feasible and inside all constraints."""
    return [point for point in points if is_inside(study, point)]


def pareto(study: Study, points: Sequence[Point]) -> list[Point]:
    """Of the points within constraints those that none other beats in every objective."""
    inside = within(study, points)
    costs = [as_costs(study.objectives, point.row) for point in inside]
    return [
        point for point, own in zip(inside, costs, strict=True)
        if not any(_beats(other, own) for other in costs)
    ]  # fmt: skip


def best(study: Study, points: Sequence[Point], bounded: bool = True) -> Point | None:
    """The first objective's best, and of those that are as good in it one that none beats; unless
    `bounded`, whether or not it is within constraints. None if there is no such point."""
    candidates = within(study, points) if bounded else [point for point in points if point.row]
    return min(candidates, key=lambda point: as_costs(study.objectives, point.row), default=None)


def unmet(study: Study, points: Sequence[Point]) -> str:
    """Says which point is nearest to the constraints, and where it is outside; empty if one of the
    points is within all of them, or none was measured."""
    measured = [point for point in points if point.row]
    if not measured or within(study, measured):
        return ""
    nearest = min(measured, key=lambda point: max(outside(study, point.row)))
    told = []
    for name, bound in study.constraints.items():
        value = nearest.row[name]
        if bound.least is not None and value < bound.least:
            told.append(f"{name}={value:.4g}, at least {bound.least:.4g} is wanted")
        if bound.most is not None and value > bound.most:
            told.append(f"{name}={value:.4g}, at most {bound.most:.4g} is wanted")
    return (
        f"no point is within the constraints; nearest is point {nearest.number}: {'; '.join(told)}"
    )


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def rows(study: Study, points: Sequence[Point]) -> list[dict[str, Any]]:
    """A flat row of each point: number, parameters, metrics with their units, and verdict."""
    front = {point.number for point in pareto(study, points)}
    inside = {point.number for point in within(study, points)}
    found = []
    for point in points:
        row = point.row
        verdict = "outside constraints" if point.row else point.verdict
        if point.number in inside:
            verdict = "Pareto front" if point.number in front else "beaten"
        plain = {name: each for name, each in row.items() if not isinstance(each, dict | list)}
        found.append({
            "point": point.number, **point.values, "verdict": verdict, "why": point.why,
            **{name: row.get(name) for name in METRICS if name in row}, **plain,
        })  # fmt: skip
    return found


def as_dict(
    study: Study, points: Sequence[Point], compared: Sequence[OnRtl] | None, host: "HostCpu | None"
) -> dict[str, Any]:
    """All that is known of a study, as plain data; `compared` are points on the RTL, None before
    that is known, `host` what a sample takes on the processor of this machine."""
    flat = rows(study, points)
    return {
        "study": study.model_dump(mode="json"),
        "rows": [
            row | {name: each for name, each in point.row.items() if name not in row}
            for row, point in zip(flat, points, strict=True)
        ],
        "on_rtl": None if compared is None else [each.as_dict for each in compared],
        "host": host and asdict(host) | {"samples_per_joule": host.samples_per_joule},
    }  # fmt: skip


def write_csv(path: Path, study: Study, points: Sequence[Point]) -> None:
    """One line per point, names in the first."""
    flat = rows(study, points)
    names = list(dict.fromkeys(name for row in flat for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(flat)


def table(study: Study, points: Sequence[Point]) -> list[dict[str, Any]]:
    """What a terminal shows: objectives and what is constrained, of feasible points."""
    front = {point.number for point in pareto(study, points)}
    shown = list(dict.fromkeys((*study.objectives, *study.constraints)))
    return [
        {"point": point.number, "": "•" * (point.number in front), "values": point.name,
         **{name: point.row[name] for name in shown}}
        for point in points if point.row
    ]  # fmt: skip
