"""Cards of hardware, as each engine makes them."""

import subprocess
import sys
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


_ALONE = """
import json, os, signal, sys, threading
def end():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=end, daemon=True).start()
from halfdome.hdl.config import CardConfig
from halfdome.sim.rtl.cards import maker
maker("native", CardConfig(**json.loads(sys.argv[1])), None)(1)
"""
"""Compiles a card; ends, with the compilers that it started, when nobody holds its input."""


def compiled_within(config: CardConfig, seconds: float) -> bool:
    """Compiles a card for the engine `native`, unless the cache has it; whether that ended in time.

    Whatever else goes wrong is left for who opens the card to tell.
    """
    command = (sys.executable, "-c", _ALONE, config.as_json())
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
    return True


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
