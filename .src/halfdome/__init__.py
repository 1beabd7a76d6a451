"""An open, cycle-accurate model of a six-card inference accelerator platform.

`halfdome.open` opens a platform. `halfdome.hdl` is the card, `halfdome.sim` what surrounds it so
that it runs, `halfdome.host` the software of the host processor.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halfdome.host.driver.errors import CardError, CommandError, DataLost
    from halfdome.host.platform import Runtime, open
    from halfdome.host.runtime.card import Card, Table

__all__ = ["Card", "CardError", "CommandError", "DataLost", "Runtime", "Table", "open"]

_HOMES = {
    "Card": "halfdome.host.runtime.card",
    "CardError": "halfdome.host.driver.errors",
    "CommandError": "halfdome.host.driver.errors",
    "DataLost": "halfdome.host.driver.errors",
    "Runtime": "halfdome.host.platform",
    "Table": "halfdome.host.runtime.card",
    "open": "halfdome.host.platform",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used: every run of pytest loads this package."""
    if name not in _HOMES:
        raise AttributeError(f"module 'halfdome' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
