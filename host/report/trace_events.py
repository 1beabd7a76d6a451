"""A file in the Trace Event Format of Chromium, which https://ui.perfetto.dev opens.

Source: "Trace Event Format", the Chromium project. Times are microseconds.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path


@dataclass(frozen=True)
class Track:
    """Where slices and instants go: a thread of a process."""

    process: int
    thread: int


class TraceEvents:
    """Collects events; processes and tracks are shown in the order in which they are made.

    Numbers start at 1: viewers take process 0 for the machine itself.
    """

    def __init__(self) -> None:
        self.events: list[dict] = []
        self._processes = self._threads = 0

    def process(self, name: str) -> int:
        """A group of tracks."""
        self._processes += 1
        self._name("process", name, self._processes, 0, self._processes)
        return self._processes

    def track(self, process: int, name: str) -> Track:
        """A line of slices that do not overlap."""
        self._threads += 1
        self._name("thread", name, process, self._threads, self._threads)
        return Track(process, self._threads)

    def _name(self, kind: str, name: str, process: int, thread: int, order: int) -> None:
        for event, arguments in (("name", {"name": name}), ("sort_index", {"sort_index": order})):
            self.events.append(
                {"ph": "M", "name": f"{kind}_{event}", "pid": process, "tid": thread,
                 "args": arguments}
            )  # fmt: skip

    def slice(
        self, track: Track, start_us: float, length_us: float, name: str, category: str, **args
    ) -> None:
        """Something that takes time."""
        self.events.append(
            {"ph": "X", "name": name, "cat": category, "pid": track.process, "tid": track.thread,
             "ts": start_us, "dur": length_us, "args": args}
        )  # fmt: skip

    def instant(self, track: Track, at_us: float, name: str, category: str, **args) -> None:
        """Something that takes no time."""
        self.events.append(
            {"ph": "i", "s": "t", "name": name, "cat": category, "pid": track.process,
             "tid": track.thread, "ts": at_us, "args": args}
        )  # fmt: skip

    def counter(
        self, process: int, name: str, unit: str, values: Iterable[tuple[float, float]]
    ) -> None:
        """A value over time; each pair is when it changed and to what."""
        for at_us, value in values:
            self.events.append(
                {"ph": "C", "name": name, "pid": process, "ts": at_us, "args": {unit: value}}
            )

    def level(
        self, process: int, name: str, unit: str, stays: Iterable[tuple[float, float]]
    ) -> None:
        """How many are there at once; each pair is when one comes and when it leaves."""
        steps = [step for came, left in stays for step in ((came, 1), (left, -1))]
        level, changes = 0, []
        for at_us, group in groupby(sorted(steps), key=itemgetter(0)):
            change = sum(step for _, step in group)
            level += change
            if change:
                changes.append((at_us, level))
        self.counter(process, name, unit, changes)

    def write(self, path: Path, **about: object) -> None:
        """The file, with `about` the whole of it."""
        path.write_text(json.dumps(self.file(**about)))

    def file(self, **about: object) -> dict:
        """What `write` writes."""
        return {"traceEvents": self.events, "displayTimeUnit": "ns", "otherData": about}
