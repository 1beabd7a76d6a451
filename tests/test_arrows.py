"""The direction of imports is part of the architecture: hdl ← sim ← host, and inside host."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = {
    "hdl": {"hdl"},
    "sim": {"hdl", "sim"},
    "host": {
        "host",
        "hdl.config",
        "hdl.commands",
        "hdl.descriptors",
        "hdl.registers",
        "hdl.serial",
    },
}
EXCEPTIONS = {
    # Where a platform is opened, where hardware is generated and says how far it is, what operators
    # compute, where Python would be too slow, where simulations are kept, and the error of values
    # that were left out.
    "host/platform.py": {
        "sim.build.fingerprint",
        "sim.fabric.config",
        "sim.golden",
        "sim.platform",
        "sim.rtl.cards",
    },
    "host/cli/card.py": {
        "hdl.boards",
        "hdl.pico",
        "hdl.synthesis",
        "hdl.tools",
        "hdl.verilog",
        "hdl.verilog_top",
        "sim.build.progress",
    },
    "host/explore/kept.py": {"sim.build.cache"},
    "host/explore/queueing.py": {"sim.build.compiler"},
    "host/explore/synthesise.py": {"hdl.parts"},
    "host/bench/fpga.py": {"hdl.card", "hdl.synthesis"},
    "host/runtime/left_out.py": {"sim.timing.left_out"},
    "host/graph/embedding.py": {"sim.golden"},
    "host/graph/products.py": {"sim.golden"},
    "host/graph/elements.py": {"sim.golden"},
    "host/graph/pooling.py": {"sim.golden"},
    "host/compiler/numpy.py": {"sim.golden"},
    "host/frontend/translate_elements.py": {"sim.golden"},
    "host/driver/numpy_operations.py": {"sim.golden"},
}
LAYERS = (
    "cli", "pytest_plugin", "explore", "bench", "serving", "platform", "report", "models",
    "frontend", "compiler", "runtime", "driver", "graph", "arguments",
)  # fmt: skip
"""Folders and modules of host from top to bottom: each imports what is below it alone."""


def statements(tree: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """Import statements of a module, and whether they are for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from ((statement, True) for statement, _ in statements(node))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node, False
        else:
            yield from statements(node)


@cache
def imported(path: Path, *, types: bool = True) -> set[str]:
    """Full names of what a module imports; those of this project without `halfdome.`."""
    names = set()
    for node, for_types in statements(ast.parse(path.read_text())):
        if for_types and not types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("halfdome.") for name in names}


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by their full names without `halfdome.`."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in paths}


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_downwards(package):
    seen = 0
    for path in modules(package).values():
        relative = str(path.relative_to(ROOT))
        permitted = ALLOWED[package] | EXCEPTIONS.get(relative, set())
        for name in imported(path):
            if name.split(".")[0] not in ("hdl", "sim", "host", "halfdome"):
                continue
            seen += 1
            if name == "halfdome":  # the public face is for users, and for tests of users
                assert relative == "host/pytest_plugin.py", f"{relative} imports the public face"
                continue
            assert any(name == p or name.startswith(p + ".") for p in permitted), (
                f"{relative} imports {name}"
            )
    assert seen


def test_every_layer_of_the_host_imports_only_what_is_below_it():
    seen = set()
    for name, path in modules("host").items():
        layer = name.split(".")[1]
        if layer == "__init__":
            continue
        for other in imported(path):
            if not other.startswith("host."):
                continue
            below = other.split(".")[1]
            assert LAYERS.index(below) >= LAYERS.index(layer), f"{name} imports {other}"
            seen.add((layer, below))
    assert {layer for layer, _ in seen} == set(LAYERS) - {"arguments"}


@pytest.mark.parametrize("package", ALLOWED)
def test_no_module_imports_itself_by_a_detour(package):
    known = modules(package)
    graph = {
        name: {
            found
            for other in imported(path, types=False)
            for found in (other, other.rpartition(".")[0])
            if found in known and found != name
        }
        for name, path in known.items()
    }
    assert any(graph.values())
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("package", ALLOWED)
def test_no_room_imports_itself_by_a_detour(package):
    """A room is a folder, or a module that lies beside the folders."""
    known = modules(package)
    rooms: dict[str, set[str]] = {}
    for name, path in known.items():
        room = name.split(".")[1]
        inside = (other for other in imported(path) if other.startswith(f"{package}."))
        others = {other.split(".")[1] for other in inside}
        rooms.setdefault(room, set()).update(others - {room})
    assert any(rooms.values())
    TopologicalSorter(rooms).prepare()  # raises CycleError


def test_hdl_needs_only_amaranth():
    for path in modules("hdl").values():
        for name in imported(path):
            assert name.split(".")[0] not in ("numpy", "rich", "torch"), f"{path} imports {name}"
