"""Energy of what was counted: a model, by a table of published figures that anyone may replace."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PUBLISHED = Path(__file__).parent / "energy.toml"


class Cost(BaseModel):
    """What an action takes, where that was published, and of which process."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    picojoules: float = Field(ge=0)
    node: str
    source: str


class Table(BaseModel):
    """The cost of each action."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mac_int8: Cost
    pool_element: Cost
    scratchpad_byte: Cost
    dram_bit: Cost
    pcie_bit: Cost
    card_second: Cost


def load(path: Path | None = None) -> Table:
    """A table of costs, by default that of published figures.

    Raises `ValueError` naming file and field.
    """
    path = path or PUBLISHED
    try:
        return Table.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {place}: {first['msg']}") from None


def of(table: Table, actions: Mapping[str, float]) -> dict[str, float]:
    """Microjoules of so many actions of each name."""
    return {name: count * getattr(table, name).picojoules / 1e6 for name, count in actions.items()}
