"""Clocked read ports of memories as registers behind combinational ones.

Amaranth's simulator gives what such a port has read an initial value, and a reset of its domain
clears it in cycles without a read. The RTLIL that Amaranth writes does neither.
"""

from amaranth.hdl import Cat, Const, Fragment, MemoryInstance, Mux, Signal
from amaranth.hdl._ast import Switch

from halfdome.sim.compiled.flow import fragments


def register_read_ports(top: Fragment) -> None:
    """Changes every memory of a design whose domains are lowered."""
    for parent in list(fragments(top)):
        for memory, _, _ in list(parent.subfragments):
            if isinstance(memory, MemoryInstance):
                for index, port in enumerate(memory._read_ports):
                    if port._domain != "comb":
                        registers = Fragment(src_loc=memory.src_loc)
                        parent.add_subfragment(registers)
                        memory._read_ports[index] = _registered(memory, port, registers)


def _registered(memory: MemoryInstance, port, registers: Fragment):
    """The combinational port behind which `registers` does what the clocked `port` did."""
    domain, data = memory.domains[port._domain], port._data
    stored = Signal(len(data), name="stored")
    value = stored
    for index in port._transparent_for:
        write = memory._write_ports[index]
        bits = Cat(bit.replicate(write._granularity) for bit in write._en)
        written = (value & ~bits) | (write._data & bits)
        value = Mux(port._addr == write._addr, written, value)
    read = Signal(len(data), name="read", init=Const(data.init, len(data)).value, reset_less=True)
    steps = [Switch(port._en, [(1, read.eq(value), None)], src_loc=memory.src_loc)]
    if domain.rst is not None and not data.reset_less:
        steps.insert(0, Switch(domain.rst, [(1, read.eq(read.init), None)], src_loc=memory.src_loc))
    registers.add_domains(domain)
    registers.add_statements(port._domain, steps)
    registers.add_statements("comb", data.eq(read))
    return MemoryInstance._ReadPort(
        domain="comb", addr=port._addr, data=stored, en=Const(1), transparent_for=()
    )
