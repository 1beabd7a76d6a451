"""A client's way to several memories: its requests go where their address lies."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.arbiter import index_bits
from halfdome.hdl.memory.port import ReadPort, WritePort

OUTSTANDING_BITS = 8
"""Width of the counts of bursts and writes in flight; a port waits rather than overflow one."""


def _target(m, config: CardConfig, cores: range, address):
    """Position in `cores` of the scratchpad `address` lies in, then DRAM, then nowhere."""
    dram, nowhere = len(cores), len(cores) + 1
    above = Signal.like(address)
    core = above[exact_log2(config.scratchpad_bytes) :]
    target = Signal(index_bits(len(cores) + 2), init=nowhere)
    m.d.comb += above.eq(address - config.scratchpad_address(cores.start))
    with m.If(address < config.scratchpad_base):
        m.d.comb += target.eq(dram)
    with m.Elif(core < len(cores)):
        m.d.comb += target.eq(core)
    return target


class ReadSwitch(wiring.Component):
    """Sends reads to scratchpads or DRAM and returns the words in request order.

    Parameters
    ----------
    cores : range
        Cores whose scratchpads can be reached.

    Members
    -------
    client : In(ReadPort)
    scratchpads : Out(ReadPort).array(len(cores))
    dram : Out(ReadPort)

    Adds no latency. A request for another memory waits until every earlier one is answered. An
    address outside the memories reads a word of the last scratchpad.
    """

    def __init__(self, config: CardConfig, cores: range):
        self._config = config
        self._cores = cores
        super().__init__(
            {
                "client": In(ReadPort(config)),
                "scratchpads": Out(ReadPort(config)).array(len(cores)),
                "dram": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        targets = [*self.scratchpads, self.dram]
        request, response = self.client.request, self.client.response
        found = _target(m, self._config, self._cores, request.p.address)
        wanted = Signal.like(found)
        current = Signal.like(found)
        bursts = Signal(OUTSTANDING_BITS)
        allowed = Signal()
        m.d.comb += [
            wanted.eq(found),
            allowed.eq((bursts == 0) | ((wanted == current) & ~bursts.all())),
            # Only the current memory has anything to answer.
            response.valid.eq(Cat(target.response.valid for target in targets).any()),
        ]
        with m.If(found == len(targets)):
            m.d.comb += wanted.eq(len(self.scratchpads) - 1)
        for number, target in enumerate(targets):
            chosen = wanted == number
            m.d.comb += [
                target.request.p.eq(request.p),
                target.request.valid.eq(request.valid & allowed & chosen),
            ]
            with m.If(chosen):
                m.d.comb += request.ready.eq(target.request.ready & allowed)
        with m.Switch(current):
            for number, target in enumerate(targets):
                with m.Case(number):
                    m.d.comb += response.p.eq(target.response.p)
        asked = request.valid & request.ready
        answered = response.valid & response.p.last
        m.d.sync += bursts.eq(bursts + asked - answered)
        with m.If(asked):
            m.d.sync += current.eq(wanted)
        return m


class WriteSwitch(wiring.Component):
    """Sends writes to scratchpads or DRAM.

    Parameters
    ----------
    cores : range
        Cores whose scratchpads can be reached.

    Members
    -------
    client : In(WritePort), idle when every memory is
    scratchpads : Out(WritePort).array(len(cores))
    dram : Out(WritePort)

    Adds no latency. Writes to different memories may pass each other. A write outside the memories
    is dropped.
    """

    def __init__(self, config: CardConfig, cores: range):
        self._config = config
        self._cores = cores
        super().__init__(
            {
                "client": In(WritePort(config)),
                "scratchpads": Out(WritePort(config)).array(len(cores)),
                "dram": Out(WritePort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        targets = [*self.scratchpads, self.dram]
        request = self.client.request
        wanted = _target(m, self._config, self._cores, request.p.address)
        m.d.comb += [
            self.client.idle.eq(Cat(target.idle for target in targets).all()),
            request.ready.eq(wanted == len(targets)),
        ]
        for number, target in enumerate(targets):
            chosen = wanted == number
            m.d.comb += [
                target.request.p.eq(request.p),
                target.request.valid.eq(request.valid & chosen),
            ]
            with m.If(chosen):
                m.d.comb += request.ready.eq(target.request.ready)
        return m
