"""An exception out of the blue, at any line of the host's software."""

import sys
from pathlib import Path

import halfdome

HOST = str(Path(halfdome.__path__[0]) / "host")


def confined(work):
    """What `work()` returns or raises, in a generator of its own.

    CPython may keep an exception as the one that is being handled if a tracer raises where an
    `except` begins. All that is raised later in the thread then names it as its context; a
    generator takes it along when it ends.
    """

    def generator():
        yield work()

    return next(generator())


class Interrupt:
    """Raises `kind` when line number `at` of the host's software is reached inside `with`.

    Attributes
    ----------
    lines : how many lines were reached
    """

    def __init__(self, at=0, kind=KeyboardInterrupt):
        self.at, self.kind, self.lines = at, kind, 0

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _called(self, frame, event, argument):
        return self._line if frame.f_code.co_filename.startswith(HOST) else None

    def _line(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise self.kind(f"at {frame.f_code.co_filename}:{frame.f_lineno}")
        return self._line
