"""The report of a study: one HTML file that needs nothing else, and a picture for papers."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.io import to_html
from plotly.utils import PlotlyJSONEncoder

from halfdome.host.explore import figures
from halfdome.host.explore.metrics import METRICS, TIMED
from halfdome.host.explore.on_rtl import OnRtl
from halfdome.host.explore.search import Point
from halfdome.host.explore.study import Study
from halfdome.host.explore.tell import best, pareto

if TYPE_CHECKING:
    from halfdome.host.explore.host_cpu import HostCpu

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
    found = best(study, points) or best(study, points, bounded=False)
    if found is None:
        reasons = "; ".join(dict.fromkeys(point.why for point in points))
        raise ValueError(f"{study.name}: no point is feasible: {reasons}")
    return found


def write(
    path: Path,
    study: Study,
    points: Sequence[Point],
    chosen: Point,
    compared: Sequence[OnRtl] | None,
    commands: Callable[[Point], Sequence[str]],
    host: "HostCpu | None" = None,
) -> None:
    """Writes the report, which tells of the chosen point until another one is clicked.

    `compared` are points on the RTL, None before that is known, `commands` says how a point is made
    again, `host` is what a sample takes on the processor of this machine.
    """
    measured = [point for point in points if point.row]
    first, reach = measured[0], figures.reach(points)
    left_out = [(point.name, f"{point.verdict}: {point.why}") for point in points if not point.row]
    about = {
        each.number: _about(each, first, commands(each), host)
        | {"traces": figures.traces(study, each, reach)}
        for each in measured
    }
    shown = {name: about[chosen.number][name] for name in ("name", "beside", "commands")}
    body = [
        f"<h1>{escape(study.name)}</h1>",
        f"<p>{len(points)} points on {escape(study.config)}, engine {escape(study.engine)}, "
        f"halfdome {escape(chosen.row['halfdome_version'])}, study {study.hash}. "
        "Energy and area are models. Click a point to be told of it.</p>",
        *_html({
            "front": figures.front(study, points, chosen),
            "coordinates": figures.coordinates(study, points),
            "sensitivity": figures.sensitivity(study, points),
        }),
        *_on_rtl(compared),
        '<h2 id="name">{name}</h2><div id="beside">{beside}</div>'.format_map(shown),
        *_html(figures.of_point(study, points, chosen), library=False),
        "<h2>Not measured</h2>" + _table(("point", "why"), left_out) if left_out else "",
        '<h2>To make it again</h2><pre id="commands">{commands}</pre>'.format_map(shown),
        f'<script type="application/json" id="points">{_json(about)}</script>',
        f"<script>{files(__package__).joinpath('report.js').read_text()}</script>",
    ]  # fmt: skip
    title = f"{study.name}: {len(points)} points"
    path.write_text(_PAGE.format(title=escape(title), body="\n".join(body)))


def _about(
    point: Point, first: Point, commands: Sequence[str], host: "HostCpu | None"
) -> dict[str, str]:
    """Parts of the page, by their ids, that tell of one point."""
    mismatching = point.row["mismatching_samples"]
    compared = (
        "Values were left out" if mismatching is None
        else f"{mismatching} samples differ from the golden model"
    )  # fmt: skip
    beside_host = f"<p>{escape(host.beside(point.row))}</p>" if host else ""
    names = ("metric", f"point {point.number}", f"point {first.number}", "ratio")
    return {
        "name": f"Point {point.number}: {escape(point.name)}",
        "beside": f"<p>{compared}.</p>{beside_host}"
        f"<h3>Beside point {first.number}: {escape(first.name)}</h3>"
        + _table(names, _beside(point.row, first.row)),
        "commands": escape("\n".join(commands)),
    }


def _json(value: object) -> str:
    """As JSON that ends no element of a page."""
    return json.dumps(value, cls=PlotlyJSONEncoder).replace("</", "<\\/")


def _html(drawn: Mapping[str, go.Figure], *, library: bool = True) -> list[str]:
    """Figures as parts of a page, by their ids; the library comes with the first."""
    return [
        to_html(figure, full_html=False, div_id=name, include_plotlyjs=library and not place)
        for place, (name, figure) in enumerate(drawn.items())
    ]


def _on_rtl(compared: Sequence[OnRtl] | None) -> list[str]:
    """What the RTL says of points, and how far the engine of the study is from it."""
    if compared is None:
        return ["<p>The front is not measured on the RTL yet.</p>"]
    if not compared:
        return ["<p>The front was measured on the RTL.</p>"]
    shown = [name for name in TIMED if any(name in each.times for each in compared)]
    lines = [
        (f"{each.point.number}: {each.point.name}"
         + (f", scaled to {each.scaled_to}" if each.scaled_to else ""),
         *(f"{each.times[name]:,.4g} ({each.error[name]:+.2f} %)" for name in shown))
        for each in compared if each.rtl.row
    ]  # fmt: skip
    names = ("point", *(METRICS[name].title for name in shown))
    return [
        "<h2>The same points on the RTL, and the error of the study</h2>", _table(names, lines),
        *(f"<p>{escape(each.told)}.</p>" for each in compared if each.told),
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
    joined = sorted(pareto(study, points), key=lambda point: point.row[x_name])
    mine = [point.row for point in points if point.row]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter([row[x_name] for row in mine], [row[y_name] for row in mine], color="0.6")
    front = [point.row for point in joined]
    axes.plot(
        [row[x_name] for row in front], [row[y_name] for row in front], "o-", label="Pareto front"
    )
    for point in joined:
        place = (point.row[x_name], point.row[y_name])
        axes.annotate(point.name, place, textcoords="offset points", xytext=(5, 5), fontsize=7)
    axes.set_xlabel(METRICS[x_name].title)
    axes.set_ylabel(METRICS[y_name].title)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=200)
