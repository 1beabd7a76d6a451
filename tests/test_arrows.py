"""The direction of imports is part of the architecture: hdl ← sim ← host."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = {
    "hdl": {"hdl"},
    "sim": {"hdl", "sim"},
    "host": {"host", "hdl.config", "hdl.commands", "hdl.registers"},
}
EXCEPTIONS = {
    # Where a platform is opened, and where hardware is generated and says how far it is.
    "host/runtime/runtime.py": {"sim.golden", "sim.platform"},
    "host/cli/card.py": {"hdl.verilog", "hdl.synthesis", "sim.progress"},
}


def imported(path: Path) -> set[str]:
    """Full names of what a module imports; those of this project without `halfdome.`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            package = node.module in ("halfdome", *(f"halfdome.{folder}" for folder in ALLOWED))
            names |= {f"{node.module}.{a.name}" for a in node.names} if package else {node.module}
    return {name.removeprefix("halfdome.") for name in names}


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_downwards(package):
    seen = 0
    for path in sorted((ROOT / package).rglob("*.py")):
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


def test_hdl_needs_only_amaranth():
    for path in sorted((ROOT / "hdl").rglob("*.py")):
        for name in imported(path):
            assert name.split(".")[0] not in ("numpy", "rich", "torch"), f"{path} imports {name}"
