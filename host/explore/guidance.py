"""What studies say to who designs cards or models: a page made from their files and their points.

The points of `NAME.toml` are kept in `NAME.json` beside it, with what the study said when they were
measured, so that the page can be written again without measuring.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from halfdome.host.explore import search, study
from halfdome.host.explore.explain import binds
from halfdome.host.explore.metrics import METRICS
from halfdome.host.explore.parameters import Value
from halfdome.host.explore.study import Guidance, Study
from halfdome.host.explore.workers import Workers

ENOUGH = 0.95
"""Share of the best that is as good."""

_HEAD = """\
# Guidance

What small studies say about designing cards and models together. `halfdome guidance` writes this
page from the files in [studies](studies) and the points that were measured of them on the
[timing engine](timing.md); [exploring.md](exploring.md) tells how to ask about designs and models
of your own. Numbers are of the workloads in those files. What carries over is which resource binds,
and where that changes.

A cell has the metric, and the resource that was taken for most of the time, or `latency` if none
was for 60 %; an engine that waits for memory is taken. "Enough" is the least that gives 95 % of the
most.
"""


def read(folder: Path) -> list[tuple[Path, Study]]:
    """The studies of a folder that guidance is made from, by their files' names."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        made = study.checked(study.read(path), str(path), folder)
        if made.guidance is not None:
            found.append((path, made))
    return found


def _said(made: Study) -> dict[str, Any]:
    """What points depend on: all but words, and what is as by default."""
    return made.model_dump(mode="json", exclude={"guidance"}, exclude_defaults=True)


def points(path: Path, made: Study) -> list[dict[str, Any]] | None:
    """The points beside a study's file, or None if there are none of what it says now."""
    kept = path.with_suffix(".json")
    if not kept.is_file():
        return None
    told = json.loads(kept.read_text())
    return told["points"] if told["study"] == _said(made) else None


def measure(
    path: Path, made: Study, storage: str, by: Workers,
    told: Callable[[search.Point], None] = lambda point: None,
) -> None:  # fmt: skip
    """Measures a study, and keeps its points beside its file."""
    results = search.Results(made, storage)
    search.run(made, results, by, told)
    rows = [_kept(point) for point in results.points]
    text = json.dumps({"study": _said(made), "points": rows}, indent=1)
    path.with_suffix(".json").write_text(f"{text}\n")


def _kept(point: search.Point) -> dict[str, Any]:
    """What the page needs of a point, and who measures it again."""
    row = point.row
    if not row:
        return {"values": dict(point.values), "why": point.why}
    metrics = {name: float(f"{row[name]:.4g}") for name in METRICS if name in row}
    right = row["mismatching_samples"] == 0
    return {"values": dict(point.values), "binds": binds(row), "right": right, "metrics": metrics}


def page(studies: Iterable[tuple[Path, Study]]) -> str:
    """The page, in Markdown. Raises `ValueError` for a study of which no points are kept."""
    parts = [_HEAD]
    for path, made in studies:
        rows = points(path, made)
        if rows is None:
            raise ValueError(f"{path}: has no points of what it says: run `halfdome guidance`")
        parts.append(_section(path, made, rows))
    return "\n".join(parts)


class _Table:
    """Points of a study by the value of the parameter along a row, and by all others together."""

    def __init__(self, made: Study, said: Guidance, rows: list[dict[str, Any]]):
        self.metric = said.metric
        self.along = made.parameters[said.along]
        varied = [name for name, values in made.parameters.items() if len(values) > 1]
        self.down = [name for name in varied if name != said.along]
        self.cells: dict[tuple[Value, ...], dict[Value, dict[str, Any]]] = {}
        for row in rows:
            key = tuple(row["values"][name] for name in self.down)
            self.cells.setdefault(key, {})[row["values"][said.along]] = row

    def found(self, key: tuple[Value, ...]) -> dict[Value, float]:
        """The metric at each value of a row that is feasible, in their order."""
        row = self.cells[key]
        return {
            value: row[value]["metrics"][self.metric] for value in self.along
            if value in row and "metrics" in row[value]
        }  # fmt: skip


def _section(path: Path, made: Study, rows: list[dict[str, Any]]) -> str:
    said = made.guidance
    if said is None:
        raise ValueError(f"{path}: has no [guidance]: it says nothing to a reader")
    table = _Table(made, said, rows)
    head = [f"`{name}`" for name in table.down] + [
        f"`{said.along}` {_text(value)}" for value in table.along
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for key, cells in table.cells.items():
        shown = [_cell(cells.get(value), said.metric) for value in table.along]
        lines.append(f"| {' | '.join([*map(_text, key), *shown])} |")
    advice = [f"- {_enough(table, said.along, key)}" for key in table.cells]
    title = METRICS[said.metric].title
    return "\n".join([
        f"## {said.title}", said.question, "",
        f"{title[0].upper()}{title[1:]} ([{path.name}](studies/{path.name})):", "", *lines, "",
        *advice, "",
    ])  # fmt: skip


def _cell(row: Mapping[str, Any] | None, metric: str) -> str:
    if row is None or "metrics" not in row:
        return "infeasible"
    return f"{_number(row['metrics'][metric])}, {row['binds']}"


def _enough(table: _Table, along: str, key: tuple[Value, ...]) -> str:
    """Which value of a row is enough, and what comes of less and of more."""
    better = METRICS[table.metric].better
    worth = {value: each if better == "maximize" else 1 / each
             for value, each in table.found(key).items()}  # fmt: skip
    where = ", ".join(
        f"`{name}` {_text(value)}" for name, value in zip(table.down, key, strict=True)
    )
    where = f"With {where}: " if where else ""
    values = list(worth)
    if len(values) < 2:
        return f"{where}nothing to compare."
    best = max(worth.values())
    enough = next(value for value in values if worth[value] >= ENOUGH * best)
    place = values.index(enough)
    words = [f"{where}`{along}` {_text(enough)} is enough"]
    if place:
        before = values[place - 1]
        words.append(f"{worth[enough] / worth[before]:.2f} times {_text(before)}")
    if place + 1 < len(values):
        last = values[-1]
        words.append(f"{_text(last)} gives {worth[last] / worth[enough]:.2f} times as much")
    else:
        words.append("the last that was tried")
    return f"{words[0]}: {', '.join(words[1:])}."


def _number(value: float) -> str:
    for least, unit in ((1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:.3g} {unit}"
    return f"{value:.3g}"


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
