"""The AXI4 manager port of the card, with the bus standard's signal names.

Source: AMBA AXI and ACE Protocol Specification, ARM IHI 0022. INCR bursts of whole bus words only.
"""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import ADDRESS_BITS, CardConfig

BURST_INCR = 1


class Axi4(wiring.Signature):
    """AXI4 seen from the manager (the card). `id_bits` is the width of every ID."""

    def __init__(self, config: CardConfig, id_bits: int):
        self.id_bits = id_bits
        data_bits = config.bus_bytes * 8
        address = {"id": id_bits, "addr": ADDRESS_BITS, "len": 8, "size": 3, "burst": 2}
        members = {}
        for channel in ("aw", "ar"):
            members |= {channel + name: Out(width) for name, width in address.items()}
            members |= {channel + "valid": Out(1), channel + "ready": In(1)}
        members |= {"wdata": Out(data_bits), "wstrb": Out(data_bits // 8), "wlast": Out(1)}
        members |= {"wvalid": Out(1), "wready": In(1)}
        members |= {"bid": In(id_bits), "bresp": In(2), "bvalid": In(1), "bready": Out(1)}
        members |= {"rid": In(id_bits), "rdata": In(data_bits), "rresp": In(2), "rlast": In(1)}
        members |= {"rvalid": In(1), "rready": Out(1)}
        super().__init__(members)
