"""A card without hardware, as the world takes it: its parameters, and what its commands mean.

What commands compute is `halfdome.sim.golden`, called when a command ends, or its twin in
`sim/timing/values`.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import NoReturn

import numpy as np

from halfdome.hdl.commands import Flag, Opcode, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, fields, unpack
from halfdome.sim.build.compiler import SIM, library
from halfdome.sim.fabric.host_memory import lazy_bytes
from halfdome.sim.golden.card import GoldenCard
from halfdome.sim.golden.check import check
from halfdome.sim.timing.header import header, parameter_array
from halfdome.sim.timing.left_out import ValuesLeftOut

VALUES = ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-ffp-contract=off")
"""Flags for values: every operation rounds, and loops over elements become vectors."""
_FAILED = (1 << 64) - 1
_CHECK = ctypes.CFUNCTYPE(
    ctypes.c_uint64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
)
_EXECUTE = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


class SemanticsCalls(ctypes.Structure):
    """`SemanticsCalls` of sim/timing/timing_card.hpp."""

    _fields_ = (("check", _CHECK), ("execute", _EXECUTE))


class _Settings(ctypes.Structure):
    """`TimingSettings` of sim/timing/timing.cpp."""

    _fields_ = (
        ("parameters", ctypes.c_void_p),
        ("memory", ctypes.c_void_p),
        ("left_out", ctypes.c_void_p),
        ("calls", SemanticsCalls),
    )


class CardMaker(ctypes.Structure):
    """`CardMaker` of sim/kernel/world.hpp."""

    _fields_ = (("make", ctypes.c_void_p), ("context", ctypes.c_void_p))


@cache
def _load_library() -> ctypes.CDLL:
    """The compiled timing card; the first call on a machine compiles it."""
    source = SIM / "timing" / "timing.cpp"
    built = library(source, "timing", flags=VALUES, generated={"card.hpp": header()})
    return ctypes.CDLL(str(built))


class _Link:
    """The host of a card whose moves over PCIe are packets."""

    def read(self, address: int, nbytes: int) -> bytes:
        raise AssertionError(f"read of {nbytes} bytes at {address:#x}: not by packets")

    def write(self, address: int, data: bytes) -> None:
        raise AssertionError(f"write of {len(data)} bytes at {address:#x}: not by packets")


class TimingModel:
    """One card.

    Parameters
    ----------
    config : CardConfig
    memory : uint8[window_bytes], card memory by card address
    values : bool, whether commands compute; without, memory holds what was moved there

    Attributes
    ----------
    left_out : uint8[window_bytes], not 0 where memory lacks what a command would have written;
        None if commands compute
    maker : what a world makes the card with, while the model lives
    error : what a command raised, which ends the simulation
    """

    def __init__(self, config: CardConfig, memory: np.ndarray, values: bool):
        self._config = config
        self._golden = GoldenCard(config, _Link(), memory)
        self._parameters = parameter_array(config)
        calls = SemanticsCalls(_CHECK(self._check), _EXECUTE(self._execute))
        self._calls = calls
        self.left_out = None if values else lazy_bytes(config.window_bytes)
        self._settings = _Settings(
            ctypes.addressof(self._parameters), memory.ctypes.data,
            None if self.left_out is None else self.left_out.ctypes.data, calls,
        )  # fmt: skip
        make = ctypes.cast(_load_library().timing_card, ctypes.c_void_p)
        self.maker = CardMaker(make, ctypes.addressof(self._settings))
        self.error: BaseException | None = None

    def close(self) -> None:
        """Gives up nothing: memory belongs to the caller."""

    def _check(self, _card: int, core: int, descriptor: int, extension: int | None) -> int:
        def verdict() -> tuple[Status, int]:
            raw = ctypes.string_at(descriptor, DESCRIPTOR_BYTES)
            if extension:
                raw += ctypes.string_at(extension, DESCRIPTOR_BYTES)
            return check(raw, self._config, core)

        return self._called(verdict)

    def _execute(self, _card: int, core: int, descriptor: int) -> int:
        raw = ctypes.string_at(descriptor, DESCRIPTOR_BYTES)
        if self.left_out is not None:
            return self._called(lambda: self._refuse(raw))
        return self._called(lambda: self._golden.perform(raw))

    def _refuse(self, raw: bytes) -> NoReturn:
        """Raises `ValuesLeftOut` for a GATHER of lengths or indices that are left out."""
        values = unpack(fields(Opcode.GATHER), raw)
        size = 8 if values["flags"] & Flag.WIDE else 4
        arrays = {"lengths": values["bags"], "indices": values["index_count"]}
        for name, count in arrays.items():
            missing = self.left_out[values[name] :][: count * size]  # type: ignore[index]
            if missing.any():
                raise ValuesLeftOut(
                    f"GATHER: {name}[{int(missing.argmax()) // size}] was not computed, as the "
                    "platform was opened with values=False; move it to the card, or open the "
                    "platform without that option"
                )
        raise AssertionError("called for a command that misses nothing")

    def _called(self, function: Callable[[], tuple[Status, int]]) -> int:
        try:
            status, detail = function()
        except BaseException as error:  # raised again by `World.run`
            self.error = error
            return _FAILED
        return status | detail << 8


def models(config: CardConfig, memories: list[np.ndarray], values: bool) -> list[TimingModel]:
    """A card for each memory. Raises `ConfigError` for a configuration without DRAM."""
    config.need_dram()
    return [TimingModel(config, memory, values) for memory in memories]
