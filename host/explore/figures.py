"""The pictures of a study, as Plotly draws them."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from halfdome.hdl.registers import ACTIVITIES
from halfdome.host.compiler import costs
from halfdome.host.explore.metrics import METRICS
from halfdome.host.explore.search import Point
from halfdome.host.explore.study import Study
from halfdome.host.explore.tell import pareto, within

# How a picture of points shows the one that is told of; `report.js` moves the mark.
SELECTED = {
    "selected": {"marker": {"color": "#c33", "size": 15}}, "unselected": {"marker": {"opacity": 1}},
}  # fmt: skip
COLOURS = {"busy": "#2a6", "starved": "#e90", "blocked": "#c33", "idle": "#ddd"}
_LAYOUT = {"template": "plotly_white", "margin": {"l": 70, "r": 30, "t": 50, "b": 60}}


def front(study: Study, points: Sequence[Point], chosen: Point) -> go.Figure:
    """The first objective against each other one, the Pareto front of all of them marked."""
    best = {point.number for point in pareto(study, points)}
    inside = {point.number for point in within(study, points)}
    first, others = study.objectives[0], study.objectives[1:] or study.objectives[:1]
    figure = make_subplots(cols=len(others), rows=1, horizontal_spacing=0.12)
    groups = {
        "Pareto front": (best, "#06c", 11),
        "beaten": (inside - best, "#999", 7),
        "outside constraints": ({p.number for p in points if p.row} - inside, "#e88", 7),
    }
    for column, other in enumerate(others, start=1):
        for name, (numbers, colour, size) in groups.items():
            mine = [p for p in points if p.row and p.number in numbers]
            figure.add_scatter(
                x=[p.row[other] for p in mine], y=[p.row[first] for p in mine], mode="markers",
                marker={"color": colour, "size": size}, name=name, legendgroup=name,
                showlegend=column == 1, row=1, col=column, **_told(study, mine, chosen),
            )  # fmt: skip
        figure.update_xaxes(title_text=METRICS[other].title, rangemode="tozero", col=column)
    figure.update_yaxes(title_text=METRICS[first].title, rangemode="tozero", col=1)
    return figure.update_layout(title="Pareto front", height=460, **_LAYOUT)


def _told(study: Study, points: Sequence[Point], chosen: Point) -> dict[str, Any]:
    """What a trace of points says of each, and which is selected."""
    return {
        "customdata": [point.number for point in points],
        "text": [_hover(study, point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
        "selectedpoints": [
            place for place, point in enumerate(points) if point.number == chosen.number
        ],
        **SELECTED,
    }


def _hover(study: Study, point: Point) -> str:
    row = point.row
    values = [f"{name} {row[name]:,.4g}" for name in study.objectives]
    return "<br>".join([f"point {point.number}", *point.name.split(), *values])


def _varied(study: Study) -> list[str]:
    return [name for name, values in study.parameters.items() if len(values) > 1]


def coordinates(study: Study, points: Sequence[Point]) -> go.Figure:
    """Every feasible point as a line through its parameters and objectives."""
    mine = [point for point in points if point.row]
    dimensions: list[dict[str, Any]] = []
    for name in _varied(study):
        values = list(study.parameters[name])
        dimensions.append({
            "label": name, "values": [values.index(point.values[name]) for point in mine],
            "tickvals": list(range(len(values))), "ticktext": [str(each) for each in values],
        })  # fmt: skip
    for name in study.objectives:
        dimensions.append({"label": name, "values": [point.row[name] for point in mine]})
    line = {"color": dimensions[-len(study.objectives)]["values"], "colorscale": "Viridis"}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    return figure.update_layout(
        title="Parameters and objectives", height=480, template=_LAYOUT["template"],
        margin={"l": 110, "r": 110, "t": 110, "b": 40},
    )  # fmt: skip


def sensitivity(study: Study, points: Sequence[Point]) -> go.Figure:
    """The mean of each objective over all points with a value of a parameter, of that over all."""
    mine = [point for point in points if point.row]
    names = _varied(study) or list(study.parameters)[:1]
    figure = make_subplots(cols=max(1, len(names)), rows=1, subplot_titles=names, shared_yaxes=True)
    for place, objective in enumerate(study.objectives):
        overall = mean(point.row[objective] for point in mine) or 1
        for column, name in enumerate(names, start=1):
            values = [v for v in study.parameters[name] if any(p.values[name] == v for p in mine)]
            heights = [
                mean(p.row[objective] for p in mine if p.values[name] == v) / overall
                for v in values
            ]
            figure.add_scatter(
                x=[str(v) for v in values], y=heights, name=objective, legendgroup=objective,
                showlegend=column == 1, line={"color": _PALETTE[place % len(_PALETTE)]},
                row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(type="category").update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="of the mean over all points", col=1)
    return figure.update_layout(title="What each parameter does", height=380, **_LAYOUT)


_PALETTE = ("#06c", "#c60", "#393", "#939", "#666")


def traces(study: Study, point: Point, reach: Sequence[float]) -> dict[str, list[dict[str, Any]]]:
    """What pictures of one point draw first, by their names: plain data, of which a study with many
    points needs one for each, and checks none as a `Figure` would."""
    return {
        "shares": _shares(point.row), "activities": _activities(point.row),
        "roofline": [_roofs(study, point, reach)], "energy": _energy(point.row),
    }  # fmt: skip


def of_point(study: Study, points: Sequence[Point], chosen: Point) -> dict[str, go.Figure]:
    """What binds a point, where its cycles and its energy go, and its place under its roofs."""
    figures = {name: go.Figure(data) for name, data in traces(study, chosen, reach(points)).items()}
    shares, activities, roofline, energy = figures.values()
    shares.update_xaxes(title_text="share of the time, of the busiest of its kind", range=[0, 1])
    shares.update_layout(title="What binds", height=330, **_LAYOUT)
    activities.update_xaxes(title_text="share of the cycles of all cards", range=[0, 1])
    activities.update_layout(title="Where cycles go", barmode="stack", height=330, **_LAYOUT)
    roofline.add_trace(_under_roofs(study, points, chosen))
    roofline.update_xaxes(title_text="multiply-accumulates for a byte of DRAM", type="log")
    roofline.update_yaxes(title_text="multiply-accumulates a second, all cards", type="log")
    roofline.update_layout(title="Roofline", height=420, **_LAYOUT)
    energy.update_yaxes(title_text="µJ for a sample (model)")
    energy.update_layout(title="Energy", height=330, **_LAYOUT)
    return figures


def reach(points: Sequence[Point]) -> list[float]:
    """The least and the most multiply-accumulates for a byte of DRAM of any point that has both."""
    found = [_macs_per_byte(each) for each in points if each.row.get("dram_bytes_per_sample")]
    return [min(found), max(found)] if found else []


def _macs_per_byte(point: Point) -> float:
    return point.row["macs_per_sample"] / point.row["dram_bytes_per_sample"]


def _activities(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where the cycles of each engine went."""
    engines = row["engines"]
    return [
        {
            "type": "bar", "orientation": "h", "name": activity, "y": list(engines),
            "x": [each[activity] for each in engines.values()],
            "marker": {"color": COLOURS[activity]},
        }
        for activity in sorted(ACTIVITIES, key=list(COLOURS).index)
    ]  # fmt: skip


