"""The bus between the PCIe completer and the card's BAR0 registers."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class RegisterBus(wiring.Signature):
    """Accesses to 32-bit registers, seen from the completer. Never refused, at most one a cycle.

    Members
    -------
    address : Out(16), byte offset in BAR0, a multiple of 4
    read : Out(1), read the register at `address`
    read_data : In(32), its value, in the cycle after `read`
    write : Out(1), write the register at `address`; never together with `read`
    write_data : Out(32)
    """

    def __init__(self):
        super().__init__(
            {
                "address": Out(16),
                "read": Out(1),
                "read_data": In(32),
                "write": Out(1),
                "write_data": Out(32),
            }
        )
