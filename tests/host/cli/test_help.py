"""Every command explains itself."""

import pytest
import typer

from halfdome.host import cli

COMMANDS = [
    "run dlrm",
    "verilog",
    "fpga",
    "explore",
    "bench matmul",
    "bench gather",
    "bench engine",
    "bench link",
    "bench transfers",
    "bench faults",
    "info",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(halfdome, command):
    status, text, _ = halfdome(*command.split(), "--help")
    assert status == 0
    assert f"Example: halfdome {command} --" in " ".join(text.split())


def test_every_command_is_tested():
    group = typer.main.get_command(cli.app)
    names = {
        f"{name} {inner}" if inner else name
        for name, command in group.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert names == set(COMMANDS)
