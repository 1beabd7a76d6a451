"""What can go wrong between host and card, in words."""

from halfdome.hdl.commands import (
    MULTIPLIER_EXPONENTS,
    OFFSET_LIMIT,
    RATIO_EXPONENTS,
    Opcode,
    ReadFailure,
    Status,
)
from halfdome.hdl.descriptors import Field, field_at, fields, unpack
from halfdome.host.driver.completion import Completion

_SIZED = "must be from 2^{} to below 2^{}, or so far below 0"
_PAIR_CONSTANTS = dict.fromkeys(
    ("a_ratio", "b_ratio"), _SIZED.format(RATIO_EXPONENTS.start, RATIO_EXPONENTS.stop)
) | {
    "multiplier": _SIZED.format(MULTIPLIER_EXPONENTS.start, MULTIPLIER_EXPONENTS.stop),
    "offset": f"must be less than {OFFSET_LIMIT} from 0",
}
"""What the constants of ADD_QUANTISED and MULTIPLY_QUANTISED must be."""
_CONSTANTS = {
    "multiplier": "must be finite and not zero",
    "scale": "must be finite and not zero",
    "shift": "must be finite",
    "low": "must not be NaN",
    "high": "must not be NaN nor below low",
}
"""What the constants of other vector commands must be."""


_READ_FAILURES = {
    ReadFailure.POISONED: "the data of a PCIe read came poisoned",
    ReadFailure.UNSUCCESSFUL: "a PCIe read was refused or aborted by its target",
    ReadFailure.MALFORMED: "a PCIe read was answered by a malformed completion",
    ReadFailure.TIMED_OUT: "a PCIe read was not answered in time",
    ReadFailure.NO_TAG: "all PCIe tags are in quarantine; wait for late completions or reset",
    ReadFailure.NOT_BUS_MASTER: "the card may not send PCIe requests, BUS_MASTER is 0",
}


class CardError(RuntimeError):
    """A card is not what the driver expects, or does not answer."""


class CardLost(CardError):
    """A card does not answer: its link is down, or it is dead."""


class DataLost(RuntimeError):
    """A write of a card did not arrive, so nothing is known of what was computed meanwhile."""


class CommandError(RuntimeError):
    """A card completed a command with a bad status.

    Attributes
    ----------
    card : int
    opcode : Opcode or None, None if the descriptor's opcode is unknown
    status : Status
    detail : int, see `Status`
    """

    def __init__(self, card: int, descriptor: bytes, completion: Completion):
        self.card = card
        self.status = completion.status
        self.detail = completion.detail
        values = set(Opcode)
        self.opcode = Opcode(descriptor[0]) if descriptor[0] in values else None
        super().__init__(f"card {card}: {self._explain(descriptor)}")

    @property
    def is_transfer(self) -> bool:
        """Whether what failed was a transfer over PCIe: the same command may succeed next time."""
        return self.status == Status.READ_FAILED

    def _explain(self, descriptor: bytes) -> str:
        if self.opcode is None:
            return f"opcode {descriptor[0]:#04x} is unknown; known are " + ", ".join(
                f"{opcode.value:#04x} {opcode.name}" for opcode in Opcode
            )
        prefix = f"{self.opcode.name} failed with {self.status.name}: "
        match self.status:
            case Status.BAD_INDEX:
                return f"{prefix}the index at position {self.detail} is outside the table"
            case Status.BAD_LENGTH:
                return f"{prefix}bag {self.detail} has a negative length"
            case Status.LENGTH_MISMATCH:
                return f"{prefix}the lengths do not sum to index_count, seen at bag {self.detail}"
            case Status.BAD_MULTIPLIER:
                return (
                    f"{prefix}the multiplier of output channel {self.detail} is zero, infinite or "
                    "NaN"
                )
            case Status.READ_FAILED:
                return f"{prefix}{_READ_FAILURES[ReadFailure(self.detail)]}"
            case Status.BAD_OPCODE:
                engine = self.opcode.engine.name.lower()
                return f"{prefix}the card has no {engine} engine that does it"
        table: tuple[Field, ...] = fields(self.opcode)
        name = field_at(self.opcode, self.detail)
        pairs = (Opcode.ADD_QUANTISED, Opcode.MULTIPLY_QUANTISED)
        constants = _PAIR_CONSTANTS if self.opcode in pairs else _CONSTANTS
        rule = {
            Status.BAD_CORE: "not the core of the ring",
            Status.BAD_COUNTER: "no such counter",
            Status.BAD_DIMENSION: "zero, too large, or rows overlap",
            Status.BAD_ALIGNMENT: "not a multiple of the bus word",
            Status.BAD_RANGE: "the operand leaves its memory",
            Status.BAD_FORMAT: constants.get(name, "no such flag, format, mode or function"),
            Status.BAD_OVERLAP: "the output overlaps the operand",
        }[self.status]
        return f"{prefix}{name}={unpack(table, descriptor)[name]:#x}: {rule}"
