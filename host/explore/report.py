"""The report of a study: one HTML file that needs nothing else, and a picture for papers."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from plotly.io import to_html

from halfdome.host.explore import figures
from halfdome.host.explore.metrics import METRICS, TIMED
from halfdome.host.explore.search import Point
from halfdome.host.explore.study import Study
from halfdome.host.explore.tell import not_on_rtl, on_rtl, pareto

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em; border-bottom: 1px solid #ddd }}
td {{ text-align: right }} th {{ text-align: left; font-weight: 600 }}
pre {{ background: #f5f5f5; padding: .8em; overflow-x: auto }}
</style></head><body>
{body}
</body></html>
"""


def choose(study: Study, points: Sequence[Point], number: int | None = None) -> Point:
    """The point that is looked into: the one asked for, or of the front the first objective's best.

    Raises `ValueError` if there is none.
    """
    measured = {point.number: point for point in points if point.row}
    if number is not None:
        if number not in measured:
            known = ", ".join(map(str, measured)) or "none"
            raise ValueError(f"point {number}: was not measured; points measured are {known}")
        return measured[number]
    candidates = pareto(study, points) or list(measured.values())
    if not candidates:
        reasons = "; ".join(dict.fromkeys(point.why for point in points))
        raise ValueError(f"{study.name}: no point is feasible: {reasons}")
    first = study.objectives[0]
    best = max if METRICS[first].better == "maximize" else min
    return best(candidates, key=lambda point: point.row[first])


def write(
    path: Path,
    study: Study,
    points: Sequence[Point],
    chosen: Point,
    rtl: Mapping[int, Point],
    commands: Sequence[str],
) -> None:
    """Writes the report; `rtl` are points on the RTL, `commands` make the chosen one again."""
    row = chosen.row
    drawn = [
        figures.front(study, points), figures.coordinates(study, points),
        figures.sensitivity(study, points),
    ]  # fmt: skip
    inside = [
        figures.shares(row), figures.activities(row), figures.roofline(study, points, chosen),
        figures.energy(row),
    ]  # fmt: skip
    first = next(point for point in points if point.row)
    infeasible = [(point.name, point.why) for point in points if not point.row]
    version, mismatching = row["halfdome_version"], row["mismatching_samples"]
    compared = (
        "Values were left out" if mismatching is None
        else f"{mismatching} samples differ from the golden model"
    )  # fmt: skip
    body = [
        f"<h1>{escape(study.name)}</h1>",
        f"<p>{len(points)} points on {escape(study.config)}, engine {escape(study.engine)}, "
        f"halfdome {escape(version)}, study {study.hash}.</p>",
        *_html(drawn, inline=True),
        *_on_rtl(points, rtl),
        f"<h2>Point {chosen.number}: {escape(chosen.name)}</h2>",
        f"<p>{compared}. Energy and area are models.</p>",
        f"<h3>Beside point {first.number}: {escape(first.name)}</h3>",
        _table(("metric", f"point {chosen.number}", f"point {first.number}", "ratio"),
               _beside(row, first.row)),
        *_html(inside, inline=False),
        "<h2>Infeasible</h2>" + _table(("point", "why"), infeasible) if infeasible else "",
        "<h2>To make it again</h2>", f"<pre>{escape(chr(10).join(commands))}</pre>",
    ]  # fmt: skip
    title = f"{study.name}: {len(points)} points"
    path.write_text(_PAGE.format(title=escape(title), body="\n".join(body)))


def _html(drawn: Iterable[Any], *, inline: bool) -> list[str]:
    """Figures as parts of a page; the library comes with the first if it is inline."""
    return [
        to_html(figure, full_html=False, include_plotlyjs=inline and not place)
        for place, figure in enumerate(drawn)
    ]


def _on_rtl(points: Sequence[Point], rtl: Mapping[int, Point]) -> list[str]:
    """What the RTL says of points, and how far the engine of the study is from it."""
    if not rtl:
        return ["<p>The front was measured on the RTL.</p>"]
    compared = on_rtl(points, rtl)
    shown = [name for name in TIMED if any(name in each.rtl for each in compared)]
    lines = [
        (f"{each.point.number}: {each.point.name}",
         *(f"{each.rtl[name]:,.4g} ({each.error[name]:+.2f} %)" for name in shown))
        for each in compared
    ]  # fmt: skip
    names = ("point", *(METRICS[name].title for name in shown))
    return [
        "<h2>The same points on the RTL, and the error of the study</h2>", _table(names, lines),
        *(f"<p>{escape(why)}</p>" for why in not_on_rtl(rtl)),
    ]  # fmt: skip


def _beside(row: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (metric.title, f"{row[name]:,.4g}", f"{other[name]:,.4g}",
         f"{row[name] / other[name]:.2f}" if other[name] else "")
        for name, metric in METRICS.items() if name in row
    ]  # fmt: skip


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = (
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{escape(each)}</td>" for each in row[1:])
        for row in rows
    )
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def write_png(path: Path, study: Study, points: Sequence[Point]) -> None:
    """The first two objectives of all feasible points, the Pareto front joined."""
    y_name, x_name = (study.objectives * 2)[:2]
    best = sorted(pareto(study, points), key=lambda point: point.row[x_name])
    mine = [point.row for point in points if point.row]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter([row[x_name] for row in mine], [row[y_name] for row in mine], color="0.6")
    front = [point.row for point in best]
    axes.plot(
        [row[x_name] for row in front], [row[y_name] for row in front], "o-", label="Pareto front"
    )
    for point in best:
        place = (point.row[x_name], point.row[y_name])
        axes.annotate(point.name, place, textcoords="offset points", xytext=(5, 5), fontsize=7)
    axes.set_xlabel(METRICS[x_name].title)
    axes.set_ylabel(METRICS[y_name].title)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=200)
