"""Points of a study, measured on the RTL as well: what their engine says of them, and its error.

A card that is not compiled in the time that the study allows is stood for by a smaller one, whose
engines, memories and rules are the same: what is compared is then that card on both engines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from halfdome.hdl.config import ConfigError
from halfdome.host.explore.metrics import TIMED
from halfdome.host.explore.parameters import TIMING, Value, name_of
from halfdome.host.explore.search import Point, Results, only, run
from halfdome.host.explore.study import Study
from halfdome.host.explore.workers import Workers

HALVED = ("array_rows", "array_columns", "lanes", "bus_bytes")
"""What a smaller card has half of, all together, so that they keep their ratios; of cores it has
half as many, too, and one at the least."""
_CYCLES = ("latency_cycles", "interval_cycles")


@dataclass(frozen=True)
class OnRtl:
    """A point of a study on the RTL.

    Attributes
    ----------
    point : Point, of the study
    timed : Point, what the study's engine says, with values, of the card that was compared: of the
        point itself, or of a smaller one
    rtl : Point, the same on the RTL, without a row if nothing could be compared
    why : str, why a smaller card stands for the point, or none does; else empty
    """

    point: Point
    timed: Point
    rtl: Point
    why: str = ""

    @property
    def times(self) -> dict[str, float]:
        """The `TIMED` metrics on the RTL."""
        return {name: self.rtl.row[name] for name in TIMED if name in self.rtl.row}

    @property
    def error(self) -> dict[str, float]:
        """By how many percent of these the study's engine differs."""
        return {
            name: 100 * (self.timed.row[name] - each) / (each or 1)
            for name, each in self.times.items()
        }

    @property
    def cycles_off(self) -> int:
        """The most by which a request's latency or interval differs, in cycles."""
        return round(max(
            abs(one - other) for name in _CYCLES if name in self.rtl.row
            for one, other in zip(self.timed.row[name], self.rtl.row[name], strict=True)
        ))  # fmt: skip

    @property
    def scaled_to(self) -> str:
        """The fields of the smaller card that stands for the point; empty if itself does."""
        changed = {
            name: value for name, value in self.timed.values.items()
            if self.point.values.get(name) != value
        }  # fmt: skip
        return name_of(changed)

    @property
    def told(self) -> str:
        """What a reader must know of it: empty if the point itself was compared."""
        if not self.why:
            return ""
        said = f"point {self.point.number}: not on the RTL itself: {self.why}"
        if not self.rtl.row:
            return said
        return (
            f"{said}; checked on a card scaled to {self.scaled_to}: error {self.cycles_off} cycles"
        )

    @property
    def as_dict(self) -> dict[str, Any]:
        """As plain data, units in the names."""
        errors = {f"{name}_error_percent": error for name, error in self.error.items()}
        said = {"point": self.point.number, "scaled_to": self.scaled_to, "why": self.why}
        return said | self.times | errors


def check(
    study: Study, points: Iterable[Point], storage: str, by: Workers,
    told: Callable[[Point], None] = lambda point: None,
) -> list[OnRtl]:  # fmt: skip
    """Those of the points that the engine `timing` measured, on the RTL: measured, unless the
    storage has them. Without values they are measured again with them on that engine, too: cards
    that are brought weights begin at another time of their DRAM's refreshes."""
    chosen = [point for point in points if point.row.get("engine") == TIMING]
    if not chosen:
        return []
    computing = study.computing()
    timed = chosen if study.values else _measured(computing, chosen, storage, by)
    rtl = _measured(study.on_rtl(), chosen, storage, by, told)
    return [
        OnRtl(point, own, compared) if compared.row
        else _smaller(computing, point, own, compared, storage, by)
        for point, own, compared in zip(chosen, timed, rtl, strict=True)
    ]  # fmt: skip


def _measured(
    study: Study, points: Iterable[Point], storage: str, by: Workers,
    told: Callable[[Point], None] = lambda point: None,
) -> list[Point]:  # fmt: skip
    """What another study says of these points."""
    results, wanted = Results(study, storage), [dict(point.values) for point in points]
    run(study, results, by, told, wanted)
    found = {_key(point.values): point for point in results.points}
    return [found[_key(values)] for values in wanted]


def _key(values: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))


def _smaller(
    study: Study, point: Point, own: Point, rtl: Point, storage: str, by: Workers
) -> OnRtl:  # fmt: skip
    """The largest of the smaller cards that could be compared, in the place of a point."""
    for values in scaled(study, point.values):
        single = study.alone(values)
        timed = only(single, storage, by)
        compared = only(single.on_rtl(), storage, by)
        if timed.row and compared.row:
            return OnRtl(point, timed, compared, rtl.why)
    return OnRtl(point, own, rtl, rtl.why)


def scaled(study: Study, values: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
    """The values of a point with smaller cards, each half as large as the one before, while the
    rules of a card allow it."""
    values = dict(values)
    while True:
        card = study.design(values).card
        values.pop("array", None)
        values |= {name: getattr(card, name) // 2 for name in HALVED}
        if card.cores > 1:
            values["cores"] = card.cores // 2
            if sparse := values.get("cores_sparse"):
                values["cores_sparse"] = min(int(sparse) // 2, card.cores // 2 - 1)
        try:
            study.design(values)
        except ConfigError:
            return
        yield dict(values)
