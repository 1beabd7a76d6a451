"""The registers of one card, by name."""

from halfdome.hdl import registers
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.host.driver.bus import Bus
from halfdome.host.driver.errors import CardError, CardLost

ALL_ONES = 0xFFFF_FFFF
"""What a read returns that nobody answers."""


class Registers:
    """Reads and writes the registers of a card at `bar0` of `bus`.

    Refuses what is no card, or one that is not built from `config`. `index` is the card's number
    in messages. Reads raise `CardLost` if nobody answers.
    """

    def __init__(self, bus: Bus, config: CardConfig, *, index: int, bar0: int):
        self.bus = bus
        self.config = config
        self.index = index
        self.bar0 = bar0
        self._identify()

    def _identify(self) -> None:
        if (found := self.read("ID")) != registers.IDENTIFICATION:
            raise CardError(f"card {self.index}: ID={found:#010x} is not a Halfdome card")
        if (found := self.read("VERSION")) != registers.INTERFACE_VERSION:
            raise CardError(
                f"card {self.index}: interface version {found}, "
                f"this driver speaks {registers.INTERFACE_VERSION}"
            )
        found = f"{self.read('CONFIG_HASH_HI'):08x}{self.read('CONFIG_HASH_LO'):08x}"
        if found != self.config.hash:
            raise CardError(
                f"card {self.index}: built from configuration {found}, expected "
                f"{self.config.hash}; open the platform with the card's own configuration"
            )

    def read(self, name: str, core: int = 0) -> int:
        """A 32-bit register by name, of a core if every core has one."""
        return self.read_at(registers.offset(name, core), 4)

    def read_at(self, offset: int, nbytes: int) -> int:
        """A 4- or 8-byte register by BAR0 offset."""
        low = self._read32(offset)
        if nbytes == 4:
            return low
        return low | self._read32(offset + 4) << 32

    def _read32(self, offset: int) -> int:
        """Raises `CardLost` if nobody answers; all-ones may be a value, or that."""
        identification = registers.offset("ID")
        try:
            value = self._read_word(offset)
            if value != ALL_ONES or offset == identification:
                return value
            if self._read_word(identification) == registers.IDENTIFICATION:
                return self._read_word(offset)
        except TimeoutError as error:
            raise CardLost(f"card {self.index}: does not answer") from error
        raise CardLost(f"card {self.index}: nothing answers in its place, its link is down")

    def _read_word(self, offset: int) -> int:
        return int.from_bytes(self.bus.read(self.bar0 + offset, 4), "little")

    def write(self, name: str, value: int, core: int = 0) -> None:
        """Writes a 32-bit register by name, of a core if every core has one."""
        self.bus.write(self.bar0 + registers.offset(name, core), value.to_bytes(4, "little"))

    def write64(self, name: str, value: int, core: int = 0) -> None:
        """Writes a register of two 32-bit halves, the low one first."""
        self.write(f"{name}_LO", value & 0xFFFF_FFFF, core)
        self.write(f"{name}_HI", value >> 32, core)

    def set_counter(self, index: int, value: int) -> None:
        """Sets a timeline counter, as a peer's SIGNAL would."""
        self.bus.write(self.counter_address(index), (value & ALL_ONES).to_bytes(4, "little"))

    def counter_address(self, index: int) -> int:
        """Bus address of a timeline counter, for a peer's SIGNAL."""
        return self.bar0 + registers.counter_offset(index)

    def counters(self) -> dict[str, int]:
        """Cycle counts of every engine, byte counts, and "cycles", read from the card.

        Read one after the other: they agree with each other to the cycle only if the card is
        idle in between; per engine the four activities always sum to the cycles elapsed.
        """
        values = {"cycles": self.read_at(registers.offset("CYCLES_LO"), 8)}
        for core in range(self.config.cores):
            for engine in Engine:
                for activity in registers.ACTIVITIES:
                    name = f"core{core}_{engine.name.lower()}_{activity}_cycles"
                    place = registers.activity_offset(core, engine, activity)
                    values[name] = self.read_at(place, 8)
        for name in registers.TRAFFIC:
            values[name] = self.read_at(registers.traffic_offset(name), 8)
        return values
