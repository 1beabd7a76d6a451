"""What a study may vary: every parameter by one name, whichever part of the platform it is of."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from halfdome.hdl.config import PLATFORM_CARDS, CardConfig, ConfigError
from halfdome.host import arguments, platform
from halfdome.host.compiler.compile import MOST_IN_FLIGHT, sparse_cores
from halfdome.host.compiler.division import Parallelism
from halfdome.host.models.quantise import TABLE_ROWS
from halfdome.host.runtime.transfers import Transfers

Value = bool | int | str
TIMING, RTL = "timing", "native"
"""The engine without hardware, and the one whose cycles are those of hardware for certain."""

CARD = asdict(CardConfig())
FABRIC = platform.fabric_defaults()
TRANSFERS = asdict(Transfers())
DEFAULTS: dict[str, Value] = {
    "array": "16x16", **CARD, **FABRIC, "cards": PLATFORM_CARDS, **TRANSFERS,
    "in_flight": 2, "parallelism": "data", "cores_sparse": 0, "batch": 128, "table_bits": 8,
}  # fmt: skip
"""A value of each parameter, which tells its type; `array` is both sides of the array, as
ROWSxCOLUMNS."""
COMPILED = ("batch", "in_flight", "parallelism", "cores_sparse", *TRANSFERS)
"""What the compiler is told beside the card; the first four are by default as it finds best, but
for the batch of a recommender."""


@dataclass(frozen=True)
class Design:
    """A platform and how a model is brought to it.

    Attributes
    ----------
    card : CardConfig
    fabric : fields of the fabric that are not as by default
    cards : int
    transfers : Transfers
    in_flight : int, requests that are worked on at a time; None for the compiler's choice
    parallelism : str, what the cards divide; None for the compiler's choice
    cores_sparse : int, cores of each that pool embedding bags alone; None for the compiler's choice
    batch : int, samples of a request; None for what the workload has by default
    table_bits : int, of an element of an embedding table
    engine : str, that measures it
    computes : bool, whether values are computed, and held against the golden model
    """

    card: CardConfig
    fabric: Mapping[str, int | bool]
    cards: int
    transfers: Transfers
    in_flight: int | None
    parallelism: str | None
    cores_sparse: int | None
    batch: int | None
    table_bits: int
    engine: str
    computes: bool


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: those that are like it, or all."""
    names = list(known)
    close = get_close_matches(name, names, cutoff=0.5)
    return f"nearest are {', '.join(close)}" if close else f"known are {', '.join(names)}"


def check_name(name: str) -> None:
    """Raises `ConfigError` for what is no parameter."""
    if name not in DEFAULTS:
        raise ConfigError(f"{name}: no such parameter; {nearest(name, DEFAULTS)}")


def check_type(name: str, value: object) -> Value:
    """The value, if it is of the parameter's type. Raises `ConfigError` otherwise."""
    kind = type(DEFAULTS[name])
    if type(value) is not kind:
        words = {int: "a whole number", bool: "true or false", str: "a text"}
        raise ConfigError(f"{name}={value!r}: must be {words[kind]}")
    return value  # type: ignore[return-value]


def parse(setting: str) -> tuple[str, list[Value]]:
    """Name and values of `FIELD=VALUE,VALUE,…`, as `--set` takes it. Raises `ConfigError`."""
    name, _, text = setting.partition("=")
    if not text:
        raise ConfigError(f"--set {setting}: must be FIELD=VALUE,VALUE,…")
    check_name(name)
    return name, [_parsed(name, each) for each in text.split(",")]


def _parsed(name: str, text: str) -> Value:
    default = DEFAULTS[name]
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return check_type(name, {"true": True, "false": False}.get(text, text))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text}: must be a whole number") from None


def design(
    base: CardConfig, values: Mapping[str, Value], engine: str, computes: bool = True
) -> Design:  # fmt: skip
    """The design of some values, all else as `base` and the defaults have it.

    Raises `ValueError` that names field, value and rule, as opening the platform would.
    """

    card, fabric = base.replace(**of_card(values)), _known(values, FABRIC)
    platform.fabric(**fabric)
    cards = values.get("cards", PLATFORM_CARDS)
    platform.check(card, cards, engine)  # type: ignore[arg-type]
    in_flight, parallelism = values.get("in_flight"), values.get("parallelism")
    if in_flight is not None:
        in_flight = arguments.integer("in_flight", in_flight, 1, MOST_IN_FLIGHT)
    if parallelism is not None:
        parallelism = arguments.choice("parallelism", parallelism, Parallelism).value
    cores_sparse = values.get("cores_sparse")
    if cores_sparse is not None:
        cores_sparse = sparse_cores(int(cores_sparse), range(card.cores))
    batch = values.get("batch")
    if batch is not None:
        batch = arguments.integer("batch", batch, 1)
    table_bits = int(values.get("table_bits", DEFAULTS["table_bits"]))
    if table_bits not in TABLE_ROWS:
        raise ConfigError(f"table_bits={table_bits}: must be {' or '.join(map(str, TABLE_ROWS))}")
    transfers = Transfers(**_known(values, TRANSFERS))
    return Design(
        card, fabric, int(cards), transfers, in_flight, parallelism, cores_sparse, batch,
        table_bits, engine, computes,
    )  # fmt: skip


def _known(values: Mapping[str, Value], known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in known}


def of_card(values: Mapping[str, Value]) -> dict[str, Any]:
    """The fields of the card among some values. Raises `ConfigError` for a bad `array`."""
    fields = _known(values, CARD)
    if "array" not in values:
        return fields
    if {"array_rows", "array_columns"} & values.keys():
        raise ConfigError("array: sets array_rows and array_columns too, give one or other")
    rows, _, columns = str(values["array"]).partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise ConfigError(f"array={values['array']}: must be ROWSxCOLUMNS, like 16x16")
    return fields | {"array_rows": int(rows), "array_columns": int(columns)}


def name_of(values: Mapping[str, Value]) -> str:
    """A point for people, in the words of `--set`."""
    return " ".join(f"{name}={_text(value)}" for name, value in values.items())


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


GROUPS = (
    {field.name for field in fields(CardConfig)}, set(FABRIC), set(TRANSFERS),
    {"array", "cards", "in_flight", "parallelism", "cores_sparse", "batch", "table_bits"},
)  # fmt: skip
"""The names of each part; no two have one in common."""
