"""A model as cards run it: plain data, compiled once, saved, loaded, submitted many times.

Cards are told apart by their position, 0 for the first that serves the program. What a position
does are *commands*, which the target alone understands (`Part.code`); what the runtime needs to
know of them is beside: the in-order queue of each, the stage at which it is issued, the events that
it waits for. Event `e` is "command `e` is done", commands of all parts being numbered one after the
other; the events after those are arrivals: what a position has sent has reached a peer.

Memory is *segments*. A buffer is a segment and an offset; where a segment lies is known when a
program is loaded, and for what each request has of its own, when a slot is made.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

VERSION = 2
"""Rises whenever the meaning of a saved program changes; older ones are compiled again."""
HOST = -1
"""The position of segments in host memory."""
MOST_WAITS = 2
"""Events that a command waits for by itself; fences wait for more."""


class ProgramError(ValueError):
    """A program that is damaged, or not for these cards. The message says which and why."""


@dataclass(frozen=True)
class Segment:
    """Memory in one piece.

    Attributes
    ----------
    name : str; segments of one name and position have the same contents in any program of a model
    position : int, of the card, or `HOST`
    memory : str, which of the card's memories it belongs to, if that has room
    nbytes : int
    per_slot : bool, whether every request in flight has its own
    contents : str, the weight that it holds; empty for none
    """

    name: str
    position: int
    memory: str
    nbytes: int
    per_slot: bool
    contents: str = ""


@dataclass(frozen=True)
class Part:
    """What one position does for a request, in the order in which a round issues it.

    Attributes
    ----------
    queue, stage : uint8[commands]; a round issues stage `s` of what began `s` rounds before
    waits : int32[commands, MOST_WAITS], events, -1 for none
    peer, arrival : int16, int32 [commands]; the position that a command tells of what was sent to
        it, and the event that this is; -1 for none
    labels : tuple of str, for people
    code : arrays by name, the target's own
    """

    queue: np.ndarray
    stage: np.ndarray
    waits: np.ndarray
    peer: np.ndarray
    arrival: np.ndarray
    labels: tuple[str, ...]
    code: Mapping[str, np.ndarray] = field(repr=False)

    def __len__(self) -> int:
        return len(self.queue)


@dataclass(frozen=True)
class RowsPiece:
    """Samples `start` to before `stop` of a tensor, in a segment of host memory.

    There its rows are `stride` bytes apart: what lies along the last axis, from all others.
    """

    segment: int
    offset: int
    stride: int
    start: int
    stop: int


@dataclass(frozen=True)
class RowsInput:
    """An input whose rows are copied as they are.

    `shape` and `dtype` are the request's; on the way an element is a `wire_dtype`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    wire_dtype: str
    pieces: tuple[RowsPiece, ...]


@dataclass(frozen=True)
class BagsInput:
    """An input of bags: int32 `lengths`[bags], int32 `indices` and float32 `weights`, if any.

    `longest` is the most indices of a bag.
    """

    lengths: str
    indices: str
    weights: str
    bags: int
    longest: int


@dataclass(frozen=True)
class BagsPiece:
    """The bags `start` to before `stop` of an input, as one card pools them.

    Byte offsets are from the start of the segment; -1 for indices and weights that follow what is
    before them. Symbols number what the commands of a request are patched with.
    """

    bags: int
    start: int
    stop: int
    lengths_at: int
    indices_at: int
    weights_at: int
    symbol: int


SYMBOLS_PER_PIECE = 4
"""Of a piece: its index count, offset and bytes of its indices, offset of its weights."""


@dataclass(frozen=True)
class BagsStaging:
    """Where the bags of one card are put together in host memory.

    What is packed follows `packed_at`, each operand at a multiple of `word` bytes; `symbol` is the
    number of bytes in use, all of which travel. An integer has `integer_bytes`.
    """

    segment: int
    packed_at: int
    word: int
    integer_bytes: int
    symbol: int
    pieces: tuple[BagsPiece, ...]