def _shares(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How busy each resource was, busiest first: the first binds, the others have headroom."""
    ordered = sorted(row["shares"].items(), key=lambda item: item[1])
    return [{
        "type": "bar", "orientation": "h", "y": [name for name, _ in ordered],
        "x": [share for _, share in ordered],
        "marker": {"color": ["#999"] * (len(ordered) - 1) + ["#c33"]},
    }]  # fmt: skip


def _roofs(study: Study, point: Point, reach: Sequence[float]) -> dict[str, Any]:
    """What arrays and DRAM of a point's platform allow, as far as `reach` and the ridge."""
    design = study.design(point.values)
    card, hertz = design.card, design.card.clock_mhz * 1e6
    peak = design.cards * card.cores * card.array_rows * card.array_columns * hertz
    dram = design.cards * costs.dram_bytes_per_cycle(card) * hertz
    ridge = peak / dram
    ends = [min([*reach, ridge]) / 4, ridge, max([*reach, ridge]) * 4]
    return {
        "type": "scatter", "mode": "lines", "name": f"roofs of point {point.number}", "x": ends,
        "y": [min(peak, each * dram) for each in ends], "line": {"color": "#333"},
    }  # fmt: skip


def _under_roofs(study: Study, points: Sequence[Point], chosen: Point) -> go.Scatter:
    """Multiply-accumulates a second against those for a byte of DRAM."""
    mine = [point for point in points if point.row and point.row["dram_bytes_per_sample"]]
    return go.Scatter(
        x=[_macs_per_byte(point) for point in mine],
        y=[point.row["macs_per_sample"] * point.row["samples_per_second"] for point in mine],
        mode="markers", name="points", marker={"color": "#999", "size": 9},
        **_told(study, mine, chosen),
    )  # fmt: skip


def _energy(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the energy of a sample is spent on."""
    spent = row["energy_uj"]
    return [{
        "type": "bar", "x": list(spent), "y": list(spent.values()), "marker": {"color": "#06c"},
    }]  # fmt: skip
