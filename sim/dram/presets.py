"""LPDDR4 timing parameters of one x32 channel, in DRAM clocks.

Source: JEDEC JESD209-4, core and AC timing parameters for the x16 die without DBI, write latency
set A; 2400 is the 2666 grade at a slower clock, its times rounded up to clocks. Two x16 dies in
lockstep make the x32 channel, so a burst of 16 moves one 64-byte line.
"""

import ctypes
from typing import NamedTuple

from amaranth.utils import exact_log2

from halfdome.hdl.config import (
    DRAM_BANKS,
    DRAM_PAGE_POLICIES,
    DRAM_PRESETS,
    LINE_BYTES,
    CardConfig,
)

BURST_CLOCKS = 8
"""Clocks of the data bus one line takes: burst length 16 at double data rate."""
FAW_PICOSECONDS = 40_000
"""tFAW is the larger of the table's clocks and this."""
PPD = 4
"""tPPD: clocks from a precharge to the next on the channel, in every grade."""


class Grade(NamedTuple):
    """One speed grade. `rate` is in megatransfers a second, the clock is half of it."""

    rate: int
    rcd: int
    rp_bank: int
    ras: int
    rrd: int
    faw: int
    read_latency: int
    write_latency: int
    wr: int
    wtr: int
    rtp: int
    dqsck: int
    refi: int


GRADES: dict[str, Grade] = dict(zip(DRAM_PRESETS, map(Grade._make, (
    # rate RCD RPpb RAS RRD FAW  RL  WL  WR WTR RTP DQSCK REFI
    ( 533,  5,  5, 12,  4, 11,  6,  4,  6,  8,  8, 1, 1041),
    (1066, 10, 10, 23,  6, 22, 10,  6, 10,  8,  8, 1, 2082),
    (1600, 15, 15, 34,  8, 32, 14,  8, 15,  8,  8, 2, 3123),
    (2133, 20, 20, 45, 11, 43, 20, 10, 20, 11,  9, 2, 4166),
    (2400, 22, 22, 51, 12, 48, 24, 12, 24, 12, 10, 2, 4684),
    (2666, 24, 24, 56, 14, 54, 24, 12, 24, 14, 10, 2, 5205),
    (3200, 29, 29, 68, 16, 64, 28, 14, 29, 16, 12, 3, 6246),
    (3733, 34, 34, 79, 19, 75, 32, 16, 34, 19, 15, 3, 7297),
    (4266, 39, 39, 90, 22, 86, 36, 18, 39, 22, 17, 4, 8341),
)), strict=True))  # fmt: skip
"""Speed grades by the name `CardConfig.dram_preset` uses."""

REFRESH_NANOSECONDS: tuple[tuple[int, int], ...] = ((2, 60), (4, 90), (8, 140), (16, 190))
"""tRFCpb by density: (at most so many gigabits on one x16 die, nanoseconds)."""


class DramSettings(ctypes.Structure):
    """`DramSettings` of `sim/dram/settings.hpp`. Timings in DRAM clocks, shifts in lines."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "clock_mhz", "bus_bytes", "channels", "rate", "rcd", "rp_bank", "ras", "rrd", "faw",
            "read_latency", "write_latency", "wr", "wtr", "rtp", "dqsck", "refi_bank", "rfc_bank",
            "ppd", "row_bits", "row_shift", "bank_shift", "column_shift", "channel_shift",
            "page_policy",
        )
    ]  # fmt: skip


def _mapping(config: CardConfig) -> dict[str, int]:
    """The shifts of a line number, and the width of its row."""
    fields = config.dram_fields
    line = exact_log2(LINE_BYTES)
    return {f"{name}_shift": low - line for name, (low, _) in fields.items()} | {
        "row_bits": fields["row"][1]
    }


def settings(config: CardConfig) -> DramSettings:
    """The DRAM of a card.

    Raises `ConfigError` for a configuration without DRAM, and `ValueError` for more than such dies
    hold.
    """
    config.need_dram()
    grade = GRADES[config.dram_preset]
    gigabits = -(-config.dram_bytes * 8 // (config.dram_channels * 2) // (1 << 30))
    rfc_ns = next((ns for size, ns in REFRESH_NANOSECONDS if gigabits <= size), None)
    if rfc_ns is None:
        raise ValueError(
            f"dram_bytes={config.dram_bytes}: {gigabits} Gbit on an x16 die; JESD209-4 ends at 16, "
            "use more dram_channels"
        )
    clocks = grade._asdict()
    clocks["refi_bank"] = clocks.pop("refi") // DRAM_BANKS  # tREFIpb
    # A clock lasts 2_000_000 / rate picoseconds; round the time up to whole clocks.
    clocks["faw"] = max(grade.faw, -(-FAW_PICOSECONDS * grade.rate // 2_000_000))
    return DramSettings(
        clock_mhz=config.clock_mhz,
        bus_bytes=config.bus_bytes,
        channels=config.dram_channels,
        rfc_bank=-(-rfc_ns * grade.rate // 2_000),
        ppd=PPD,
        page_policy=DRAM_PAGE_POLICIES.index(config.dram_page_policy),
        **clocks,
        **_mapping(config),
    )
