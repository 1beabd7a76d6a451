"""The rules of JESD209-4 for one channel's command bus, checked pair by pair.

Gaps count from the first clock of a command to the first of the next.
"""

from collections import deque

from halfdome.hdl.config import DRAM_BANKS
from halfdome.sim.dram import presets
from halfdome.sim.dram.replay import COMMANDS

BUS_CLOCKS = {
    "ACTIVATE": 4, "READ": 4, "WRITE": 4, "PRECHARGE": 2, "REFRESH": 2,
}  # fmt: skip
"""Clocks for which a command holds the command bus; a READ or WRITE has its CAS-2 with it."""


def minimum_gaps(t) -> list[tuple[set[str], set[str], bool, int, str]]:
    """(earlier commands, later commands, of the same bank only, clocks, name of the rule)."""
    burst = presets.BURST_CLOCKS
    read_data = t.read_latency + t.dqsck + burst
    write_data = t.write_latency + 1 + burst
    columns, rows = {"READ", "WRITE"}, {"ACTIVATE", "REFRESH"}
    return [
        ({"ACTIVATE"}, rows, True, t.ras + t.rp_bank, "tRC"),
        (rows, rows, False, t.rrd, "tRRD"),
        ({"ACTIVATE"}, columns, True, t.rcd, "tRCD"),
        ({"ACTIVATE"}, {"PRECHARGE"}, True, t.ras, "tRAS"),
        ({"PRECHARGE"}, rows, True, t.rp_bank, "tRPpb"),
        ({"PRECHARGE"}, {"PRECHARGE"}, False, t.ppd, "tPPD"),
        ({"READ"}, {"READ"}, False, burst, "tCCD"),
        ({"WRITE"}, {"WRITE"}, False, burst, "tCCD"),
        ({"READ"}, {"WRITE"}, False, read_data - t.write_latency + 2, "read to write"),
        ({"WRITE"}, {"READ"}, False, write_data + t.wtr, "tWTR"),
        ({"READ"}, {"PRECHARGE"}, True, t.rtp, "tRTP"),
        ({"WRITE"}, {"PRECHARGE"}, True, write_data + t.wr, "tWR"),
        ({"REFRESH"}, {"ACTIVATE"}, True, t.rfc_bank, "tRFCpb"),
        ({"REFRESH"}, {"REFRESH"}, False, t.rfc_bank, "tRFCpb"),
    ]


def violations(commands, timing) -> list[str]:
    """Every rule that a log breaks; `timing` is what `presets.settings` gives."""
    gaps = minimum_gaps(timing)
    write_recovery = timing.write_latency + 1 + presets.BURST_CLOCKS + timing.wr
    broken: list[str] = []
    last: dict[tuple[str, int], int] = {}
    ever: dict[str, int] = {}
    open_rows: dict[int, int] = {}
    precharged: dict[int, int] = {}  # by a READ or WRITE: when the bank can be activated again
    activates: deque[int] = deque(maxlen=4)  # and refreshes, which count as such
    refreshed: list[int] = []  # banks, in order
    # An activate and others of other banks may have come just before a refresh falls due.
    latest = timing.ras + timing.rp_bank + timing.faw
    bus_free = 0
    for clock, kind, bank, row, _, auto_precharge in commands.tolist():
        name = COMMANDS[kind]
        if clock < bus_free:
            broken.append(f"{clock}: command bus, {name} {bus_free - clock} too early")
        bus_free = clock + BUS_CLOCKS[name]
        for earlier, later, same_bank, clocks, rule in gaps:
            if name not in later:
                continue
            for other in earlier:
                at = last.get((other, bank)) if same_bank else ever.get(other)
                if at is not None and clock - at < clocks:
                    broken.append(f"{clock}: {rule}, {name} {clock - at} after {other}")
        match name:
            case "ACTIVATE" | "REFRESH":
                if bank in open_rows:
                    broken.append(f"{clock}: {name} of open bank {bank}")
                if len(activates) == 4 and clock - activates[0] < timing.faw:
                    broken.append(f"{clock}: tFAW, five in {clock - activates[0]}")
                if clock < precharged.get(bank, 0):
                    broken.append(f"{clock}: tRPpb, {name} of bank {bank} in its auto-precharge")
                activates.append(clock)
                if name == "ACTIVATE":
                    open_rows[bank] = row
                else:
                    if bank in refreshed[len(refreshed) // DRAM_BANKS * DRAM_BANKS :]:
                        broken.append(f"{clock}: bank {bank} refreshed twice, others not yet")
                    refreshed.append(bank)
                    late = clock - len(refreshed) * timing.refi_bank
                    if not 0 <= late <= latest:
                        broken.append(f"{clock}: tREFI, refresh {len(refreshed)}, {late} late")
            case "PRECHARGE":
                if open_rows.pop(bank, None) != row:
                    broken.append(f"{clock}: PRECHARGE of row {row}, which is not open")
            case _:
                if open_rows.get(bank) != row:
                    broken.append(f"{clock}: {name} of row {row}, open is {open_rows.get(bank)}")
                if auto_precharge:
                    open_rows.pop(bank, None)
                    recovered = clock + (timing.rtp if name == "READ" else write_recovery)
                    begun = max(recovered, last.get(("ACTIVATE", bank), 0) + timing.ras)
                    precharged[bank] = begun + timing.rp_bank
        last[name, bank] = ever[name] = clock
    return broken
