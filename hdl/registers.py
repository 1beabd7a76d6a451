"""The BAR0 register map: the only definition of an address two sides share.

Registers are 32 bits wide; a pair `*_LO`, `*_HI` forms 64 bits. Reading CYCLES_LO latches
CYCLES_HI and every cycle and byte count of that instant: an engine's counts sum to CYCLES exactly.
The counts wrap at 2**48. Ring bases and sizes can be written only while CONTROL bit 0 is clear.
Every core has a block of registers of its own, its submission ring among them.
"""

from functools import cache
from typing import NamedTuple

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig

BAR0_BYTES = 64 * 1024
CONTROL_RUN, CONTROL_RESET = 1, 2
"""Bits of CONTROL; the second of CORE_CONTROL, too."""
STATUS_IDLE, STATUS_FETCH_FAILED, STATUS_RESETTING = 1, 2, 4
"""Bits of STATUS and CORE_STATUS."""
IDENTIFICATION = 0x464C4148
"""Value of ID: "HALF" in little-endian ASCII."""
INTERFACE_VERSION = 6
PRIORITIES = range(2)
"""Values of SQ_PRIORITY: the higher one goes first, see `UrgentFirst`."""


class Register(NamedTuple):
    """One 32-bit register. Access is `ro` or `rw`; writes to `ro` registers are ignored."""

    name: str
    offset: int
    access: str
    doc: str


REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x000, "ro", "IDENTIFICATION"),
    Register("VERSION", 0x004, "ro", "INTERFACE_VERSION"),
    Register("CONFIG_HASH_LO", 0x008, "ro", "low half of the configuration's hash"),
    Register("CONFIG_HASH_HI", 0x00C, "ro", "high half of the configuration's hash"),
    Register(
        "CONTROL",
        0x010,
        "rw",
        "bit 0: run the submission rings; 0 -> 1 restarts all rings; bit 1: reset the card",
    ),
    Register(
        "STATUS",
        0x014,
        "ro",
        "bit 0: idle, no descriptor is between fetch and completion; "
        "bit 1: a descriptor fetch failed, of any core; "
        "bit 2: a reset of the card is under way",
    ),
    Register("CYCLES_LO", 0x018, "ro", "card cycles since reset; a read latches all counts"),
    Register("CYCLES_HI", 0x01C, "ro", "high half"),
    Register("CQ_BASE_LO", 0x034, "rw", "bus address of the completion ring, 64-byte aligned"),
    Register("CQ_BASE_HI", 0x038, "rw", "high half"),
    Register("CQ_SIZE", 0x03C, "rw", "completions in the ring, a power of two from 2 to 4096"),
    Register("CQ_HEAD", 0x040, "rw", "doorbell: first completion the host has not consumed"),
    Register("CQ_TAIL", 0x044, "ro", "first completion not yet sent: memory may lag, phases never"),
    Register("DROPPED_REQUESTS", 0x050, "ro", "PCIe requests the card refused"),
    Register("UNEXPECTED_COMPLETIONS", 0x054, "ro", "PCIe completions with no request"),
    Register("REJECTED_DOORBELLS", 0x058, "ro", "doorbell writes beyond the ring"),
    Register("POISONED_REQUESTS", 0x05C, "ro", "of the requests refused, those with poisoned data"),
    Register("LATE_COMPLETIONS", 0x060, "ro", "completions of reads that had failed, dropped"),
    Register("MALFORMED_COMPLETIONS", 0x064, "ro", "completions that contradict header or read"),
    Register("UNSUCCESSFUL_COMPLETIONS", 0x068, "ro", "completions with an error status"),
    Register("POISONED_COMPLETIONS", 0x06C, "ro", "completions whose data is known to be wrong"),
    Register("COMPLETION_TIMEOUTS", 0x070, "ro", "reads not completed in time"),
    Register("QUARANTINED_TAGS", 0x074, "ro", "tags whose failed read may still be completed, now"),
    Register("OUTSTANDING_READS", 0x078, "ro", "tags in flight now; other tags are free"),
    Register(
        "COMPLETION_TIMEOUT_CYCLES",
        0x080,
        "rw",
        "cycles from a read's request to its failure, 0 for never; 10 ms after reset",
    ),
    Register("BUS_MASTER", 0x084, "rw", "bit 0: requests may leave the card; set after reset"),
    Register("MSIX_ADDRESS_LO", 0x100, "rw", "vector 0, completions: message address"),
    Register("MSIX_ADDRESS_HI", 0x104, "rw", "vector 0: high half"),
    Register("MSIX_DATA", 0x108, "rw", "vector 0: message data"),
    Register("MSIX_CONTROL", 0x10C, "rw", "vector 0: bit 0 masks; set after reset"),
    Register("MSIX_ERROR_ADDRESS_LO", 0x110, "rw", "vector 1, errors: message address"),
    Register("MSIX_ERROR_ADDRESS_HI", 0x114, "rw", "vector 1: high half"),
    Register("MSIX_ERROR_DATA", 0x118, "rw", "vector 1: message data"),
    Register("MSIX_ERROR_CONTROL", 0x11C, "rw", "vector 1: bit 0 masks; set after reset"),
    Register("MSIX_PENDING", 0x180, "ro", "bit i: vector i waits for its mask to clear"),
    Register("MSIX_FUNCTION_MASK", 0x188, "rw", "bit 0: masks every vector"),
)

