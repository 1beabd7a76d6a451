"""An open, cycle-accurate model of a six-card inference accelerator platform.

`halfdome.open` opens a platform, `halfdome.InferenceSession` a model on one; `halfdome.compile`
compiles a model, `halfdome.compare` holds it against ONNX Runtime. `halfdome.hdl` is the card,
`halfdome.sim` what surrounds it so that it runs, `halfdome.host` the software of the host
processor.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halfdome.host.driver.errors import CardError, CommandError, DataLost
    from halfdome.host.frontend.compile import compile
    from halfdome.host.frontend.plan import Plan
    from halfdome.host.platform import Runtime, open
    from halfdome.host.runtime.card import Card, Table
    from halfdome.host.serving.compare import compare
    from halfdome.host.serving.session import InferenceSession

__all__ = [
    "Card",
    "CardError",
    "CommandError",
    "DataLost",
    "InferenceSession",
    "Plan",
    "Runtime",
    "Table",
    "compare",
    "compile",
    "open",
]

_HOMES = {
    "Card": "halfdome.host.runtime.card",
    "CardError": "halfdome.host.driver.errors",
    "CommandError": "halfdome.host.driver.errors",
    "DataLost": "halfdome.host.driver.errors",
    "InferenceSession": "halfdome.host.serving.session",
    "Plan": "halfdome.host.frontend.plan",
    "Runtime": "halfdome.host.platform",
    "Table": "halfdome.host.runtime.card",
    "compare": "halfdome.host.serving.compare",
    "compile": "halfdome.host.frontend.compile",
    "open": "halfdome.host.platform",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used: every run of pytest loads this package."""
    if name == "__version__":
        return metadata.version("halfdome")
    if name not in _HOMES:
        raise AttributeError(f"module 'halfdome' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
