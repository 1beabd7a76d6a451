"""The logger `halfdome`: what takes time, and what was mended.

It writes to standard error as long as the program sets up no logging of its own.
`logging.getLogger("halfdome").setLevel(logging.ERROR)` silences it.
"""

import logging
import sys
from typing import TextIO

LOGGER = logging.getLogger("halfdome")
LINE = logging.Formatter("halfdome: %(message)s")


class _StandardError(logging.StreamHandler):
    """Writes to what is standard error at the time, unless the root logger has handlers."""

    def __init__(self):
        logging.Handler.__init__(self)
        self.setFormatter(LINE)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    def filter(self, record: logging.LogRecord) -> bool:
        return not logging.getLogger().handlers


LOGGER.addHandler(_StandardError())
if LOGGER.level == logging.NOTSET:
    LOGGER.setLevel(logging.INFO)
