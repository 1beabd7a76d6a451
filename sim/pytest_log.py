"""Shows in a run of pytest what the logger `halfdome` says while tests are captured."""

import logging
import os
import sys

import pytest


class _Terminal(logging.Handler):
    """Writes to what standard error was before pytest captured it."""

    def __init__(self, descriptor: int):
        super().__init__()
        self.setFormatter(logging.Formatter("halfdome: %(message)s"))
        self._descriptor = os.dup(descriptor)

    def emit(self, record: logging.LogRecord) -> None:
        os.write(self._descriptor, f"\n{self.format(record)}\n".encode())

    def close(self) -> None:
        os.close(self._descriptor)
        super().close()


_terminal = pytest.StashKey[_Terminal]()


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is captured yet: standard error is the terminal's."""
    config.stash[_terminal] = handler = _Terminal(_standard_error())
    logging.getLogger("halfdome").addHandler(handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Gives the descriptor back."""
    if (handler := config.stash.get(_terminal, None)) is not None:
        logging.getLogger("halfdome").removeHandler(handler)
        handler.close()


def _standard_error() -> int:
    try:
        return sys.stderr.fileno()
    except (AttributeError, ValueError):  # replaced by what is no file
        return sys.__stderr__.fileno()
