"""How one command ended, as errors and timelines tell it."""

from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import Status
from halfdome.hdl.descriptors import COMPLETION


@dataclass(frozen=True)
class Completion:
    """How one command ended. Cycles count the card's clock, modulo 2**32."""

    id: int
    status: Status
    phase: int
    detail: int
    start_cycle: int
    end_cycle: int

    @classmethod
    def of(cls, entry: np.void) -> "Completion":
        """From an entry of the completion ring, `halfdome.host.driver.rings.ENTRY`."""
        values = {field.name: int(entry[field.name]) for field in COMPLETION}
        return cls(**values | {"status": Status(values["status"])})
