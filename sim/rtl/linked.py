"""A component whose equal units are compiled once, by themselves, and joined by pins."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from amaranth.lib import wiring

from halfdome.sim.build.compiler import SIM, library
from halfdome.sim.rtl import native
from halfdome.sim.rtl.native import NativeModel
from halfdome.sim.rtl.ports import CardModel, Idle
from halfdome.sim.waves import Waves

_UNSETTLED = "the pins between a card's parts do not settle: a loop through them is combinational"
_IDLE_FUNCTIONS = ("linked_remember", "linked_repeated", "linked_advance")


class _Wire(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
        ("bytes", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Parts:
    """A component in parts: `shell` and `count` times `unit`.

    The shell has an array of the other side of each member of the unit, with an item for each of
    the units. Its other ports are those of the component.
    """

    shell: Callable[[], wiring.Component]
    unit: Callable[[], wiring.Component]
    count: int


@cache
def _load_library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library(SIM / "rtl" / "linked.cpp", "linked")))
    handle, array = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_size_t)
    lib.linked_create.restype, lib.linked_create.argtypes = handle, (ctypes.c_void_p,)
    lib.linked_destroy.restype, lib.linked_destroy.argtypes = None, (handle,)
    lib.linked_add.restype = None
    lib.linked_add.argtypes = (handle, ctypes.c_void_p, *array, *array)
    lib.linked_settled.restype, lib.linked_settled.argtypes = ctypes.c_int, (handle,)
    lib.linked_run.restype, lib.linked_run.argtypes = None, (handle, ctypes.c_int64)
    return lib


def _card_model(model: NativeModel) -> CardModel:
    return CardModel(model.context, model.settle, model.edge, *(model.idle or ()))


class LinkedModel:
    """One instance of a component in parts, ready to join a world."""

    def __init__(self, shell: Path, unit: Path, count: int):
        self._lib = _load_library()
        self._shell = NativeModel(shell)
        self._units = [NativeModel(unit) for _ in range(count)]
        self.context = self._lib.linked_create(ctypes.byref(_card_model(self._shell)))
        self.pins = dict(self._shell.pins)
        for index, each in enumerate(self._units):
            self._join(each, index)
        self.ports = [port for port in self._shell.ports if port.name in self.pins]
        self.settle = self._address("linked_settle")
        self.edge = self._address("linked_edge")
        idle = self._shell.idle
        self.idle = idle and Idle(*map(self._address, _IDLE_FUNCTIONS), idle.period_cycles)

    def _join(self, unit: NativeModel, index: int) -> None:
        inputs, outputs = [], []
        for port in unit.ports:
            member, *path = port.name.split("__")
            outside = self.pins.pop("__".join((member, str(index), *path)))
            inside = unit.pins[port.name]
            source, target = (outside, inside) if port.is_input else (inside, outside)
            wire = _Wire(source.data, target.data, port.storage_bytes)
            (inputs if port.is_input else outputs).append(wire)
        self._lib.linked_add(
            self.context, ctypes.byref(_card_model(unit)),
            (_Wire * len(inputs))(*inputs), len(inputs),
            (_Wire * len(outputs))(*outputs), len(outputs),
        )  # fmt: skip

    @property
    def error(self) -> RuntimeError | None:
        """Why the model stopped a world, if it did."""
        return None if self._lib.linked_settled(self.context) else RuntimeError(_UNSETTLED)

    def _address(self, function: str) -> int:
        return ctypes.cast(getattr(self._lib, function), ctypes.c_void_p).value or 0

    def run(self, cycles: int) -> None:
        """Steps the model alone, its inputs as they are: what a compiled model costs bare."""
        self._lib.linked_run(self.context, cycles)

    def close(self) -> None:
        """Frees the model; no world may use it any more."""
        if self.context:
            self._lib.linked_destroy(self.context)
            self.context = None
            for model in (self._shell, *self._units):
                model.close()


def models(
    make: Callable[[], wiring.Component],
    count: int,
    *,
    parts: Parts,
    fingerprint: str | None = None,
    name: str = "a component",
    waves: Waves | None = None,
) -> list[LinkedModel | NativeModel]:
    """`count` instances of the component that `make` returns, in its `parts`, each compiled once.

    The card of `waves` is compiled as a whole.
    """
    traced = waves.card if waves is not None else None

    def build(part: str) -> Path:
        known = fingerprint and f"{fingerprint}\n{part}"
        return native.build(getattr(parts, part), fingerprint=known, name=f"{name}, {part}")

    folders = [build("shell"), build("unit")] if count > (traced is not None) else []
    made: list[LinkedModel | NativeModel] = []
    for index in range(count):
        if index == traced:
            folder = native.build(make, fingerprint=fingerprint, traced=True, name=name)
            made.append(NativeModel(folder, waves))
        else:
            made.append(LinkedModel(*folders, parts.count))
    return made
