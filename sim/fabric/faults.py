"""Faults that a fabric is told to make, and what came of them."""

import ctypes
import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

FOREVER = (1 << 62) - 1
MOST_SAID = 1e9
"""Packets, or microseconds, of what people write: time in femtoseconds fits 64 bits."""
LEAST_DOWN_NS = 1_000
"""A link that has gone down is not up again sooner: by then the card has begun its reset."""


class FaultKind(enum.IntEnum):
    """What goes wrong. The first three are made good by the link, the others reach its ends."""

    CORRUPT = 0
    """A bit flips on the wire: the receiver refuses the packet and gets it again."""
    LOSE_ACK = 1
    """The acknowledgement of a packet is lost."""
    DUPLICATE_ACK = 2
    """It arrives twice."""
    POISON = 3
    """The payload is marked as bad."""
    REFUSE = 4
    """A completion becomes "unsupported request"; the rest of its read is not sent."""
    ABORT = 5
    """A completion becomes "completer abort"; likewise."""
    DROP = 6
    """A packet vanishes without trace."""
    DELAY = 7
    """A read or completion arrives `for_ns` late, and the rest of its read after it."""
    LINK_DOWN = 8
    """The link is down for `for_ns`, at least `LEAST_DOWN_NS`: both ways everything is lost, the
    switch answers reads, and the card is reset."""


