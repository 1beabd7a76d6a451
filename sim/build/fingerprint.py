"""What stands for sources: artefacts and results that were made of others are not taken."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from halfdome import hdl
from halfdome.sim.build.compiler import SIM


@cache
def hdl_fingerprint() -> str:
    """Stands for the sources of the card and the language they are written in."""
    return digest(version("amaranth"), Path(hdl.__file__).parent, ".py")


@cache
def fingerprint() -> str:
    """Stands for the sources of the card and of all that simulates it, as RTL or without."""
    return digest(hdl_fingerprint(), SIM, ".py", ".hpp", ".cpp")


def digest(said: str, root: Path, *suffixes: str) -> str:
    """Of what is said, and of the files in a folder that end so: where they are, what they hold."""
    found = hashlib.sha256(said.encode())
    for path in sorted(root.rglob("*")):
        if path.suffix in suffixes:
            found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()
