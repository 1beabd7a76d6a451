"""Python side of driver.cpp: AXI4 operations against the DRAM model, without a card."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from halfdome.hdl.config import LINE_BYTES
from halfdome.sim.build.compiler import library
from halfdome.sim.dram import presets
from halfdome.sim.dram.replay import COMMAND

FIELDS = (
    "address", "beats", "id", "write", "size", "burst", "barrier",
    "begun", "first", "done", "response", "data",
)  # fmt: skip
OPERATION = np.dtype([(name, np.uint64) for name in FIELDS])
COUNTERS = ("reads", "writes", "row_hits", "activates", "refreshes", "stall_cycles")
FAULTS = ("", "answer changed while refused", "RLAST misplaced", "answer to nothing", "hung")


@cache
def _library():
    lib = ctypes.CDLL(str(library(Path(__file__).with_name("driver.cpp"), "test-dram")))
    pointer, number = ctypes.c_void_p, ctypes.c_uint64
    lib.play.argtypes = (
        pointer, pointer, number, pointer, number, pointer, pointer, number,
        ctypes.c_int, ctypes.c_double, number, ctypes.c_int64, pointer,
    )  # fmt: skip
    lib.commands.argtypes = (
        *[pointer] * 4, number, ctypes.c_int64, ctypes.c_int, pointer, number
    )  # fmt: skip
    lib.commands.restype = number
    return lib


def commands(config, addresses, arrivals, writes, *, every_clock):
    """`COMMAND[m]` of a channel that is run up to every clock, or only when a line arrives."""
    lines = np.ascontiguousarray(addresses // LINE_BYTES, np.int64)
    writes = np.ascontiguousarray(writes, np.uint8)
    arrivals = np.ascontiguousarray(arrivals, np.int64)
    log = np.zeros(8 * len(lines) + 100, COMMAND)
    count = _library().commands(
        ctypes.byref(presets.settings(config)), lines.ctypes.data, writes.ctypes.data,
        arrivals.ctypes.data, len(lines), int(arrivals[-1]) + 100_000, every_clock,
        log.ctypes.data, len(log),
    )  # fmt: skip
    assert count <= len(log)
    return log[:count]


def operations(config, count):
    """`count` word-sized INCR reads at 0."""
    ops = np.zeros(count, OPERATION)
    ops["beats"] = 1
    ops["burst"] = 1
    ops["size"] = (config.bus_bytes - 1).bit_length()
    return ops


def play(config, memory, ops, *, data=None, strobes=None, outstanding=64, early_data=False,
         stall=0.0, seed=0, limit=1_000_000, timing=None):  # fmt: skip
    """Runs `ops` in place; returns (data, counters). `ops["data"]` is filled with byte offsets.

    `timing` replaces some of the settings, in DRAM clocks.
    """
    nbytes = ops["beats"] * config.bus_bytes
    ops["data"] = np.concatenate([[0], np.cumsum(nbytes)[:-1]]) if len(ops) else 0
    if data is None:
        data = np.zeros(int(nbytes.sum()), np.uint8)
    if strobes is None:
        strobes = np.ones(len(data), np.uint8)
    counters = np.zeros(len(COUNTERS), np.uint64)
    settings = presets.settings(config)
    for name, clocks in (timing or {}).items():
        setattr(settings, name, clocks)
    fault = _library().play(
        ctypes.byref(settings), memory.ctypes.data, memory.nbytes, ops.ctypes.data, len(ops),
        data.ctypes.data, strobes.ctypes.data, outstanding, early_data, stall, seed, limit,
        counters.ctypes.data,
    )  # fmt: skip
    assert not fault, FAULTS[fault]
    return data, dict(zip(COUNTERS, map(int, counters), strict=True))
