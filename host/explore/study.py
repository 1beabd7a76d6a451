"""A study: which designs are tried, on what work, and what is wanted of them; a file in TOML."""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from halfdome.hdl.config import ConfigError, preset
from halfdome.host import platform
from halfdome.host.explore import energy as energies
from halfdome.host.explore.metrics import METRICS, OF_BOUND
from halfdome.host.explore.parameters import (
    COMPILED,
    RTL,
    TIMING,
    Design,
    Value,
    check_name,
    check_type,
    design,
    name_of,
    nearest,
)

VERSION = 1
"""Rises when the meaning of what a file says changes."""
MOST_LISTED = 10_000
"""Combinations up to which all are looked at before any runs."""

Positive = Annotated[int, Field(ge=1)]


def _beside(value: object, info: ValidationInfo) -> object:
    """A path is from the folder of the study's file."""
    return (info.context or Path()) / value if isinstance(value, str) else value


File = Annotated[Path, BeforeValidator(_beside)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Demo(_Strict):
    """The model of `halfdome run dlrm`, on held-out interactions of MovieLens-100K."""

    kind: Literal["demo"] = "demo"
    samples: Positive = 256
    data: File | None = None
    weights: File | None = None


class Recommender(_Strict):
    """Embedding tables and two nets with random weights: a published shape, or one's own.

    `shape` gives all that is not given. Every table has `dim` elements a row, of 8 bits each or of
    the parameter `table_bits`, and bags of `pooling` rows; `rows_scale` of its rows are there.
    """

    kind: Literal["recommender"]
    shape: Literal["RM1", "RM2", "RM3"] | None = None
    tables: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] | None = None
    dim: Positive | None = None
    pooling: Positive | None = None
    bottom: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] | None = None
    top: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    interaction: Literal["cat", "dot"] = "cat"
    reuse: Literal["uniform", "production"] = "production"
    rows_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    requests: Annotated[int, Field(ge=1)] = 8
    seed: Annotated[int, Field(ge=0)] = 0


class Model(_Strict):
    """An ONNX, .pt2 or .halfdome file, and requests for it; see `halfdome run`."""

    kind: Literal["model"]
    path: File
    requests: File
    calibration: File | None = None
    shapes: dict[str, Annotated[tuple[Positive, ...], Field(strict=False)]] = {}

    @property
    def is_compiled(self) -> bool:
        """Whether what the compiler decides is decided."""
        from halfdome.host.frontend.plan import SUFFIX

        return self.path.suffix == SUFFIX


class Search(_Strict):
    """How points are chosen. `points` is how many; a grid has all combinations. With `prune` those
    are not measured of which a bound says that another point beats them."""

    method: Literal["grid", "random", "tpe", "nsga2"] = "grid"
    points: Positive = 32
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    prune: bool = False


