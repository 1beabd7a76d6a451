"""Cards of hardware, as each engine makes them."""

from collections.abc import Callable
from functools import partial

from amaranth.lib import wiring

from halfdome.hdl.config import PRESETS, CardConfig
from halfdome.sim.build.fingerprint import hdl_fingerprint
from halfdome.sim.rtl import linked, native, pysim

HARDWARE = {"native": native.models, "pysim": pysim.models}
"""Functions that make cards of hardware, by the name of their engine."""

CardFactory = Callable[[CardConfig], wiring.Component]


def maker(engine: str, config: CardConfig, factory: CardFactory | None) -> Callable:
    """The function that makes so many cards, one of which may write `waves`.

    Cards of several cores are compiled in parts: a core once, whatever their number.
    """
    make, name = HARDWARE[engine], _name(config)
    if factory is not None:
        return partial(make, lambda: factory(config), name=name)
    if engine == "native" and config.cores > 1:
        parts = linked.Parts(partial(_uncore, config), partial(_core, config), config.cores)
        make = partial(linked.models, parts=parts)
    fingerprint = f"{hdl_fingerprint()}\n{config.as_json()}"
    return partial(make, partial(_card, config), fingerprint=fingerprint, name=name)


def _card(config: CardConfig) -> wiring.Component:
    from halfdome.hdl.card import Card

    return Card(config)


def _uncore(config: CardConfig) -> wiring.Component:
    from halfdome.hdl.uncore import Uncore

    return Uncore(config)


def _core(config: CardConfig) -> wiring.Component:
    from halfdome.hdl.core import Core

    return Core(config)


def _name(config: CardConfig) -> str:
    """What a person calls a card of this configuration."""
    preset = next((name for name, known in PRESETS.items() if known == config), config.hash)
    return f"card {preset}"