CORE_REGISTERS: tuple[Register, ...] = (
    Register("SQ_BASE_LO", 0x00, "rw", "bus address of the submission ring, 64-byte aligned"),
    Register("SQ_BASE_HI", 0x04, "rw", "high half"),
    Register("SQ_SIZE", 0x08, "rw", "descriptors in the ring, a power of two from 2 to 4096"),
    Register("SQ_TAIL", 0x0C, "rw", "doorbell: first descriptor not yet valid"),
    Register("SQ_HEAD", 0x10, "ro", "first descriptor not yet fetched"),
    Register("CORE_CONTROL", 0x14, "rw", "bit 1: reset the core and restart its ring; reads 0"),
    Register(
        "CORE_STATUS",
        0x18,
        "ro",
        "bit 0: idle, no descriptor of the ring is between fetch and completion; "
        "bit 1: a descriptor fetch failed, which stopped the ring until a restart; "
        "bit 2: a reset of the core is under way",
    ),
    Register(
        "SQ_PRIORITY", 0x1C, "rw", "bit 0: goes before cores without; stays 0 of an only core"
    ),
)
"""The registers of each core: offsets within its block, see `offset`."""
CORE_BASE = 0x200
CORE_STRIDE = 0x20
"""Bytes from the block of one core to that of the next."""


@cache
def offset(name: str, core: int = 0) -> int:
    """Byte offset of a register in BAR0; of one that every core has, that of `core`.

    Raises `KeyError` for an unknown name.
    """
    for register in REGISTERS:
        if register.name == name:
            return register.offset
    for register in CORE_REGISTERS:
        if register.name == name:
            return CORE_BASE + core * CORE_STRIDE + register.offset
    raise KeyError(f"no register {name!r}")


def name_of(register: Register, core: int) -> str:
    """What a register of a core is called where those of all cores are named."""
    return f"CORE{core}_{register.name.removeprefix('CORE_')}"


MSIX_TABLE = offset("MSIX_ADDRESS_LO")
"""The MSI-X table, 16 bytes a vector as PCI lays it out."""
MSIX_PENDING_BITS = offset("MSIX_PENDING")
"""The MSI-X pending bit array, 64 bits."""
MSIX_VECTORS = ("MSIX", "MSIX_ERROR")
"""What the registers of each vector begin with: that of completions, that of errors which no
completion tells: a descriptor fetch failed, a doorbell was rejected, a request was dropped."""

COUNTER_BASE = 0x400
"""Timeline counter `i` at `COUNTER_BASE + 4*i`: a plain write sets it."""
ACTIVITY_BASE = 0x800
"""64-bit cycle counts at the last read of CYCLES_LO, see `activity_offset`."""
TRAFFIC_BASE = 0x1000
"""64-bit counts at the last read of CYCLES_LO, one for each of `TRAFFIC`."""

