"""Host software: the driver, the runtime, models, exploring and the command line."""

from host.driver.errors import CardError, CommandError
from host.runtime.card import Card, Table
from host.runtime.runtime import Runtime, open

__all__ = ["Card", "CardError", "CommandError", "Runtime", "Table", "open"]
