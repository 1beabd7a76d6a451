"""What Amaranth does with a netlist bit by bit, in fewer steps and with the same outcome.

A card's netlist has half a million bits, and Amaranth makes sure of each of them wherever it is
met. `halfdome.hdl.mends` puts these functions in the place of Amaranth's while RTLIL is written.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from amaranth.back import rtlil
from amaranth.hdl import _nir

_check_comb_cycles = _nir.Netlist.check_comb_cycles
_BIT_BY_BIT = ("~", "&", "|", "^")
"""Operators of which each bit depends on the same bit of each operand."""
_BIT = (1 << 16) - 1
"""Of a net that is a cell's output: which of its bits it is. What is left says which cell."""


def new_value(cls: type, nets: _nir.Net | Iterable[_nir.Net] = ()) -> _nir.Value:
    """`Value(nets)`, which believes that nets are nets."""
    return tuple.__new__(cls, (nets,) if isinstance(nets, _nir.Net) else nets)


def resolve_value(netlist: _nir.Netlist, value: _nir.Value) -> _nir.Value:
    """The value with each net that stands for another one replaced by that one."""
    if not value or min(value) >= 0:
        return value
    connections, nets = netlist.connections, []
    for net in value:
        while net < 0:
            net = connections[net]
        nets.append(net)
    return _nir.Value(nets)


def check_comb_cycles(netlist: _nir.Netlist) -> None:
    """Raises `CombinationalCycle` if there is one: Amaranth finds it again, and says where."""
    if _has_cycle(netlist):
        _check_comb_cycles(netlist)


def _has_cycle(netlist: _nir.Netlist) -> bool:
    """Whether a net depends on itself through no register, looked for in depth.

    Bits that depend on the same nets, as those of a sum, are looked at as one.
    """
    alike = [_bits_are_alike(cell) for cell in netlist.cells]
    path: set[int] = set()
    done: set[int] = {0, 1}
    for start in _outputs(netlist, alike):
        if start in done:
            continue
        path.add(start)
        stack = [(start, iter(_sources(netlist, alike, start)))]
        while stack:
            net, sources = stack[-1]
            for source in sources:
                if source > 1 and alike[source >> 16]:
                    source &= ~_BIT
                if source in done:
                    continue
                if source in path:
                    return True
                path.add(source)
                stack.append((source, iter(_sources(netlist, alike, source))))
                break
            else:
                stack.pop()
                path.remove(net)
                done.add(net)
    return False


def _bits_are_alike(cell: _nir.Cell) -> bool:
    """Whether all bits of a cell's output depend on the same nets."""
    if isinstance(cell, _nir.Operator):
        return len(cell.inputs) < 3 and cell.operator not in _BIT_BY_BIT
    return isinstance(cell, _nir.Part | _nir.Matches)


def _outputs(netlist: _nir.Netlist, alike: list[bool]) -> Iterator[int]:
    """Each net that may depend on others, of those that are alike the first."""
    for index, cell in enumerate(netlist.cells):
        if alike[index]:
            yield index << 16
        else:
            yield from cell.output_nets(index)
    yield from netlist.connections


def _sources(netlist: _nir.Netlist, alike: list[bool], net: int) -> Iterable[int]:
    """The nets that a net depends on at once."""
    if net < 0:
        return (netlist.connections[net],)  # pyright: ignore[reportArgumentType]
    cell, bit = netlist.cells[net >> 16], net & _BIT
    if not isinstance(cell, _nir.Operator):
        return [source for source, _ in cell.comb_edges_to(bit)]
    if alike[net >> 16]:
        return chain(*cell.inputs)
    if cell.operator == "m":
        chosen_by, one, other = cell.inputs
        return chosen_by[0], one[bit], other[bit]
    return [value[bit] for value in cell.inputs]


def sigspec(emitter: rtlil.ModuleEmitter, *parts: _nir.Net | Iterable[_nir.Net]) -> str:
    """The nets of all parts as RTLIL writes them: constants and pieces of wires."""
    nets: list[_nir.Net] = []
    for part in parts:
        if isinstance(part, _nir.Net):
            nets.append(part)
        else:
            nets.extend(part)
    chunks, begin = [], 0
    while begin < len(nets):
        end = begin + 1
        if nets[begin] <= 1:
            while end < len(nets) and nets[end] <= 1:
                end += 1
            bits = "".join("01"[net] for net in reversed(nets[begin:end]))
            chunks.append(f"{end - begin}'{bits}")
        else:
            wire, first = emitter.nets[nets[begin]]
            last = first
            while end < len(nets) and nets[end] > 1:
                if emitter.nets[nets[end]] != (wire, last + 1):
                    break
                end, last = end + 1, last + 1
            place = first if first == last else f"{last}:{first}"
            chunks.append(f"{wire.name} [{place}]")
        begin = end
    if len(chunks) == 1:
        return chunks[0]
    return "{ " + " ".join(reversed(chunks)) + " }"
