"""Every command explains itself."""

import pytest
import typer

import halfdome as package
from halfdome.host import cli

COMMANDS = [
    "run MODEL",
    "run dlrm",
    "compile",
    "compare",
    "verilog",
    "fpga",
    "explore",
    "guidance",
    "bench matmul",
    "bench gather",
    "bench engine",
    "bench link",
    "bench transfers",
    "bench faults",
    "bench model",
    "bench models",
    "bench cores",
    "bench fairness",
    "bench together",
    "bench flights",
    "bench fpga",
    "bench area",
    "info",
]


PATHS = {name: f"{name.split()[0]} model.onnx" for name in ("run MODEL", "compile", "compare")}
"""What commands look like that take a model's path."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(halfdome, command):
    status, text, _ = halfdome(*command.split(), "--help")
    assert status == 0
    assert f"Example: halfdome {PATHS.get(command, command)} -" in " ".join(text.split())


def test_every_command_is_tested():
    group = typer.main.get_command(cli.app)
    names = {
        f"{name} {inner}" if inner else name
        for name, command in group.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert names == set(COMMANDS)


def test_run_shows_how_to_run_a_model_and_the_demo(halfdome):
    status, text, _ = halfdome("run", "--help")
    assert status == 0
    for example in ("run model.onnx --input", "run dlrm --samples"):
        assert f"Example: halfdome {example}" in " ".join(text.split())


def test_the_version_is_that_of_the_package(halfdome):
    status, text, _ = halfdome("--version")
    assert (status, text.split()) == (0, ["halfdome", package.__version__])
