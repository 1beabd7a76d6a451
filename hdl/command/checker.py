"""The gate in front of the engines: every field of a descriptor is checked before anything acts."""

from collections.abc import Collection
from itertools import chain

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.command.fetcher import is_extended
from halfdome.hdl.command.overlap import OverlapChecker
from halfdome.hdl.command.range_checker import TAIL_BITS, RangeChecker
from halfdome.hdl.command.rules.rule import Access, Operand, Rule
from halfdome.hdl.command.rules.tables import operands, rules
from halfdome.hdl.command.turns import queue_of, ring_slot
from halfdome.hdl.commands import Engine, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import EXTENSION, HEADER, NO_COUNTER, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS, WAIT
from halfdome.hdl.memory.arbiter import index_bits


def checked_descriptor(config: CardConfig) -> data.StructLayout:
    """A descriptor with its second wait, the checker's verdict and the queue it joins."""
    return data.StructLayout(
        {
            "descriptor": DESCRIPTOR_BITS,
            "second": WAIT,
            "status": Status,
            "detail": 8,
            "core": index_bits(config.cores),
            "engine": Engine,
        }
    )


_CHOSEN = {"base": 64, "count": 32, "stride": 32, "elements": TAIL_BITS, "scale": 2}
"""Wide members of an `Operand` and their bits: few different ones, whatever the command."""


def _key(operand: Operand, name: str) -> str:
    """Equal for equal expressions."""
    return repr(Value.cast(getattr(operand, name)))


