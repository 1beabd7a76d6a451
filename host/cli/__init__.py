"""The `halfdome` command."""

import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from halfdome.host.cli import bench, card, explore, models, run

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)
app.add_typer(run.app, name="run")
app.command("compile")(models.compile_model)
app.command("compare")(models.compare_model)
app.add_typer(bench.app, name="bench")
for command in (explore.explore, explore.guidance, card.verilog, card.fpga, card.info):
    app.command()(command)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"halfdome {metadata.version('halfdome')}")
        raise typer.Exit


@app.callback()
def halfdome(
    version: Annotated[
        bool,
        typer.Option("--version", help="Tell the version.", is_eager=True, callback=_tell_version),
    ] = False,
) -> None:
    """A six-card inference accelerator platform, simulated cycle by cycle."""


def main() -> None:
    """Entry point: errors that a user can mend become one line and exit status 2."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that is closed is None
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # of signs that it lacks
    try:
        app()
    except (ValueError, MemoryError, OSError, RuntimeError, ImportError) as error:
        message = f"[red]error:[/red] {escape(str(error))}"
        Console(stderr=True).print(message, soft_wrap=True, highlight=False)
        sys.exit(2)
