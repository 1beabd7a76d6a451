"""What takes long is told: what goes on, for how long by now, and how long it took last time."""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from halfdome.sim.build.cache import cache_dir
from halfdome.sim.log import LOGGER

FIRST_SECONDS = 2.0
"""What takes less is not told."""
EVERY_SECONDS = 10.0
"""Between two lines of the same step."""
MOST_TIMES = 100
"""Names whose times are kept."""
Progress = Callable[[str], None]


class _Watch(threading.Thread):
    """Tells of a piece of work at intervals, until it is over."""

    def __init__(self, what: str):
        super().__init__(name="halfdome-progress", daemon=True)
        self.over = threading.Event()
        self.doing = ""
        self.told = False
        self._what = what
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def run(self) -> None:
        wait = FIRST_SECONDS
        while not self.over.wait(wait):
            self.tell_now()
            wait = EVERY_SECONDS

    def tell_now(self) -> None:
        self.tell(f"{self.doing}{self.seconds:.0f} s so far")

    def tell(self, how_far: str) -> None:
        last_time = _times().get(self._what)
        last = f", {last_time:.0f} s last time" if last_time else ""
        LOGGER.info("%s: %s%s", self._what, how_far, last)
        self.told = True


@contextmanager
def told(what: str) -> Iterator[Progress]:
    """Tells of the work of the `with` block, `what`, while it lasts.

    Calling what it yields names the step that begins.
    """
    watch = _Watch(what)
    watch.start()

    def step(doing: str) -> None:
        watch.doing = f"{doing}; "
        if watch.told:
            watch.tell_now()

    try:
        yield step
    finally:
        watch.over.set()
        watch.join()
    if watch.told:
        watch.tell(f"done in {watch.seconds:.0f} s")
        _remember(what, watch.seconds)


def _file() -> Path:
    return cache_dir() / "times.json"


def _times() -> dict[str, float]:
    """Seconds by name, the oldest first; none if the file is missing or damaged."""
    try:
        times = json.loads(_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(times, dict):
        return {}
    return {
        name: seconds
        for name, seconds in times.items()
        if isinstance(seconds, int | float) and 0 < seconds < math.inf
    }


def _remember(what: str, seconds: float) -> None:
    times = _times()
    times.pop(what, None)
    times[what] = round(seconds, 2)
    kept = dict(list(times.items())[-MOST_TIMES:])
    temporary = _file().with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    with suppress(OSError):  # a cache that cannot be written forgets
        temporary.write_text(json.dumps(kept, indent=1))
        temporary.replace(_file())
