"""`halfdome explore`: studies of designs."""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halfdome.host import arguments
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.explore import OUTPUT, needed
from halfdome.host.report import tables

if TYPE_CHECKING:
    from halfdome.host.explore.host_cpu import HostCpu
    from halfdome.host.explore.on_rtl import OnRtl
    from halfdome.host.explore.search import Point, Results
    from halfdome.host.explore.study import Study
    from halfdome.host.explore.workers import Workers

LINE_SECONDS = 10
"""Between two lines about a search where nobody sees a bar."""

StudyFile = Annotated[
    Path | None, typer.Argument(metavar="STUDY.toml", help="The study; see docs/exploring.md.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=V1,V2,…", help="Values to try; array=RxC works too."),
]
WorkerCount = Annotated[
    int | None, typer.Option("--workers", min=1, help="Points measured at a time; default 1.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Measure on the workers of this Dask scheduler."),
]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URL", help=f"Where points are kept: by default {OUTPUT}/study.db."),
]


def explore(
    file: StudyFile = None,
    settings: Settings = None,
    config: Annotated[str | None, typer.Option(help="Preset that points start from.")] = None,
    samples: Annotated[int | None, typer.Option(help="Of the demo.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples of a request.")] = None,
    cards: Annotated[int | None, typer.Option(help="Cards.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="timing (the default), native (compiled) or pysim.")
    ] = None,
    data: options.Data = None,
    no_values: options.NoValues = False,
    workers: WorkerCount = None,
    scheduler: Scheduler = None,
    storage: Storage = None,
    number: Annotated[
        int | None,
        typer.Option("--point", metavar="N", help="Told of in the report; by default the best."),
    ] = None,
    explain: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Say what binds a point, and what doubling parameters buys."
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the front for print.", callback=options.output_file
        ),
    ] = None,
    output: options.OutputFolder = OUTPUT,
    json_file: options.JsonFile = None,
) -> None:
    """Measure designs and say which are best, and why: a table, a CSV and a report in HTML.

    Designs are those of a study's file, or a grid of the values given with --set on the demo. What
    was measured stays measured: the same command goes on where it was ended.

    Example: `halfdome explore --set array=8x8,16x16 --set lanes=4,8,16`

    Example: `halfdome explore docs/studies/links.toml --workers 2`

    Example: `halfdome explore docs/studies/links.toml --scheduler localhost:8786`
    """
    with needed():
        from halfdome.host.explore import report, search, tell

    by = _workers(workers, scheduler)
    changes = {"config": config, "engine": engine, "values": False if no_values else None}
    given = {"batch": batch, "cards": cards}
    study = load(file, settings, changes, given, samples, data)
    study.check()
    arguments.output_folder(output)
    results = search.Results(study, storage or search.storage_in(output))
    with _progress(study, results) as told:
        search.run(study, results, by, told)
    points = results.points
    tell.write_csv(output / "explore.csv", study, points)
    if feasible := tell.table(study, points):
        console.print(tables.of_rows("Points, • on the Pareto front", feasible))
    for point in points:
        if not point.row:
            console.print(f"{point.name}: {point.verdict}: {point.why}", highlight=False)
    if unmet := tell.unmet(study, points):
        console.print(unmet, highlight=False)
    chosen = report.choose(study, points, number if explain is None else explain)
    url = storage or search.storage_in(output)
    commands = partial(_commands, file, settings, storage, output)

    def written(compared: "list[OnRtl] | None", host: "HostCpu | None") -> None:
        if compared is not None or json_file != options.STDOUT:  # which is written once
            options.write_json(json_file, tell.as_dict(study, points, compared, host))
        report.write(output / "explore.html", study, points, chosen, compared, commands, host)

    if png is not None:
        report.write_png(png, study, points)
    written(None, None)  # cards of the front may compile for minutes, and be ended there
    compared, host = _on_rtl(study, points, chosen, url, by), _host_cpu(study)
    written(compared, host)
    errors = [abs(error) for each in compared for error in each.error.values()]
    if errors:
        count = sum(bool(each.rtl.row) for each in compared)
        console.print(
            f"{count} points measured on the RTL too: {max(errors):.2g} % off at most",
            highlight=False,
        )
    for each in compared:
        if each.told:
            console.print(each.told, highlight=False)
    if host is not None:
        console.print(f"point {chosen.number}: {host.beside(chosen.row)}", highlight=False)
    if explain is not None:
        _explain(study, chosen, url)
    typer.echo(f"{output / 'explore.csv'}\n{output / 'explore.html'}")
    wrong = sum(
        each.row["mismatching_samples"] or 0
        for each in (*points, *(each.rtl for each in compared))
        if each.row
    )
    options.require_right(wrong, "samples")


def guidance(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Of the studies, and their points.")
    ] = Path("docs/studies"),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page.", callback=options.output_file)
    ] = Path("docs/guidance.md"),
    again: Annotated[bool, typer.Option("--again", help="Measure all points anew.")] = False,
    workers: WorkerCount = None,
    scheduler: Scheduler = None,
) -> None:
    """Write what studies say to who designs cards and models: tables, and what is enough.

    Of each study in FOLDER that has [guidance]. Points are kept beside it, NAME.json, and measured
    if the study says something else than then.

    Example: `halfdome guidance -o docs/guidance.md --workers 2`
    """
    with needed():
        from halfdome.host.explore import guidance, search

    by = _workers(workers, scheduler)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    storage = search.storage_in(OUTPUT)
    studies = guidance.read(folder)
    for path, study in studies:
        if again or guidance.points(path, study) is None:
            with _progress(study, search.Results(study, storage)) as told:
                guidance.measure(path, study, storage, by, told)
    output.write_text(guidance.page(studies))
    typer.echo(output)


