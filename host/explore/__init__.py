"""Studies of designs: which points are measured, what came of them, and why."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXTRA = "pip install 'halfdome[explore]'"
OUTPUT = Path("build/explore")
"""Where reports and points are, unless told otherwise."""


@contextmanager
def needed() -> Iterator[None]:
    """What is imported inside raises `ImportError` that says what to install, if a library is
    missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error.name}: is not installed, and `explore` needs it: {EXTRA}"
        ) from None
