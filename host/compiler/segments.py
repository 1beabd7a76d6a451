"""The segments of a program: where each buffer lies once all are placed."""

import numpy as np

from halfdome.host.compiler.commands import Buffer
from halfdome.host.compiler.memory import Plan
from halfdome.host.runtime.program import HOST, Segment


class Segments:
    """Numbers the segments of a program as they are first needed."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._numbers: dict[object, int] = {}
        self.found: list[Segment] = []
        self.weights: dict[str, np.ndarray] = {}

    def _number(self, key: object, segment: Segment) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.found)
            self.found.append(segment)
        return self._numbers[key]

    def of(self, buffer: Buffer) -> tuple[int, int]:
        """Segment and byte at which a buffer begins."""
        if buffer.in_host:
            segment = Segment(buffer.name, HOST, "host", buffer.nbytes, True)
            return self._number(id(buffer), segment), 0
        memory = self._plan.memories[id(buffer)]
        if buffer.contents is not None:
            self.weights[buffer.name] = buffer.contents
            name = buffer.name
            segment = Segment(name, buffer.position, memory, buffer.nbytes, False, name)
            return self._number(id(buffer), segment), 0
        key = buffer.position, memory
        segment = Segment(
            f"{memory} of a request", buffer.position, memory, self._plan.arena_bytes[key], True
        )
        return self._number(key, segment), self._plan.offsets[id(buffer)]