@dataclass(frozen=True)
class Output:
    """What a response holds: rows in host memory, of which `columns` are picked in that order."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    columns: tuple[int, ...]
    pieces: tuple[RowsPiece, ...]


@dataclass(frozen=True)
class Program:
    """A compiled model for so many cards of one design.

    Attributes
    ----------
    target, design : str, what the code is for: kind of accelerator, and hash of its configuration
    slots : int, requests in flight
    batch : int, rows of a request at most
    stages : int, rounds from a request's first command to its last
    syncs : stages that begin when all that was issued before is done
    symbols : int, numbers that the commands of a request are patched with
    firsts : tuple of int, the first of a request's rows that each position works on
    segments, parts, inputs, bags, stagings, outputs : see their classes
    weights : uint8[n] by name
    about : what it was made from and how it was planned, for reports
    """

    target: str
    design: str
    slots: int
    batch: int
    stages: int
    syncs: tuple[int, ...]
    symbols: int
    firsts: tuple[int, ...]
    segments: tuple[Segment, ...]
    parts: tuple[Part, ...]
    inputs: tuple[RowsInput, ...]
    bags: tuple[BagsInput, ...]
    stagings: tuple[BagsStaging, ...]
    outputs: tuple[Output, ...]
    weights: Mapping[str, np.ndarray] = field(repr=False)
    about: Mapping[str, object] = field(default_factory=dict)

    def check_values(self) -> None:
        """Raises `ProgramError` for a program that was compiled without values."""
        if lacking := {s.contents for s in self.segments if s.contents} - {*self.weights}:
            raise ProgramError(
                f"the program was compiled with values=False and has no {min(lacking)!r}: compile "
                "it with its values to save or deploy it"
            )

    @property
    def cards(self) -> int:
        """Cards that it runs on."""
        return len(self.parts)

    @property
    def cores(self) -> list[int]:
        """Numbers of the cores of each card that run it."""
        return list(self.about["cores"])  # type: ignore[call-overload]

    def first_event(self, position: int) -> int:
        """The event of a position's first command."""
        return sum(len(part) for part in self.parts[:position])

    @property
    def events(self) -> int:
        """Events of a request."""
        arrivals = [int(part.arrival.max(initial=-1)) + 1 for part in self.parts]
        return max(self.first_event(self.cards), *arrivals)

    def needed(self, rows: int) -> np.ndarray:
        """Whether a request of so many rows needs each position, bool[cards].

        It needs all of them if they pool bags for each other, or tell each other of anything.
        """
        together = self.bags or any((part.peer >= 0).any() for part in self.parts)
        return np.array([bool(together) or first < rows for first in self.firsts])

    def save(self, path: str | Path) -> None:
        """Writes it as one safetensors file whose header holds the rest as JSON.

        Raises `ProgramError` for a program without values.
        """
        self.check_values()
        about = {"version": VERSION}
        tensors: dict[str, np.ndarray] = {}
        for name in _PLAIN:
            about[name] = _as_json(getattr(self, name))
        about["labels"] = [list(part.labels) for part in self.parts]
        for position, part in enumerate(self.parts):
            for name in _ARRAYS:
                tensors[f"part.{position}.{name}"] = getattr(part, name)
            for name, values in part.code.items():
                tensors[f"part.{position}.code.{name}"] = values
        tensors |= {f"weight.{name}": values for name, values in self.weights.items()}
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        text = json.dumps(about, sort_keys=True)
        save_file(contiguous, path, metadata={"program": text, "digest": _digest(text, contiguous)})

    @classmethod
    def load(cls, path: str | Path) -> "Program":
        """Reads what `save` wrote.

        Raises `ProgramError` for a file that is missing, damaged, no program or of another version.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise ProgramError(f"{path}: no such file") from None
        except (SafetensorError, OSError) as error:
            raise ProgramError(f"{path}: truncated or not a safetensors file ({error})") from None
        if "program" not in metadata:
            raise ProgramError(f"{path}: is no program, its header has no `program` entry")
        text = metadata["program"]
        try:
            about = dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise ProgramError(f"{path}: damaged: {error}") from None
        if about.get("version") != VERSION:
            raise ProgramError(
                f"{path}: version {about.get('version')}, this release reads version {VERSION}; "
                "compile the model again"
            )
        if metadata.get("digest") != _digest(text, tensors):
            raise ProgramError(f"{path}: damaged: its digest is not that of what it holds")
        return cls._of(about, tensors)

    @classmethod
    def _of(cls, about: dict, tensors: dict[str, np.ndarray]) -> "Program":
        parts = []
        for position, labels in enumerate(about["labels"]):
            prefix = f"part.{position}."
            mine = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            arrays = {name: mine.pop(name) for name in _ARRAYS}
            code = {name.removeprefix("code."): values for name, values in mine.items()}
            parts.append(Part(**arrays, labels=tuple(labels), code=code))
        weights = {
            name.removeprefix("weight."): values
            for name, values in tensors.items()
            if name.startswith("weight.")
        }
        plain = {name: about[name] for name in _PLAIN}
        for name, kind in _NESTED.items():
            plain[name] = tuple(_from_json(kind, each) for each in plain[name])
        for name in ("syncs", "firsts"):
            plain[name] = tuple(plain[name])
        return cls(**plain, parts=tuple(parts), weights=weights)


_PLAIN = tuple(
    each.name for each in dataclasses.fields(Program) if each.name not in ("parts", "weights")
)
_ARRAYS = ("queue", "stage", "waits", "peer", "arrival")
_NESTED = {
    "segments": Segment, "inputs": RowsInput, "bags": BagsInput, "stagings": BagsStaging,
    "outputs": Output,
}  # fmt: skip
_PIECES = {RowsInput: RowsPiece, Output: RowsPiece, BagsStaging: BagsPiece}


def _digest(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Of all that a saved program says."""
    digest = blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _as_json(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_as_json(each) for each in value] if isinstance(value, tuple) else value


def _from_json(kind: type, values: dict) -> object:
    made = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    if kind in _PIECES:
        made["pieces"] = tuple(_PIECES[kind](**piece) for piece in values["pieces"])
    return kind(**made)
