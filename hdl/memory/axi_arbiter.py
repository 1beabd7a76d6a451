"""Every DRAM client of the card on one AXI4 manager port."""

from collections.abc import Sequence
from itertools import islice

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.arbiter import StreamArbiter, index_bits
from halfdome.hdl.memory.axi import BURST_INCR, Axi4
from halfdome.hdl.memory.hold_back import HoldBack
from halfdome.hdl.memory.port import ReadPort, WritePort, read_request, write_request

OUTSTANDING_WRITES = 255
"""Writes of one port between acceptance and response; the port waits at this many."""


def dram_writes(config: CardConfig) -> data.StructLayout:
    """What happens to DRAM, a cycle late: a write goes out (`valid`), to the word at `address`;
    some port has a write that reads may not see yet (`pending`)."""
    return data.StructLayout({"valid": 1, "address": config.address_bits, "pending": 1})


class AxiArbiter(wiring.Component):
    """Shares one AXI4 manager fairly between groups of read and write ports.

    The ID of a transaction, one of `ids`, is that of its port, so the memory may reorder between
    ports but keeps each port's order. Read data is always accepted. A write is one beat; its port
    is idle again when the response is there. The memory is expected to answer OKAY: responses are
    not looked at.

    Parameters
    ----------
    reads, writes : int, at least one
        Ports of each group: see `StreamArbiter`, whose `numbers` are the IDs.

    Members
    -------
    reads : In(ReadPort).array(sum(reads)), group by group
    writes : In(WritePort).array(sum(writes)), group by group
    urgent : In(groups), those that go before others, see `UrgentFirst` and `HoldBack`
    axi : Out(Axi4)
    read_bytes : Out, bytes read in this cycle
    write_bytes : Out, bytes written in this cycle (whose strobe is set)
    dram_writes : Out(`dram_writes`)

    A request reaches AXI `request_latency` cycles after it is taken, a read word its port
    `response_latency` cycles after its beat. One read burst, one read word and one write a cycle.
    """

    response_latency = 1

    def __init__(self, config: CardConfig, reads: Sequence[int], writes: Sequence[int]):
        self._config = config
        self._reads = reads
        self._read_arbiter = StreamArbiter(read_request(config), *reads)
        self._write_arbiter = StreamArbiter(write_request(config), *writes)
        self.request_latency = max(self._read_arbiter.latency, self._write_arbiter.latency)
        self.ids = {*self._read_arbiter.numbers, *self._write_arbiter.numbers}
        self.id_bits = index_bits(max(self.ids) + 1)
        super().__init__(
            {
                "reads": In(ReadPort(config)).array(sum(reads)),
                "writes": In(WritePort(config)).array(sum(writes)),
                "urgent": In(len(reads)),
                "axi": Out(Axi4(config, self.id_bits)),
                "read_bytes": Out(range(config.bus_bytes + 1)),
                "write_bytes": Out(range(config.bus_bytes + 1)),
                "dram_writes": Out(dram_writes(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self._read_arbiter.urgent.eq(self.urgent),
            self._write_arbiter.urgent.eq(self.urgent),
        ]
        self._read(m)
        self._write(m)
        return m

    def _read(self, m):
        config, axi = self._config, self.axi
        m.submodules.read_arbiter = arbiter = self._read_arbiter
        for port, i in zip(self.reads, arbiter.i, strict=True):
            m.d.comb += [
                i.p.eq(port.request.p),
                i.valid.eq(port.request.valid),
                port.request.ready.eq(i.ready),
            ]
        if len(self._reads) > 1:
            self._hold_back(m)
        chosen = arbiter.o
        m.d.comb += [
            axi.arvalid.eq(chosen.valid),
            chosen.ready.eq(axi.arready),
            axi.arid.eq(chosen.p.index),
            axi.araddr.eq(chosen.p.p.address),
            axi.arlen.eq(chosen.p.p.count_minus_1),
            axi.arsize.eq(exact_log2(config.bus_bytes)),
            axi.arburst.eq(BURST_INCR),
            axi.rready.eq(Const(1)),
        ]
        word = Signal.like(self.reads[0].response.p)
        arrived = Signal()
        port_number = Signal(self.id_bits)
        m.d.sync += [arrived.eq(axi.rvalid), port_number.eq(axi.rid)]
        with m.If(axi.rvalid):
            m.d.sync += [word.data.eq(axi.rdata), word.last.eq(axi.rlast)]
        for number, port in zip(arbiter.numbers, self.reads, strict=True):
            m.d.comb += [
                port.response.valid.eq(arrived & (port_number == number)),
                port.response.p.eq(word),
            ]
        with m.If(arrived):
            m.d.comb += self.read_bytes.eq(config.bus_bytes)

    def _hold_back(self, m):
        axi, inputs = self.axi, iter(self._read_arbiter.i)
        m.submodules.hold_back = hold_back = HoldBack(self._reads)
        m.d.comb += [
            hold_back.urgent.eq(self.urgent),
            self._read_arbiter.held.eq(hold_back.held),
        ]
        place_bits = index_bits(max(self._reads))
        for group, size in enumerate(self._reads):
            ended = axi.rvalid & axi.rlast & (axi.rid >> place_bits == group)
            m.d.comb += [
                hold_back.taken[group].eq(
                    Cat(i.valid & i.ready for i in islice(inputs, size)).any()
                ),
                hold_back.ended[group].eq(ended),
            ]

    def _write(self, m):
        config, axi = self._config, self.axi
        m.submodules.write_arbiter = arbiter = self._write_arbiter
        for number, port, i in zip(arbiter.numbers, self.writes, arbiter.i, strict=True):
            waiting = Signal(range(OUTSTANDING_WRITES + 1), name=f"write{number}_waiting")
            full = waiting == OUTSTANDING_WRITES
            m.d.comb += [
                i.p.eq(port.request.p),
                i.valid.eq(port.request.valid & ~full),
                port.request.ready.eq(i.ready & ~full),
                port.idle.eq(waiting == 0),
            ]
            m.d.sync += waiting.eq(
                waiting + (i.valid & i.ready) - (axi.bvalid & (axi.bid == number))
            )
        m.d.sync += [
            self.dram_writes.pending.eq(Cat(~port.idle for port in self.writes).any()),
            self.dram_writes.valid.eq(axi.awvalid & axi.awready),
            self.dram_writes.address.eq(axi.awaddr),
        ]
        chosen = arbiter.o
        # Address and data of a write may be taken in different cycles.
        address_taken = Signal()
        data_taken = Signal()
        address_done = Signal()
        data_done = Signal()
        m.d.comb += [
            axi.awvalid.eq(chosen.valid & ~address_taken),
            axi.awid.eq(chosen.p.index),
            axi.awaddr.eq(chosen.p.p.address),
            axi.awlen.eq(0),
            axi.awsize.eq(exact_log2(config.bus_bytes)),
            axi.awburst.eq(BURST_INCR),
            axi.wvalid.eq(chosen.valid & ~data_taken),
            axi.wdata.eq(chosen.p.p.data),
            axi.wstrb.eq(chosen.p.p.strobe),
            axi.wlast.eq(1),
            axi.bready.eq(Const(1)),
            address_done.eq(address_taken | axi.awready),
            data_done.eq(data_taken | axi.wready),
            chosen.ready.eq(address_done & data_done),
        ]
        with m.If(chosen.valid):
            m.d.sync += [
                address_taken.eq(address_done & ~data_done),
                data_taken.eq(data_done & ~address_done),
            ]
        strobe = Signal(config.bus_bytes)
        m.d.sync += strobe.eq(0)
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += strobe.eq(axi.wstrb)
        m.d.comb += self.write_bytes.eq(sum(strobe))
