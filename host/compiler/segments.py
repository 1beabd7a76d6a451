"""The segments of a program: where each buffer lies once all are placed."""

from collections.abc import Callable
from hashlib import blake2b

import numpy as np

from halfdome.host.compiler.commands import Buffer
from halfdome.host.compiler.memory import Plan
from halfdome.host.runtime.program import HOST, Segment


class Segments:
    """Numbers the segments of a program as they are first needed.

    Parameters
    ----------
    plan : Plan
    values : bool, whether contents are made

    Attributes
    ----------
    found : list of Segment
    weights : uint8[n] by name, which tells one from others of its kind
    """

    def __init__(self, plan: Plan, values: bool):
        self._plan = plan
        self._values = values
        self._numbers: dict[object, int] = {}
        self._names: dict[tuple[int, str], str] = {}
        self.found: list[Segment] = []
        self.weights: dict[str, np.ndarray] = {}

    def _number(self, key: object, segment: Segment) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.found)
            self.found.append(segment)
        return self._numbers[key]

    def _weight(self, name: str, pack: Callable[[], np.ndarray]) -> str:
        contents = np.ascontiguousarray(pack())
        name = f"{name} {blake2b(contents, digest_size=6).hexdigest()}"
        self.weights[name] = contents
        return name

    def _held(self, buffer: Buffer, memory: str) -> int:
        """The segment of contents: one in each memory, named after that if the card has another."""
        key, card = (buffer.position, memory, buffer.name), (buffer.position, buffer.name)
        if key not in self._numbers:
            is_copy = card in self._names
            if not is_copy:
                self._names[card] = buffer.name
                if self._values and buffer.contents is not None:
                    self._names[card] = self._weight(buffer.name, buffer.contents)
            contents = self._names[card]
            name = f"{contents} in {memory}" if is_copy else contents
            segment = Segment(name, buffer.position, memory, buffer.nbytes, False, contents)
            self._number(key, segment)
        return self._numbers[key]

    def of(self, buffer: Buffer) -> tuple[int, int]:
        """Segment and byte at which a buffer begins."""
        if buffer.in_host:
            segment = Segment(buffer.name, HOST, "host", buffer.nbytes, True)
            return self._number(id(buffer), segment), 0
        memory = self._plan.memories[id(buffer)]
        if buffer.contents is not None:
            return self._held(buffer, memory), 0
        key = buffer.position, memory
        segment = Segment(
            f"{memory} of a request", buffer.position, memory, self._plan.arena_bytes[key], True
        )
        return self._number(key, segment), self._plan.offsets[id(buffer)]
