"""Lines of a trace against the DRAM alone: what a card with this DRAM can hope for."""

import ctypes
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halfdome.hdl.config import LINE_BYTES, CardConfig
from halfdome.sim.build.compiler import SIM, library
from halfdome.sim.dram import presets

COMMANDS = ("ACTIVATE", "PRECHARGE", "READ", "WRITE", "REFRESH")
"""Names of the kinds in a log; a refresh is of one bank."""
COMMAND = np.dtype(
    [(name, np.int64) for name in ("clock", "kind", "bank", "row", "column", "auto_precharge")]
)
"""A command: `clock` is its first, `row` of a precharge the one it closes, `auto_precharge` whether
a read or write closes its row."""


@dataclass(frozen=True)
class Replay:
    """What became of a trace.

    `done` is int64[n], the DRAM clock at which each line had arrived, of a write when it was
    queued; `commands` is for each channel what its command bus carried, `COMMAND[m]` in clock
    order, empty unless asked for.
    """

    done: NDArray[np.int64]
    commands: list[NDArray]


@cache
def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library(SIM / "dram" / "replay.cpp", "dram-replay")))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    lib.dram_replay.argtypes = (*[pointer] * 4, size, ctypes.c_int, pointer)
    lib.dram_replay.restype = pointer
    lib.dram_replay_log.argtypes = (pointer, size, pointer)
    lib.dram_replay_log.restype = size
    lib.dram_replay_free.argtypes = (pointer,)
    lib.dram_replay_free.restype = None
    return lib


def replay(
    config: CardConfig,
    addresses: ArrayLike,
    *,
    arrivals: ArrayLike = 0,
    writes: ArrayLike = False,
    log: bool = False,
    timing: dict[str, int] | None = None,
) -> Replay:
    """Serves one 64-byte line for each address, in the order and as fast as the DRAM permits.

    Parameters
    ----------
    addresses : int[n], card addresses in DRAM
    arrivals : int[n] or int, the DRAM clock from which each is on offer; must not decrease
    writes : bool[n] or bool
    log : keep the commands
    timing : replaces some of the preset's timings, in DRAM clocks

    Lines enter the controller in order, as its queue has room; the controller reorders what is in
    its queue. Raises `ValueError` for an address outside DRAM.
    """
    address = np.asarray(addresses, np.int64).reshape(-1)
    if address.size and not 0 <= address.min() <= address.max() < config.dram_bytes:
        raise ValueError(f"addresses: must be 0 to dram_bytes={config.dram_bytes}, exclusive")
    lines = address // LINE_BYTES
    arrival = np.ascontiguousarray(np.broadcast_to(np.asarray(arrivals, np.int64), lines.shape))
    write = np.ascontiguousarray(np.broadcast_to(np.asarray(writes, np.uint8), lines.shape))
    done = np.zeros(lines.shape, np.int64)
    settings = presets.settings(config)
    for name, clocks in (timing or {}).items():
        setattr(settings, name, clocks)
    lib = _library()
    handle = lib.dram_replay(
        ctypes.byref(settings), lines.ctypes.data, write.ctypes.data, arrival.ctypes.data,
        len(lines), log, done.ctypes.data,
    )  # fmt: skip
    try:
        commands = []
        for channel in range(config.dram_channels):
            data = ctypes.c_void_p()
            count = lib.dram_replay_log(handle, channel, ctypes.byref(data))
            raw = ctypes.string_at(data, count * COMMAND.itemsize) if count else b""
            commands.append(np.frombuffer(raw, COMMAND))
    finally:
        lib.dram_replay_free(handle)
    return Replay(done, commands)


def cycles(config: CardConfig, addresses: ArrayLike, start_cycle: int = 0) -> int:
    """Card cycles in which the DRAM alone reads a line for each address, all on offer at once.

    `start_cycle` is when the first is offered, which decides when refreshes fall.
    """
    settings = presets.settings(config)
    clock = start_cycle * settings.rate // (2 * settings.clock_mhz)
    done = replay(config, addresses, arrivals=clock).done
    taken = int(done.max(initial=clock)) - clock
    return -(-taken * 2 * settings.clock_mhz // settings.rate)
