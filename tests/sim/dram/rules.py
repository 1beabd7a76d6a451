"""The rules of JESD209-4 for one channel's command bus, checked pair by pair."""

from collections import deque

from halfdome.sim.dram import presets
from halfdome.sim.dram.replay import COMMANDS

LATE_REFRESH_CLOCKS = 250
"""How long a due refresh may wait for open rows: their tRAS or write recovery, and tRPab."""


def minimum_gaps(t) -> list[tuple[set[str], set[str], bool, int, str]]:
    """(earlier commands, later commands, of the same bank only, clocks, name of the rule)."""
    burst = presets.BURST_CLOCKS
    read_data = t.read_latency + t.dqsck + burst
    write_data = t.write_latency + 1 + burst
    columns = {"READ", "WRITE"}
    return [
        ({"ACTIVATE"}, {"ACTIVATE"}, True, t.ras + t.rp_bank, "tRC"),
        ({"ACTIVATE"}, {"ACTIVATE"}, False, t.rrd, "tRRD"),
        ({"ACTIVATE"}, columns, True, t.rcd, "tRCD"),
        ({"ACTIVATE"}, {"PRECHARGE"}, True, t.ras, "tRAS"),
        ({"ACTIVATE"}, {"PRECHARGE_ALL"}, False, t.ras, "tRAS"),
        ({"PRECHARGE"}, {"ACTIVATE"}, True, t.rp_bank, "tRPpb"),
        ({"PRECHARGE"}, {"REFRESH"}, False, t.rp_bank, "tRPpb"),
        ({"PRECHARGE_ALL"}, {"ACTIVATE", "REFRESH"}, False, t.rp_all, "tRPab"),
        ({"PRECHARGE"}, {"PRECHARGE", "PRECHARGE_ALL"}, False, t.ppd, "tPPD"),
        ({"READ"}, {"READ"}, False, burst, "tCCD"),
        ({"WRITE"}, {"WRITE"}, False, burst, "tCCD"),
        ({"READ"}, {"WRITE"}, False, read_data - t.write_latency + 2, "read to write"),
        ({"WRITE"}, {"READ"}, False, write_data + t.wtr, "tWTR"),
        ({"READ"}, {"PRECHARGE"}, True, t.rtp, "tRTP"),
        ({"READ"}, {"PRECHARGE_ALL"}, False, t.rtp, "tRTP"),
        ({"WRITE"}, {"PRECHARGE"}, True, write_data + t.wr, "tWR"),
        ({"WRITE"}, {"PRECHARGE_ALL"}, False, write_data + t.wr, "tWR"),
        ({"REFRESH"}, {"ACTIVATE", "REFRESH"}, False, t.rfc, "tRFCab"),
    ]


def violations(commands, timing) -> list[str]:
    """Every rule that a log breaks; `timing` is what `presets.settings` gives."""
    gaps = minimum_gaps(timing)
    broken: list[str] = []
    last: dict[tuple[str, int], int] = {}
    ever: dict[str, int] = {}
    open_rows: dict[int, int] = {}
    activates: deque[int] = deque(maxlen=4)
    refreshes = 0
    before = -1
    for clock, kind, bank, row, _ in commands.tolist():
        name = COMMANDS[kind]
        if clock <= before:
            broken.append(f"{clock}: {name} not after the command before")
        before = clock
        for earlier, later, same_bank, clocks, rule in gaps:
            if name not in later:
                continue
            for other in earlier:
                at = last.get((other, bank)) if same_bank else ever.get(other)
                if at is not None and clock - at < clocks:
                    broken.append(f"{clock}: {rule}, {name} {clock - at} after {other}")
        match name:
            case "ACTIVATE":
                if bank in open_rows:
                    broken.append(f"{clock}: ACTIVATE of open bank {bank}")
                if len(activates) == 4 and clock - activates[0] < timing.faw:
                    broken.append(f"{clock}: tFAW, five in {clock - activates[0]}")
                activates.append(clock)
                open_rows[bank] = row
            case "PRECHARGE":
                open_rows.pop(bank, None)
            case "PRECHARGE_ALL":
                open_rows.clear()
            case "REFRESH":
                if open_rows:
                    broken.append(f"{clock}: REFRESH with open banks {sorted(open_rows)}")
                refreshes += 1
                late = clock - refreshes * timing.refi
                if not 0 <= late <= LATE_REFRESH_CLOCKS:
                    broken.append(f"{clock}: tREFI, refresh {refreshes} comes {late} late")
            case _:
                if open_rows.get(bank) != row:
                    broken.append(f"{clock}: {name} of row {row}, open is {open_rows.get(bank)}")
        last[name, bank] = ever[name] = clock
    return broken