ACTIVITIES = ("idle", "busy", "starved", "blocked")
"""What an engine does in a cycle; exactly one, so the four counts sum to the cycles elapsed."""
GATHER_WAITS = ("memory", "lanes", "indices", "output")
"""What a gather unit with a command waits for, or works at: exactly one in every such cycle."""
TRAFFIC = (
    "dram_read_bytes", "dram_write_bytes", "pcie_read_bytes", "pcie_write_bytes",
    "gather_cache_hits", "gather_cache_misses", "weight_dram_bytes", "weight_scratchpad_bytes",
    *(f"gather_{wait}_cycles" for wait in GATHER_WAITS),
)  # fmt: skip
"""Since reset: payload bytes of DRAM reads and writes and of the card's PCIe reads and posted
writes; requests of gather units that their hot-row caches answered, and those they passed on; bytes
of second operands that matmul engines asked DRAM and scratchpads for: weights that stay in the
scratchpad cost no DRAM bytes; cycles that gather units spent on each of `GATHER_WAITS`: the largest
names their bound."""


def default_completion_timeout_cycles(config: CardConfig) -> int:
    """COMPLETION_TIMEOUT_CYCLES after reset: 10 ms, the least that the PCI Express Base
    Specification recommends for the default range (2.1, section 7.8.16)."""
    return 10_000 * config.clock_mhz


def counter_offset(index: int) -> int:
    """Byte offset of a timeline counter."""
    return COUNTER_BASE + 4 * index


def activity_offset(core: int, engine: Engine, activity: str) -> int:
    """Byte offset of the low half of an engine's cycle count."""
    engine_index = core * len(Engine) + engine
    return ACTIVITY_BASE + 8 * (engine_index * len(ACTIVITIES) + ACTIVITIES.index(activity))


def traffic_offset(name: str) -> int:
    """Byte offset of the low half of a count of traffic."""
    return TRAFFIC_BASE + 8 * TRAFFIC.index(name)


def register_names(config: CardConfig) -> dict[str, int]:
    """Every register of a card by name, arrays spelled out: for headers and documentation."""
    names = {register.name: register.offset for register in REGISTERS}
    names |= {f"COUNTER_{i}": counter_offset(i) for i in range(config.counters)}
    for core in range(config.cores):
        names |= {name_of(each, core): offset(each.name, core) for each in CORE_REGISTERS}
        for engine in Engine:
            for activity in ACTIVITIES:
                name = f"CORE{core}_{engine.name}_{activity.upper()}_CYCLES"
                names[f"{name}_LO"] = activity_offset(core, engine, activity)
                names[f"{name}_HI"] = activity_offset(core, engine, activity) + 4
    for name in TRAFFIC:
        names[f"{name.upper()}_LO"] = traffic_offset(name)
        names[f"{name.upper()}_HI"] = traffic_offset(name) + 4
    return names


PICO_IDENTIFICATION = 0x4F434950
"""Value of ID of a pico: "PICO" in little-endian ASCII."""
PICO_INTERFACE_VERSION = 2
PICO_START = 1
"""Bit of a pico's CONTROL."""
PICO_BUSY = 1
"""Bit of a pico's STATUS."""
PICO_COMMAND = 0x40
"""Byte offset of the descriptor that a pico runs, `DESCRIPTOR_BYTES` of it."""
PICO_MEMORY = BAR0_BYTES
"""Byte offset of a pico's memory on its bus, behind all its registers."""
PICO_REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x00, "ro", "PICO_IDENTIFICATION"),
    Register("VERSION", 0x04, "ro", "PICO_INTERFACE_VERSION"),
    Register("CONFIG_HASH_LO", 0x08, "ro", "low half of the configuration's hash"),
    Register("CONFIG_HASH_HI", 0x0C, "ro", "high half of the configuration's hash"),
    Register("CONTROL", 0x10, "rw", "bit 0: run the command; ignored while one runs; reads 0"),
    Register("STATUS", 0x14, "ro", "bit 0: a command runs"),
    Register("RESULT", 0x18, "ro", "`Status` of the last command"),
    Register("DETAIL", 0x1C, "ro", "its detail, see `Status`"),
    Register("CYCLES", 0x20, "ro", "cycles from its start to its result"),
    Register("ENGINE", 0x24, "ro", "`Engine` whose commands it runs"),
)
"""The registers of a pico beside its command: what identifies it lies where a card has it."""
