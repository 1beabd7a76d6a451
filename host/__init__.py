"""Host software: the driver, the runtime, models, exploring and the command line."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host.driver.errors import CardError, CommandError, DataLost
    from host.runtime.card import Card, Table
    from host.runtime.runtime import Runtime, open

__all__ = ["Card", "CardError", "CommandError", "DataLost", "Runtime", "Table", "open"]

_HOMES = {
    "Card": "host.runtime.card",
    "CardError": "host.driver.errors",
    "CommandError": "host.driver.errors",
    "DataLost": "host.driver.errors",
    "Runtime": "host.runtime.runtime",
    "Table": "host.runtime.card",
    "open": "host.runtime.runtime",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used: every run of pytest loads this package."""
    if name not in _HOMES:
        raise AttributeError(f"module 'host' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