class DescriptorChecker(wiring.Component):
    """Passes every command on, in order, with the first rule it breaks.

    A descriptor that has an extension is followed by it in the next cycle: the two are one command
    from here on. If nothing follows, the ring was restarted, and there is no such command.

    A bad descriptor still joins a queue, so that its completion, wait and signal keep their place:
    the engine of its opcode's high nibble (LOAD if there is none), the core whose ring it is in.

    Parameters
    ----------
    config : CardConfig
    engines : those that there are; opcodes of others are unknown

    Members
    -------
    i : In(stream of `ring_slot`)
    o : Out(stream of `checked_descriptor`)
    idle : Out(1), no command inside; otherwise it is one of core `o.p.core`

    One command at a time. It leaves `fence_latency` cycles after it came if it has no operands,
    `latency` + one for each operand otherwise, and one more for an extension.
    """

    fence_latency = 3
    latency = RangeChecker.latency + 4

    def __init__(self, config: CardConfig, engines: Collection[Engine] = tuple(Engine)):
        self._config = config
        self._engines = engines
        super().__init__(
            {
                "i": In(stream.Signature(ring_slot(config))),
                "o": Out(stream.Signature(checked_descriptor(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.ranges = ranges = RangeChecker(config)
        m.submodules.overlap = overlap = OverlapChecker(config)

        descriptor = Signal(DESCRIPTOR_BITS)
        header = data.View(layout(HEADER), descriptor)
        core = Signal(index_bits(config.cores))
        engine = Signal(Engine)
        m.d.comb += engine.eq(queue_of(descriptor))

        extension = Signal(DESCRIPTOR_BITS)
        extended = header.extension == 1
        second = data.View(layout(EXTENSION), extension)
        table = rules(descriptor, extension, core, config, self._engines)
        broken = Signal(len(table))
        m.d.sync += broken.eq(Cat(rule.broken for rule in table))

        # One operand a cycle goes to the range checker while the other rules are looked at.
        checked = operands(descriptor, config, self._engines)
        counted = {opcode: len(entries) for opcode, entries in checked.items()}
        most = max(counted.values())
        total, issued, returned = (
            Signal(range(most + 1), name=n) for n in ("total", "issued", "returned")
        )
        operand = Signal(ranges.i.p.shape())
        access = Signal(Access)
        apart, stride_detail = Signal(), Signal(8)
        extent = Signal(overlap.i.p.shape())
        issue, issuing = Signal(), Signal()
        # Which of the different values comes first, then the value: commands share most.
        entries = list(chain(*checked.values()))
        numbers = {}
        member = {name: Signal(width, name=name) for name, width in _CHOSEN.items()}
        for name, signal in member.items():
            values = {_key(entry, name): getattr(entry, name) for entry in entries}
            chosen = Signal(range(len(values)), name=f"chosen_{name}")
            numbers[name] = chosen, list(values)
            with m.Switch(chosen):
                for number, value in enumerate(values.values()):
                    with m.Case(number):
                        m.d.comb += signal.eq(value)
        m.d.sync += [
            operand.base.eq(member["base"]),
            operand.steps.eq(member["count"] - 1),
            operand.stride.eq(member["stride"]),
            operand.tail.eq(member["elements"] << member["scale"]),
        ]
        with m.Switch(header.opcode):
            for opcode, entries in checked.items():
                with m.Case(opcode):
                    m.d.comb += total.eq(len(entries))
                    with m.Switch(issued):
                        for number, entry in enumerate(entries):
                            with m.Case(number):
                                m.d.comb += [
                                    chosen.eq(keys.index(_key(entry, name)))
                                    for name, (chosen, keys) in numbers.items()
                                ]
                                m.d.sync += [
                                    operand.needed.eq(entry.needed),
                                    operand.detail.eq(entry.detail),
                                    access.eq(entry.access),
                                    apart.eq(entry.apart),
                                    stride_detail.eq(entry.stride_detail),
                                ]
        needed = register(m, operand.needed, "needed", cycles=RangeChecker.latency)
        m.d.sync += [operand.core.eq(core), issuing.eq(issue)]
        m.d.comb += [
            ranges.i.p.eq(operand),
            ranges.i.valid.eq(issuing),
            extent.start.eq(operand.base),
            extent.many.eq(operand.steps.any()),
            extent.stride.eq(operand.stride),
            extent.row_bytes.eq(operand.tail),
            extent.written.eq((access == Access.WRITE) | (access == Access.WRITE_IN_PLACE)),
            extent.in_place.eq((access == Access.WRITE_IN_PLACE) | (access == Access.READ)),
            extent.detail.eq(operand.detail),
            overlap.i.p.eq(register(m, extent, "extent", cycles=RangeChecker.latency)),
            overlap.i.p.end.eq(ranges.o.p.end),
            overlap.i.valid.eq(ranges.o.valid & needed),
        ]

        short, short_detail = Signal(), Signal(8)
        with m.If(issuing & apart & extent.many & (operand.stride < operand.tail) & ~short):
            m.d.sync += [short.eq(1), short_detail.eq(stride_detail)]
        overlaps, overlap_detail = Signal(), Signal(8)
        with m.If(overlap.o.valid & overlap.o.p.overlaps & ~overlaps):
            m.d.sync += [overlaps.eq(1), overlap_detail.eq(overlap.o.p.detail)]
        outside, outside_detail = Signal(), Signal(8)
        with m.If(ranges.o.valid):
            m.d.sync += returned.eq(returned + 1)
            with m.If(ranges.o.p.outside & ~outside):
                m.d.sync += [outside.eq(1), outside_detail.eq(ranges.o.p.detail)]

        m.d.comb += [
            self.o.p.descriptor.eq(descriptor),
            self.o.p.second.counter.eq(Mux(extended, second.second_wait_counter, NO_COUNTER)),
            self.o.p.second.value.eq(second.second_wait_value),
            self.o.p.core.eq(core),
            self.o.p.engine.eq(engine),
        ]
        status, detail = Signal(Status), Signal(8)
        m.d.comb += [self.o.p.status.eq(status), self.o.p.detail.eq(detail)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.i.ready.eq(1), overlap.restart.eq(1)]
                m.d.sync += [descriptor.eq(self.i.p.bits), core.eq(self.i.p.core)]
                m.d.sync += [issued.eq(0), returned.eq(0)]
                m.d.sync += [short.eq(0), outside.eq(0), overlaps.eq(0)]
                with m.If(self.i.valid):
                    m.next = "CHECK"
                    with m.If(is_extended(self.i.p.bits)):
                        m.next = "EXTEND"
            with m.State("EXTEND"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += extension.eq(self.i.p.bits)
                m.next = "IDLE"
                with m.If(self.i.valid):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += issue.eq(issued != total)
                m.d.sync += issued.eq(issued + issue)
                with m.If(returned == total):
                    m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += [status.eq(Status.OK), detail.eq(0)]
                with m.If(overlaps):
                    m.d.sync += [status.eq(Status.BAD_OVERLAP), detail.eq(overlap_detail)]
                with m.If(outside):
                    m.d.sync += [status.eq(Status.BAD_RANGE), detail.eq(outside_detail)]
                # The last assignment wins: the earliest rule comes last, and a stride that is too
                # short between dimensions and alignment.
                strides = Rule(short, Status.BAD_DIMENSION, short_detail)
                found = [rule._replace(broken=bit) for rule, bit in zip(table, broken, strict=True)]
                alignment = [rule for rule in found if rule.status is Status.BAD_ALIGNMENT]
                others = [rule for rule in found if rule.status is not Status.BAD_ALIGNMENT]
                for rule in reversed([*others, strides, *alignment]):
                    with m.If(rule.broken):
                        m.d.sync += [status.eq(rule.status), detail.eq(rule.detail)]
                m.next = "OUTPUT"
            with m.State("OUTPUT"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