class Flow(enum.IntEnum):
    """Kinds of packets; same order as in sim/fabric/tlp.hpp."""

    POSTED = 0
    NON_POSTED = 1
    COMPLETION = 2


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong on one direction of one link.

    Of the packets that fit, sent at `after_ns` or later, the first `skip` pass and the next `count`
    are hit. `after_ns` is time of the platform, or counts from when the plan is injected if that
    is later.
    """

    kind: FaultKind
    card: int | None
    """The card whose link it is; None is the uplink."""
    to_card: bool = True
    """Away from the host, or towards it. LINK_DOWN always is both."""
    flow: Flow | None = None
    """Which packets fit; None is any. Only what has a payload is poisoned, only completions are
    refused or aborted, no posted packet is delayed."""
    after_ns: float = 0
    skip: int = 0
    count: int = 1
    for_ns: float = 0
    """Length of DELAY and LINK_DOWN."""
    text: str = field(default="", compare=False)
    """What `parse_fault` made it from."""

    @property
    def line(self) -> str:
        """The direction of a link that it is on: "card 2 down", "uplink up"."""
        link = "uplink" if self.card is None else f"card {self.card}"
        return f"{link} {'down' if self.to_card else 'up'}"

    def check(self, cards: int) -> None:
        """Raises `ValueError` for what does not fit a platform of `cards` cards."""
        if self.card is not None and not 0 <= self.card < cards:
            raise ValueError(f"card={self.card}: must be 0 to {cards - 1}, or None for the uplink")
        if self.card is None and self.kind is FaultKind.LINK_DOWN:
            raise ValueError("LINK_DOWN of the uplink: only the link of a card can go down")
        for name in ("after_ns", "skip", "for_ns"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 or more")
        if self.count < 1:
            raise ValueError(f"count={self.count}: must be 1 or more")
        if self.kind in (FaultKind.DELAY, FaultKind.LINK_DOWN) and self.for_ns == 0:
            raise ValueError(f"for_ns=0: {self.kind.name} needs a length")
        if self.kind is FaultKind.LINK_DOWN and self.for_ns < LEAST_DOWN_NS:
            raise ValueError(f"for_ns={self.for_ns}: LINK_DOWN lasts at least {LEAST_DOWN_NS} ns")


@dataclass(frozen=True)
class FaultPlan:
    """What goes wrong in a run. The same plan gives the same run."""

    faults: tuple[Fault, ...]

    @classmethod
    def random(
        cls, seed: int, *, cards: int, count: int, kinds: Sequence[FaultKind], packets: int
    ) -> "FaultPlan":
        """`count` faults of `kinds`, each among the first `packets` packets of some card's link.

        A delay lasts 1 to 100 us, a link is down for as long.
        """
        rng = np.random.default_rng(seed)
        return cls(
            tuple(
                Fault(
                    kind=kinds[rng.integers(len(kinds))],
                    card=int(rng.integers(cards)),
                    to_card=bool(rng.integers(2)),
                    skip=int(rng.integers(packets)),
                    for_ns=float(rng.integers(1_000, 100_000)),
                )
                for _ in range(count)
            )
        )


def silence(card: int, after_ns: float = 0) -> Fault:
    """A card that stops answering: from `after_ns` on, nothing that it sends arrives."""
    return Fault(
        kind=FaultKind.DROP, card=card, to_card=False, after_ns=after_ns, count=FOREVER
    )  # fmt: skip


NAMES = {
    "corrupt": (FaultKind.CORRUPT, True, None),
    "poison": (FaultKind.POISON, True, Flow.COMPLETION),
    "poisoned-write": (FaultKind.POISON, False, Flow.POSTED),
    "unsupported": (FaultKind.REFUSE, True, Flow.COMPLETION),
    "abort": (FaultKind.ABORT, True, Flow.COMPLETION),
    "lost-completion": (FaultKind.DROP, True, Flow.COMPLETION),
    "late-completion": (FaultKind.DELAY, True, Flow.COMPLETION),
    "link-down": (FaultKind.LINK_DOWN, True, None),
    "silent": (FaultKind.DROP, False, None),
}
"""Faults by the names that people write: kind, whether it is towards the card, what it hits."""


def parse_fault(text: str) -> Fault:
    """The fault that `NAME[:card=N,at=US,for=US,skip=N,count=N]` means.

    By default the first packet that fits, of card 0, from the beginning; `for`, of what is down or
    late, is 50 us. `link=uplink` in place of a card is the link that all share. Raises `ValueError`
    naming what is wrong.
    """
    name, _, rest = text.partition(":")
    if name not in NAMES:
        raise ValueError(f"fault {text}: {name} is unknown; known are {', '.join(NAMES)}")
    kind, to_card, flow = NAMES[name]
    options = [option.partition("=")[::2] for option in filter(None, rest.split(","))]
    given = {key for key, _ in options}
    if {"card", "link"} <= given:
        raise ValueError(f"fault {text}: card and link exclude each other")
    chosen = {"card": 0.0, "at": 0.0, "for": 50.0, "skip": 0.0, "count": 1.0}
    if name == "silent":
        chosen["count"] = FOREVER
    for key, value in options:
        if key == "link":
            if value != "uplink":
                raise ValueError(f"fault {text}: link={value} must be uplink; or say card=N")
            continue
        if key not in chosen:
            known = ", ".join([*chosen, "link"])
            raise ValueError(f"fault {text}: {key} is unknown; known are {known}")
        try:
            chosen[key] = float(value)
        except ValueError:
            chosen[key] = math.nan
        whole = key in ("at", "for") or chosen[key] % 1 == 0
        if not (whole and 0 <= chosen[key] <= MOST_SAID):
            kind_of_number = "a number" if key in ("at", "for") else "a whole number"
            raise ValueError(
                f"fault {text}: {key}={value} must be {kind_of_number} from 0 to {MOST_SAID:.0e}"
            )
    return Fault(
        kind=kind,
        card=None if "link" in given else int(chosen["card"]),
        to_card=to_card,
        flow=flow,
        after_ns=1e3 * chosen["at"],
        skip=int(chosen["skip"]),
        count=int(chosen["count"]),
        for_ns=1e3 * chosen["for"] if kind in (FaultKind.DELAY, FaultKind.LINK_DOWN) else 0,
        text=text,
    )


class FaultRecord(ctypes.Structure):
    """`Fault` of sim/fabric/faults.hpp."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("kind", "link", "down", "flow", "after_fs", "skip", "count", "for_fs")
    )


def records(faults: Iterable[Fault], cards: int) -> list[FaultRecord]:
    """What the simulation takes; a link that goes down does so in both directions."""
    found = []
    for fault in faults:
        fault.check(cards)
        both = fault.kind is FaultKind.LINK_DOWN
        for down in (True, False) if both else (fault.to_card,):
            found.append(
                FaultRecord(
                    kind=fault.kind,
                    link=cards if fault.card is None else fault.card,
                    down=down,
                    flow=-1 if fault.flow is None else fault.flow,
                    after_fs=round(fault.after_ns * 1e6),
                    skip=fault.skip,
                    count=fault.count,
                    for_fs=round(fault.for_ns * 1e6),
                )
            )
    return found


@dataclass(frozen=True)
class FaultCounts:
    """What one direction of a link has been through.

    `injected` is `corrected` + `passed_on` when nothing is under way. LINK_DOWN strikes no packet:
    it shows in `lost`, the packets that a link that was down did not carry.
    """

    injected: int
    corrected: int
    passed_on: int
    naks: int
    replay_timeouts: int
    replayed: int
    duplicates: int
    retrains: int
    lost: int

    def __add__(self, other: "FaultCounts") -> "FaultCounts":
        return FaultCounts(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(FaultCounts))
        )