class Arrivals(_Strict):
    """Requests that come at random: how long 99 % of them may take, how many are drawn."""

    p99_us: Annotated[float, Field(gt=0, strict=False)]
    requests: Annotated[int, Field(ge=10_000)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0


class Host(_Strict):
    """The processor that a model is compared with: the power that its maker states."""

    tdp_w: Annotated[float, Field(gt=0, strict=False)]


class Rtl(_Strict):
    """How long a card that is to be measured on the RTL may take to compile."""

    build_s: Annotated[float, Field(gt=0, strict=False)] = 600.0


class Guidance(_Strict):
    """What a study says to who designs: `along` is the parameter along the rows of its table, the
    other varied parameters lie down its side."""

    title: str
    question: str
    along: str
    metric: str = "samples_per_second"


class Bound(_Strict):
    """What a metric must be at least, or at most."""

    least: Annotated[float, Field(strict=False)] | None = None
    most: Annotated[float, Field(strict=False)] | None = None


class Study(_Strict):
    """What a study's file says. Without `values` points are measured by cycles alone."""

    version: int
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "explore"
    config: str = "default"
    engine: str = TIMING
    values: bool = True
    workload: Annotated[Demo | Recommender | Model, Field(discriminator="kind")] = Demo()
    parameters: dict[str, tuple[Value, ...]] = {}
    objectives: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = (
        "samples_per_second", "area_lut4_equivalents",
    )  # fmt: skip
    constraints: dict[str, Bound] = {}
    arrivals: Arrivals | None = None
    host: Host | None = None
    rtl: Rtl | None = None
    search: Search = Search()
    energy: File | None = None
    guidance: Guidance | None = None

    @field_validator("config")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        preset(value)
        return value

    @field_validator("parameters", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One value is a list of one; each is of its parameter's type and comes once."""
        if not isinstance(value, Mapping):
            return value
        found = {}
        for name, given in value.items():
            check_name(name)
            values = tuple(given) if isinstance(given, list | tuple) else (given,)
            if not values:
                raise ConfigError(f"{name}: has no values, give one or more")
            for place, each in enumerate(values):
                if check_type(name, each) in values[:place]:
                    raise ConfigError(f"{name}={each}: the value is given twice")
            found[name] = values
        return found

    @field_validator("objectives", "constraints")
    @classmethod
    def _known_metrics(cls, value: Any) -> Any:
        for name in value:
            if name not in METRICS:
                raise ValueError(f"{name}: no such metric; {nearest(name, METRICS)}")
        return value

    def model_post_init(self, _: Any) -> None:
        """Raises `ValueError` for parts that do not fit each other."""
        if not self.values and self.engine != TIMING:
            raise ValueError(f"values=False: needs engine={TIMING!r}, {self.engine!r} computes")
        wanted = [*self.objectives, *self.constraints]
        if self.guidance is not None:
            wanted.append(self.guidance.metric)
            if self.search.prune:
                raise ValueError("search.prune: a page of guidance has all points, leave it out")
            if len(self.parameters.get(self.guidance.along, ())) < 2:
                raise ValueError(f"guidance.along={self.guidance.along!r}: must be varied")
        if self.arrivals is None:
            for name in wanted:
                if name in OF_BOUND:
                    raise ValueError(f"{name}: needs the bound on the latency, [arrivals] p99_us")
        if isinstance(self.workload, Model) and self.workload.is_compiled:
            for name in COMPILED:
                if name in self.parameters:
                    raise ValueError(
                        f"{name}: is compiled into {self.workload.path}: give what it was made from"
                    )
        if self.host is not None and not (
            isinstance(self.workload, Model) and not self.workload.is_compiled
        ):
            raise ValueError("host: needs the workload model, of a file that is not compiled")
        if not isinstance(self.workload, Recommender) and "table_bits" in self.parameters:
            raise ValueError("table_bits: is of the workload recommender alone")

    @property
    def size(self) -> int:
        """Combinations of all values."""
        return prod(map(len, self.parameters.values()))

    def alone(self, values: Mapping[str, Value]) -> "Study":
        """The study of one point."""
        return self._changed(
            name=f"{self.name}-alone", parameters={name: (each,) for name, each in values.items()}
        )

    def computing(self) -> "Study":
        """The study of the same points with values: itself, if it has them."""
        if self.values:
            return self
        return self._changed(name=f"{self.name}-values", values=True, search=Search())

    def on_rtl(self) -> "Study":
        """The study of the same points on the RTL."""
        return self._changed(
            name=f"{self.name}-rtl", engine=RTL, values=True, search=Search(), rtl=self.rtl or Rtl()
        )

    def _changed(self, **fields: Any) -> "Study":
        return Study.model_validate(self.model_dump() | fields)

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Every combination of the values, the last parameter changing fastest."""
        for chosen in itertools.product(*self.parameters.values()):
            yield dict(zip(self.parameters, chosen, strict=True))

    def design(self, values: Mapping[str, Value]) -> Design:
        """The platform of a point. Raises `ValueError` that says why there is none."""
        return design(preset(self.config), values, self.engine, self.values)

    def check(self) -> None:
        """Raises `ConfigError` for a value with which no combination is a platform."""
        if self.size > MOST_LISTED:
            return
        fitting: dict[str, set[Value]] = {name: set() for name in self.parameters}
        reasons: dict[tuple[str, Value], str] = {}
        for values in self.combinations():
            try:
                self.design(values)
            except ValueError as error:
                for each in values.items():
                    reasons.setdefault(each, str(error))
            else:
                for name, value in values.items():
                    fitting[name].add(value)
        for name, values in self.parameters.items():
            for value in values:
                if value not in fitting[name]:
                    raise ConfigError(
                        f"{name}={value}: fits no combination: {reasons[name, value]}"
                    )

    def point_name(self, values: Mapping[str, Value]) -> str:
        """What a point has that others have not, in the words of `--set`."""
        varied = {name: value for name, value in values.items() if len(self.parameters[name]) > 1}
        return name_of(varied) or "as it is"

    @cached_property
    def action_costs(self) -> energies.Table:
        """The table of energies. Raises `ValueError` for one that is none."""
        return energies.load(self.energy)

    @cached_property
    def hash(self) -> str:
        """Of all that results depend on, what named files hold and the sources of the card and of
        what simulates it too. A longer search is the same study."""
        words = {"search": {"points"}, "guidance": True, "host": True}
        if self.engine != RTL:
            words["rtl"] = True
        said = [self.model_dump_json(exclude=words), platform.fingerprint()]
        return _digest(*said, *_contents(self.energy), *self._work())[:16]

    def seen_by_cards(self, design: Design) -> str:
        """Stands for all that decides what cards do at a point: two studies that tell alike differ
        in what is made of it."""
        told = json.dumps(asdict(design), sort_keys=True)
        at_random = self.arrivals is not None
        return _digest(f"{told} {at_random} {platform.fingerprint()}", *self._work())

    def _work(self) -> list[str]:
        """The workload, and what its files hold."""
        found = [self.workload.model_dump_json()]
        for each in vars(self.workload).values():
            found += _contents(each) if isinstance(each, Path) else ()
        return found


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _contents(path: Path | None) -> list[str]:
    """A digest of each file that is there, or in that folder."""
    if path is None:
        return []
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]


def read(path: Path) -> dict[str, Any]:
    """What a file says. Raises `ValueError` for one that is missing or no TOML."""
    try:
        said = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no TOML: {error}") from None
    return {"name": path.stem} | said


def checked(said: Mapping[str, Any], where: str, folder: Path) -> Study:
    """A study of what `where` says, whose paths are from `folder`.

    Raises `ValueError` naming field, value and what it may be.
    """
    version = said.get("version", VERSION)
    if version != VERSION:
        raise ValueError(
            f"{where}: version={version!r}: is of another release; this one reads version {VERSION}"
        )
    try:
        return Study.model_validate(said, context=folder)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {_told(each)}" for each in error.errors())) from None


_NAMES: dict[str, type[BaseModel]] = {
    "demo": Demo, "recommender": Recommender, "model": Model, "search": Search,
    "arrivals": Arrivals, "constraints": Bound, "guidance": Guidance,
    "host": Host, "rtl": Rtl,
}  # fmt: skip


def _told(error: Any) -> str:
    """One fault of a file: field, value, and what it may be."""
    place = [str(each) for each in error["loc"]]
    if error["type"] == "extra_forbidden":
        owner = next((_NAMES[each] for each in reversed(place[:-1]) if each in _NAMES), Study)
        return f"{'.'.join(place)}: no such field; {nearest(place[-1], owner.model_fields)}"
    field = ".".join(each for each in place if each not in ("demo", "recommender", "model"))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{field}: {message}" if field else message
    value = "" if error["type"] == "missing" else f"={error['input']!r}"
    return f"{field}{value}: {message[0].lower()}{message[1:]}"
