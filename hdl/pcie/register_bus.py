"""How PCIe reaches the registers of BAR0."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class RegisterBus(wiring.Signature):
    """Register accesses, one a cycle, never refused; seen from the PCIe completer.

    Members
    -------
    address : Out(16), byte offset in BAR0, a multiple of 4
    read : Out(1)
    read_data : In(32), valid in the cycle after `read`
    write : Out(1)
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
