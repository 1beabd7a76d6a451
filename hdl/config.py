"""Every parameter of a card, in one immutable value.

A design point is a value: two equal configurations generate the same hardware, and the hash of a
configuration is stamped into the Verilog, a BAR0 register and every result.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

LINE_BYTES = 64
"""Bytes of one DRAM burst (LPDDR4: x32 channel, burst length 16) and the largest memory burst."""

DRAM_BANKS = 8
"""Banks of a DRAM channel."""
DRAM_ROW_BYTES = 4096
"""Bytes of a DRAM row, what one activate opens: 1024 columns of 32 bits."""

PLATFORM_CARDS, MOST_CARDS = 6, 12
"""Cards of a platform: as many as its carrier has slots, and with a second carrier."""

DRAM_PRESETS = (
    "LPDDR4-533", "LPDDR4-1066", "LPDDR4-1600", "LPDDR4-2133", "LPDDR4-2400", "LPDDR4-2666",
    "LPDDR4-3200", "LPDDR4-3733", "LPDDR4-4266",
)  # fmt: skip
"""What `CardConfig.dram_preset` may be."""

DRAM_PAGE_POLICIES = ("open", "closed", "adaptive")
"""What `CardConfig.dram_page_policy` may be."""

ADDRESS_BITS = 40
"""Most bits of a card address, and those of AXI: DRAM from 0, then the scratchpads (see
`CardConfig.scratchpad_base`). Within a card they are `CardConfig.address_bits`."""


class ConfigError(ValueError):
    """A configuration breaks a rule. The message names field, value and rule."""


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """One design point of the card. Construction raises `ConfigError` if a rule is broken."""

    cores: int = 1
    """Cores, each with its own engines and scratchpad."""
    array_rows: int = 16
    """Rows of the systolic array: multiply-accumulates along K."""
    array_columns: int = 16
    """Columns of the systolic array: output channels along N."""
    accumulator_rows: int = 512
    """Rows of int32 accumulators: they hold `accumulator_rows / activation_rows` output tiles."""
    activation_rows: int = 128
    """Rows of activations kept beside the array: rows of M that one weight tile serves before the
    next. Each takes two memory lines, one in use and one filling."""
    lanes: int = 16
    """fp32 accumulate lanes of the gather unit: row elements handled in a cycle."""
    max_dim: int = 1024
    """Longest embedding row in elements."""
    gather_outstanding: int = 160
    """Memory bursts of row data the gather unit keeps in flight."""
    gather_float_stages: int = 1
    """Cycles of each long step of the gather unit's fp32 arithmetic: 1, or 2 for a faster clock."""
    gather_cache_bytes: int = 0
    """Hot-row cache of a core's gather unit in bytes; 0 for none."""
    gather_cache_ways: int = 4
    """Places a line may have in the hot-row cache."""
    scratchpad_bytes: int = 256 * 1024
    """Scratchpad of one core in bytes."""
    scratchpad_banks: int = 4
    """Scratchpad banks, interleaved by bus word; each serves one read and one write a cycle."""
    bus_bytes: int = 32
    """Bytes a cycle of the AXI port, the scratchpad banks and the TLP streams."""
    byte_word_cycles: int = 1
    """Cycles that the vector engine takes for a bus word of 8-bit elements in commands that know no
    others: 1, 2, 4, 8 or 16. Twice as many need half of its byte lanes, and about half of their
    area. 8 and 16 need as many `float_word_cycles` as leave a byte lane for each fp32 lane."""
    float_word_cycles: int = 1
    """Cycles that the vector engine takes for a bus word of fp32 elements: 1, 2 or 4. Twice as many
    need half of its fp32 lanes, most of its area. Other elements that pass them take as long. From
    2 on what a lane computes takes turns, see `lanes_in_turns`."""
    dram_bytes: int = 1 << 30
    """Card DRAM in bytes; 0 for none, which a whole card cannot do without."""
    dram_preset: str = "LPDDR4-3200"
    """Speed grade of the card DRAM."""
    dram_channels: int = 1
    """x32 DRAM channels."""
    dram_mapping: str = "row-bank-column-channel"
    """Fields of a DRAM address above the 64-byte line, highest first: any order of these four."""
    dram_page_policy: str = "adaptive"
    """When the DRAM controller closes a row: when it needs another ("open"), after every access
    ("closed"), or after the last queued access to it, if another row is queued ("adaptive")."""
    clock_mhz: int = 400
    """Card clock in MHz: the unit of every cycle count."""
    pcie_generation: int = 3
    """Generation of the card's PCIe link."""
    pcie_lanes: int = 4
    """Lanes of the card's PCIe link."""
    max_payload_bytes: int = 256
    """Largest payload of a TLP the card sends."""
    max_read_request_bytes: int = 512
    """Largest PCIe read the card requests."""
    dma_tags: int = 32
    """PCIe reads the card keeps in flight, tag 0 (descriptor fetch) included."""
    queue_depth: int = 8
    """Descriptors waiting in front of each engine."""
    counters: int = 64
    """Timeline counters."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            text = field.type in (str, "str")
            if type(value) is not (str if text else int):
                rule = "a string" if text else "an integer"
                raise ConfigError(f"{field.name}={value!r}: must be {rule}")
        bounds = {
            "cores": (1, 12), "array_rows": (2, 64), "array_columns": (2, 64),
            "accumulator_rows": (4, 65536), "activation_rows": (2, 4096), "lanes": (1, 64),
            "max_dim": (1, 1024), "gather_outstanding": (2, 256),
            "gather_float_stages": (1, 2), "gather_cache_bytes": (0, 1 << 20),
            "gather_cache_ways": (1, 8),
            "scratchpad_bytes": (4096, 1 << 26),
            "scratchpad_banks": (1, 32), "bus_bytes": (16, 128), "byte_word_cycles": (1, 16),
            "float_word_cycles": (1, 4), "dram_channels": (1, 4), "clock_mhz": (1, 2000),
            "pcie_generation": (1, 5), "pcie_lanes": (1, 16), "max_payload_bytes": (128, 4096),
            "max_read_request_bytes": (128, 4096), "dma_tags": (2, 256), "queue_depth": (2, 64),
            "counters": (1, 128),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}={getattr(self, name)}: must be {low} to {high}")
        powers = (
            "array_rows", "array_columns", "lanes", "scratchpad_bytes", "scratchpad_banks",
            "bus_bytes", "byte_word_cycles", "float_word_cycles", "pcie_lanes", "max_payload_bytes",
            "max_read_request_bytes", "dram_channels", "accumulator_rows", "gather_cache_ways",
            "activation_rows",
        )  # fmt: skip
        for name in powers:
            if not _is_power_of_two(getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)}: must be a power of two")
        for name in ("array_rows", "array_columns"):
            if getattr(self, name) > self.bus_bytes:
                raise ConfigError(
                    f"{name}={getattr(self, name)}: one bus word must hold a row of the array, "
                    f"so at most bus_bytes={self.bus_bytes}"
                )
        if self.activation_rows > self.accumulator_rows:
            raise ConfigError(
                f"activation_rows={self.activation_rows}: each needs an accumulator, "
                f"so at most accumulator_rows={self.accumulator_rows}"
            )
        if self.byte_word_cycles > 4 * self.float_word_cycles:
            raise ConfigError(
                f"byte_word_cycles={self.byte_word_cycles}: a group must hold a byte for each fp32 "
                f"lane, so at most 4*float_word_cycles={4 * self.float_word_cycles}"
            )
        if self.lanes > 2 * self.bus_bytes:
            raise ConfigError(
                f"lanes={self.lanes}: one bus word of 4-bit elements must feed every lane, "
                f"so at most 2*bus_bytes={2 * self.bus_bytes}"
            )

        if self.gather_cache_bytes:
            least = 2 * self.gather_cache_ways * max(LINE_BYTES, self.bus_bytes)
            if not _is_power_of_two(self.gather_cache_bytes):
                rule = "0 or a power of two"
            elif self.gather_cache_bytes < least:
                rule = f"0 or hold two lines in each of its ways, at least {least}"
            elif self.gather_cache_bytes >= self.dram_bytes:
                rule = f"smaller than dram_bytes={self.dram_bytes}"
            else:
                rule = ""
            if rule:
                raise ConfigError(f"gather_cache_bytes={self.gather_cache_bytes}: must be {rule}")
        if self.dram_bytes and not (
            _is_power_of_two(self.dram_bytes) and 1 << 16 <= self.dram_bytes <= 1 << 36
        ):
            raise ConfigError(
                f"dram_bytes={self.dram_bytes}: must be 0 or a power of two from {1 << 16} to "
                f"{1 << 36}"
            )
        if sorted(self.dram_mapping.split("-")) != ["bank", "channel", "column", "row"]:
            raise ConfigError(
                f"dram_mapping={self.dram_mapping!r}: must be row, bank, column and channel in any "
                "order, joined by '-'"
            )
        for name, known in (
            ("dram_preset", DRAM_PRESETS), ("dram_page_policy", DRAM_PAGE_POLICIES),
        ):  # fmt: skip
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    f"{name}={value!r}: must be {', '.join(known[:-1])} or {known[-1]}"
                )

    @property
    def scratchpad_base(self) -> int:
        """Card address of core 0's scratchpad; core `i` follows at `i * scratchpad_bytes`."""
        return self.dram_bytes

    def scratchpad_address(self, core: int) -> int:
        """Card address of the first byte of a core's scratchpad."""
        return self.scratchpad_base + core * self.scratchpad_bytes

    @property
    def window_bytes(self) -> int:
        """Size of BAR2, which shows all card memory at its card address. A power of two."""
        top = self.scratchpad_address(self.cores)
        return 1 << (top - 1).bit_length()

    @property
    def address_bits(self) -> int:
        """Bits of a card address within the card: of every byte of its memory, and of the one after
        the last. What the checker lets pass lies there, and sums that end there may wrap around."""
        return self.window_bytes.bit_length()

    @property
    def count_bits(self) -> int:
        """Bits of how many rows, elements or bytes an operand has within the card: no more than its
        memory has bytes."""
        return min(32, self.address_bits)

    @property
    def dram_fields(self) -> dict[str, tuple[int, int]]:
        """Lowest bit and width of each field of `dram_mapping` in a card address.

        Where DRAM is smaller than a row of every bank, the highest fields are not used to the full.
        """
        widths = {
            "channel": self.dram_channels.bit_length() - 1,
            "bank": DRAM_BANKS.bit_length() - 1,
            "column": (DRAM_ROW_BYTES // LINE_BYTES).bit_length() - 1,
        }
        lines = (self.dram_bytes // LINE_BYTES).bit_length() - 1
        widths["row"] = max(0, lines - sum(widths.values()))
        fields = {}
        low = LINE_BYTES.bit_length() - 1
        for name in reversed(self.dram_mapping.split("-")):
            fields[name] = (low, widths[name])
            low += widths[name]
        return fields

    @property
    def burst_words(self) -> int:
        """Most bus words of one memory burst."""
        return max(1, LINE_BYTES // self.bus_bytes)

    @property
    def line_bytes(self) -> int:
        """Bytes of one burst: of each row of activations so many are at the array at a time."""
        return self.burst_words * self.bus_bytes

    @property
    def byte_lanes(self) -> int:
        """Elements that the vector engine takes in a cycle where commands know 8 bits alone."""
        return self.bus_bytes // self.byte_word_cycles

    @property
    def vector_lanes(self) -> int:
        """Elements that it takes in a cycle in all other commands: its fp32 lanes."""
        return self.bus_bytes // 4 // self.float_word_cycles

    @property
    def lanes_in_turns(self) -> bool:
        """Whether an fp32 lane has one multiply-add for all that it does, and rows are reduced by
        one adder: functions with a table take twice as long, and a row that is reduced three cycles
        more."""
        return self.float_word_cycles > 1

    @property
    def gather_in_turns(self) -> bool:
        """Whether the gather unit has one lane: then what it computes takes turns, too. A row takes
        two cycles an element, a mean as many as a division has steps."""
        return self.lanes == 1

    @property
    def gather_contexts(self) -> int:
        """Bags in flight. As many rows of one chunk, from open DRAM rows at two cycles each, cover
        the latency of an addition and an fma; to a single lane most rows are as long by themselves.
        """
        return 2 if self.gather_in_turns else 8

    @property
    def line_tiles(self) -> int:
        """Weight tiles along K that one line of activations serves."""
        return self.line_bytes // self.array_rows

    @property
    def group_tiles(self) -> int:
        """Weight tiles along N that one line of activations serves: output tiles held at once."""
        return self.accumulator_rows // self.activation_rows

    @property
    def diagonal_tiles(self) -> int:
        """Output tiles that one line of activations serves if each sees channels of its own: so
        many lie in a line and are held at once, in whole bus words. 0 if that cannot be: the array
        is not square, or so few tiles fill no word."""
        together = min(self.line_tiles, self.group_tiles)
        if self.array_rows != self.array_columns or together * self.array_rows < self.bus_bytes:
            return 0
        return together

    @property
    def rows_per_stage(self) -> int:
        """Rows of a weight tile that one bus word brings, at most two: those the array adds at
        once."""
        return min(2, self.bus_bytes // self.array_columns)

    @property
    def tile_load_cycles(self) -> int:
        """Cycles in which a weight tile enters the array, a stage in each."""
        return self.array_rows // self.rows_per_stage

    @property
    def weight_tile_bytes(self) -> int:
        """Bytes of one packed weight tile (`array_rows` x `array_columns`, whole bus words)."""
        tile = self.array_rows * self.array_columns
        return -(-tile // self.bus_bytes) * self.bus_bytes

    @property
    def clock_period_ps(self) -> float:
        """Card clock period in picoseconds."""
        return 1e6 / self.clock_mhz

    def need_dram(self) -> None:
        """Raises `ConfigError` if there is no DRAM, without which no whole card is built."""
        if not self.dram_bytes:
            raise ConfigError("dram_bytes=0: a whole card needs DRAM; a pico does without")

    def replace(self, **changes: int | str) -> "CardConfig":
        """A copy with some fields changed. Raises `ConfigError` for an unknown field."""
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise ConfigError(f"{name}: no such field; known are {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def as_json(self) -> str:
        """Canonical JSON, the text that is hashed."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """First 64 bits of the SHA-256 of the canonical JSON, as 16 hexadecimal digits."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()[:16]


PRESETS: dict[str, CardConfig] = {
    "tiny": CardConfig(
        array_rows=4, array_columns=4, accumulator_rows=32, activation_rows=8, lanes=4,
        max_dim=256,
        gather_outstanding=4, scratchpad_bytes=16 * 1024, scratchpad_banks=2, bus_bytes=16,
        byte_word_cycles=2, dram_bytes=1 << 20, max_payload_bytes=128, max_read_request_bytes=128,
        dma_tags=4, queue_depth=4, counters=16,
    ),
    "default": CardConfig(),
    "quad": CardConfig(cores=4, bus_bytes=64, byte_word_cycles=2, dram_channels=2),
    "m2": CardConfig(
        cores=12, array_rows=64, array_columns=64, lanes=64, scratchpad_bytes=4 << 20,
        scratchpad_banks=8, bus_bytes=128, byte_word_cycles=2, dram_bytes=16 << 30,
        dram_preset="LPDDR4-4266", dram_channels=4, clock_mhz=510, counters=128,
    ),
}  # fmt: skip
"""Named design points. `quad` is four cores of `default`, with the bus and the memory for them;
`m2` is the class of card the platform was built with."""

PICO = CardConfig(
    array_rows=4, array_columns=2, accumulator_rows=16, activation_rows=8, lanes=1, max_dim=64,
    gather_outstanding=2, scratchpad_bytes=8 * 1024, scratchpad_banks=1, bus_bytes=16,
    dram_bytes=0, clock_mhz=25, max_payload_bytes=128, max_read_request_bytes=128, counters=8,
)  # fmt: skip
"""The design point of `halfdome.hdl.pico`, which is no whole card."""

NITEFURY = PRESETS["tiny"].replace(
    array_rows=8, array_columns=8, accumulator_rows=128, activation_rows=32, max_dim=1024,
    gather_outstanding=16, scratchpad_bytes=128 * 1024, dram_bytes=1 << 30, clock_mhz=60,
    pcie_generation=1, dma_tags=16, max_read_request_bytes=512, queue_depth=8, counters=64,
)  # fmt: skip
"""The design point of `halfdome.hdl.boards.nitefury`."""


def preset(name: str) -> CardConfig:
    """The preset called `name`. Raises `ConfigError` naming the known presets."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; known are {', '.join(PRESETS)}")
    return PRESETS[name]
