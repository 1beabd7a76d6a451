"""Completion entries as the host reads them."""

from dataclasses import dataclass
from itertools import takewhile

from halfdome.hdl.commands import COMPLETION, Status, unpack

PHASE_BYTE = sum(field.bits for field in takewhile(lambda f: f.name != "phase", COMPLETION)) // 8
"""Which byte of an entry tells whether it is a new one."""


@dataclass(frozen=True)
class Completion:
    """How one command ended. Cycles count the card's clock since reset, modulo 2**32."""

    id: int
    status: Status
    phase: int
    detail: int
    start_cycle: int
    end_cycle: int

    @classmethod
    def parse(cls, raw: bytes) -> "Completion":
        """From the 16 bytes of a ring entry."""
        values = unpack(COMPLETION, raw)
        return cls(**values | {"status": Status(values["status"])})