def _workers(count: int | None, scheduler: str | None) -> "Workers":
    """Who measures."""
    if scheduler is None:
        return count or 1
    if count is not None:
        raise ValueError("--workers: are those of the --scheduler; give one of the two")
    return scheduler


def _on_rtl(
    study: "Study", points: "Sequence[Point]", chosen: "Point", storage: str, by: "Workers"
) -> "list[OnRtl]":
    """The front, and the point that is told of, on the RTL, unless that is where they come from."""
    from halfdome.host.explore import on_rtl, tell

    wanted = {point.number: point for point in (*tell.pareto(study, points), chosen)}
    with options.progress() as bar:
        task = bar.add_task("on the RTL", total=len(wanted))
        return on_rtl.check(study, wanted.values(), storage, by, lambda point: bar.advance(task))


def _host_cpu(study: "Study") -> "HostCpu | None":
    """What a sample takes on the processor of this machine, if the study asks."""
    if study.host is None:
        return None
    from halfdome.host.explore import host_cpu  # which wants ONNX

    return host_cpu.measure(study.workload, study.host)  # type: ignore[arg-type]


def _explain(study: "Study", point: "Point", storage: str) -> None:
    """Tells what binds a point."""
    from halfdome.host.explore import explain

    with options.progress() as bar:
        task = bar.add_task("", total=None)
        found = explain.explain(
            study, point, storage, lambda text: bar.update(task, description=text)
        )
    shares = [{"resource": name, "share of the time": each, "headroom": 1 - each}
              for name, each in found.shares.items()]  # fmt: skip
    console.print(tables.of_rows(f"Point {point.number}: {found.binds} binds", shares))
    doubled = [
        {"parameter": each.name, "at": each.before, "doubled": each.after,
         "samples/s, times": each.gain if each.gain is not None else f"infeasible: {each.why}"}
        for each in found.doubled
    ]  # fmt: skip
    if doubled:
        console.print(tables.of_rows("Doubled, each alone, measured", doubled))
    console.print(found.advice, highlight=False)


def _commands(
    file: Path | None, settings: list[str] | None, storage: str | None, output: Path,
    point: "Point",
) -> list[str]:  # fmt: skip
    """Command lines that make a report again, and a point of it as hardware."""
    kept = f" --storage {shlex.quote(storage)}" if storage else ""
    again = [*([str(file)] if file else []), *(f"--set {each}" for each in settings or ())]
    found = [f"halfdome explore {' '.join(again)} -o {output}{kept}"]
    found.append(f"{found[0]} --explain {point.number}")
    if file is not None and not settings:
        from halfdome.host.explore.search import storage_in

        kept = kept or f" --storage {storage_in(output)}"
        found.append(f"halfdome verilog --study {file} --point {point.number}{kept}")
    return found


def load(
    file: Path | None, settings: list[str] | None = None, changes: dict[str, Any] | None = None,
    given: dict[str, int | None] | None = None, samples: int | None = None,
    data: Path | None = None,
) -> "Study":  # fmt: skip
    """The study of a file with what options change of it; without a file, of the demo."""
    with needed():
        from halfdome.host.explore import parameters, study

    said: dict[str, Any] = {"version": 1} if file is None else study.read(file)
    said |= {name: value for name, value in (changes or {}).items() if value is not None}
    values = dict(said.get("parameters", {}))
    values |= {name: value for name, value in (given or {}).items() if value is not None}
    seen: set[str] = set()
    for setting in settings or ():
        name, parsed = parameters.parse(setting)
        if name in seen:
            raise ValueError(f"--set {setting}: {name} is given twice")
        seen.add(name)
        values[name] = parsed
    if file is None and not seen:
        raise ValueError("nothing to explore: give a STUDY.toml, or values with --set")
    demo = {"samples": samples, "data": data and str(data.absolute())}
    demo = {name: value for name, value in demo.items() if value is not None}
    if demo:
        said["workload"] = {"kind": "demo", **said.get("workload", {}), **demo}
    folder = Path() if file is None else file.parent
    return study.checked(said | {"parameters": values}, str(file or "--set"), folder)


def fields(settings: Sequence[str]) -> dict[str, int | str]:
    """The fields of a card that `FIELD=VALUE` words set. Raises `ValueError` for any other."""
    from halfdome.host.explore import parameters

    found: dict[str, parameters.Value] = {}
    for setting in settings:
        name, values = parameters.parse(setting)
        if name not in {"array", *parameters.CARD}:
            raise ValueError(f"--set {setting}: is no field of the card")
        if len(values) > 1 or name in found:
            raise ValueError(f"--set {setting}: give one value, once")
        found |= {name: values[0]}
    return parameters.of_card(found)


@contextmanager
def _progress(study: "Study", results: "Results") -> Iterator[Any]:
    """What is told of each point: a bar, and a line at times where there is no terminal."""
    from halfdome.host.explore import tell

    points, total, begun, shown = results.points, results.total, time.monotonic(), 0.0
    before, best = len(points), tell.best(study, points)
    with options.progress() as bar:
        task = bar.add_task("points", total=total, completed=before)

        def told(point: "Point") -> None:
            nonlocal best, shown
            points.append(point)
            best = tell.best(study, [point, *([best] if best else [])])
            now = time.monotonic()
            said = f"{60 * (len(points) - before) / (now - begun):.3g} a minute"
            if best is not None:
                first = study.objectives[0]
                said += f", best {best.name}: {first}={best.row[first]:.4g}"
            bar.update(task, description=said, completed=len(points))
            if not sys.stderr.isatty() and now - shown >= LINE_SECONDS:
                shown = now
                line = f"halfdome: {len(points)}/{total} points, {said}, last {point.name}"
                typer.echo(line, err=True)

        yield told
