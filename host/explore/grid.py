"""A grid of configurations, each run on the demo's batches."""

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rich.table import Table

from halfdome.hdl.config import CardConfig, ConfigError
from halfdome.host.bench.dlrm import Workload, check_design, run
from halfdome.host.explore.area import area_lut4


@dataclass(frozen=True)
class Point:
    """One configuration and what distinguishes it, as `field=value` words."""

    name: str
    config: CardConfig


def _values(setting: str) -> tuple[str, list[dict[str, int | str]]]:
    name, _, text = setting.partition("=")
    if not text:
        raise ConfigError(f"--set {setting}: must be FIELD=VALUE,VALUE,…")
    if name == "array":
        changes: list[dict[str, int | str]] = []
        for value in text.split(","):
            rows, _, columns = value.partition("x")
            if not (rows.isdecimal() and columns.isdecimal()):
                raise ConfigError(f"array={value}: must be ROWSxCOLUMNS, like 16x16")
            changes.append({"array_rows": int(rows), "array_columns": int(columns)})
        return name, changes
    types = {field.name: field.type for field in fields(CardConfig)}
    if name not in types:
        raise ConfigError(f"{name}: no such field; known are array, {', '.join(types)}")
    if types[name] in (str, "str"):
        return name, [{name: value} for value in text.split(",")]
    return name, [{name: _whole(name, value)} for value in text.split(",")]


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text}: must be a whole number") from None


def points(base: CardConfig, settings: Sequence[str]) -> list[Point]:
    """Every combination of the settings. Raises `ConfigError` before anything runs."""
    axes = [_values(setting) for setting in settings]
    names = [name for name, _ in axes]
    if len(set(names)) != len(names):
        raise ConfigError(f"--set: a field is given twice in {', '.join(names)}")
    if "array" in names and {"array_rows", "array_columns"} & set(names):
        raise ConfigError("--set array: sets array_rows and array_columns too, give one or other")
    for name, changes in axes:
        for position, change in enumerate(changes):
            if change in changes[:position]:
                value = "x".join(str(value) for value in change.values())
                raise ConfigError(f"--set {name}={value}: the value is given twice")
    grid = []
    for combination in itertools.product(*(changes for _, changes in axes)):
        merged = {field: value for change in combination for field, value in change.items()}
        words = [
            f"{name}={'x'.join(str(value) for value in change.values())}"
            for name, change in zip(names, combination, strict=True)
        ]
        grid.append(Point(" ".join(words), base.replace(**merged)))
    return grid


def check(grid: Sequence[Point], work: Workload, *, cards: int, engine: str) -> None:
    """Raises `ConfigError` naming the first point that cannot run the workload."""
    for point in grid:
        try:
            check_design(work, point.config, cards=cards, engine=engine)
        except (ValueError, MemoryError) as error:
            # What breaks a rule names its field itself; the rest is of the point.
            named = str(error).split("=")[0] in {word.split("=")[0] for word in point.name.split()}
            raise ConfigError(str(error) if named else f"{point.name}: {error}") from error


def measure(
    point: Point,
    work: Workload,
    *,
    cards: int,
    engine: str,
    progress: Callable[[int], None] = lambda samples: None,
) -> dict:
    """Answers the workload with one configuration; a row with units in its names."""
    report = run(work, point.config, cards=cards, engine=engine, progress=progress).report
    latency = sorted(report["latency_cycles"])
    return {
        "point": point.name,
        "config_hash": report["config_hash"],
        "seed": report["seed"],
        "halfdome_version": report["halfdome_version"],
        "samples": report["samples"],
        "total_cycles": report["total_cycles"],
        "total_us": report["total_us"],
        "median_latency_cycles": latency[len(latency) // 2],
        "samples_per_second": report["samples_per_second"],
        "area_lut4_equivalents": area_lut4(point.config),
        "auc_cards": report["auc_cards"],
        "mismatching_samples": report["mismatching_samples"],
    }


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """One line per row, names in the first."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def pareto(rows: Sequence[dict]) -> list[dict]:
    """Rows that no other row beats in both area and cycles, by rising area."""
    front: list[dict] = []
    for row in sorted(rows, key=lambda r: (r["area_lut4_equivalents"], r["total_cycles"])):
        if not front or row["total_cycles"] < front[-1]["total_cycles"]:
            front.append(row)
    return front


def draw(path: Path, rows: Sequence[dict]) -> None:
    """Cycles against area, the Pareto front joined."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter([r["area_lut4_equivalents"] for r in rows], [r["total_cycles"] for r in rows])
    front = pareto(rows)
    axes.step(
        [r["area_lut4_equivalents"] for r in front],
        [r["total_cycles"] for r in front],
        where="post",
        label="Pareto front",
    )
    for row in rows:
        place = (row["area_lut4_equivalents"], row["total_cycles"])
        axes.annotate(row["point"], place, textcoords="offset points", xytext=(5, 5), fontsize=7)
    axes.set_xlabel("area of one card, LUT4 equivalents (proxy)")
    axes.set_ylabel(f"cycles for {rows[0]['samples']} samples")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=150)


def table(rows: Sequence[dict]) -> Table:
    """For people."""
    front = {row["point"] for row in pareto(rows)}
    shown = Table("point", title="Design points (• on the Pareto front)")
    for name in ("cycles", "µs", "samples/s", "area (LUT4 eq.)"):
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(
            row["point"] + (" •" if row["point"] in front else ""),
            f"{row['total_cycles']:,}",
            f"{row['total_us']:.1f}",
            f"{row['samples_per_second']:,.0f}",
            f"{row['area_lut4_equivalents']:,}",
        )
    return shown
