"""What the commands share: options with one meaning everywhere, progress, results, verdicts."""

import json
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from halfdome.hdl.config import MOST_CARDS, PRESETS
from halfdome.host import arguments

console = Console()


STDOUT = Path("-")
"""Stands for standard output where a file is asked for."""


def output_file(path: Path | None) -> Path | None:
    """Refuses a file that cannot be written before the work that would fill it."""
    if path == STDOUT:
        console.stderr = True  # tables make way
        return path
    try:
        return None if path is None else arguments.output_file(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Config = Annotated[str, typer.Option("--config", help=f"Preset: {', '.join(PRESETS)}.")]
EngineName = Annotated[str, typer.Option("--engine", help="native (compiled), pysim or timing.")]
NoValues = Annotated[
    bool,
    typer.Option(
        "--no-values", help="Of --engine timing: know the cycles alone, compute no values."
    ),
]
Samples = Annotated[int, typer.Option(help="Held-out interactions to answer.")]
Batch = Annotated[int, typer.Option(help="Samples of a batch.")]
Cards = Annotated[int, typer.Option(min=1, max=MOST_CARDS, help="Cards.")]
Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="MovieLens-100K in RecBole's format.")
]
OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the result as JSON; - for standard output.",
        callback=output_file,
    ),
]


def progress() -> Progress:
    """A bar on standard error, so that results can be piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def write_json(path: Path | None, result: dict) -> None:
    """Writes the result where `--json` asked for it, null for numbers that are none."""
    text = json.dumps(_plain(result), indent=2, allow_nan=False)
    if path == STDOUT:
        typer.echo(text)
    elif path is not None:
        path.write_text(text + "\n")


def _plain(value: object) -> object:
    """What JSON can say of a value: it has no NaN and no infinities."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def require_right(wrong: int, what: str) -> None:
    """Ends with status 1 if so many of `what` are not as the golden model has them."""
    if wrong:
        console.print(f"[red]{wrong} {what} differ from the golden model[/red]")
        raise typer.Exit(1)
