"""Where the cycles went and how many bytes moved."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import Activity
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS
from halfdome.hdl.registers import ACTIVITIES, TRAFFIC, activity_offset, traffic_offset

COUNT_BITS = 48
"""At 1 GHz a count wraps after three days."""
TRAFFIC_BITS = BYTE_COUNT_BITS
"""Counted in one cycle: up to the bytes of the largest packet."""


class Statistics(wiring.Component):
    """Counts every cycle since reset, by engine and activity, and bytes by kind of traffic.

    Members
    -------
    activity : In(Activity).array(cores, engines)
    traffic : In(TRAFFIC_BITS).array(len(TRAFFIC)), what this cycle adds to each of
        `registers.TRAFFIC`
    cycles : Out(48)
    snapshot : In(1), keep all counts of this moment
    snapshot_cycles : Out(48)
    address : In(16), byte offset in BAR0 of a 64-bit count
    read : In(1)
    value : Out(48), the kept count at `address`, in the cycle after `read`; 0 where there is none

    In every cycle the four counts of an engine sum to `cycles`. Bytes are counted a cycle late.

    What counts cycles is called `cycles` or `..._cycles`: the only registers that may go on in a
    card at rest (`Card.rest_period`). The rest of the card looks at them only when something
    happens.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "activity": In(Activity).array(config.cores, len(Engine)),
                "traffic": In(TRAFFIC_BITS).array(len(TRAFFIC)),
                "cycles": Out(COUNT_BITS),
                "snapshot": In(1),
                "snapshot_cycles": Out(COUNT_BITS),
                "address": In(16),
                "read": In(1),
                "value": Out(COUNT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.cycles.eq(self.cycles + 1)
        kept_of = [(self.snapshot_cycles, self.cycles)]
        kept_at = {}

        def counter(offset: int, name: str) -> Signal:
            """A new count, its snapshot readable at `offset`."""
            live = Signal(COUNT_BITS, name=name)
            kept_at[offset >> 3] = kept = Signal(COUNT_BITS, name=f"kept_{name}")
            kept_of.append((kept, live))
            return live

        for core in range(self._config.cores):
            for engine in Engine:
                with m.Switch(self.activity[core][engine]):
                    for activity, activity_name in enumerate(ACTIVITIES):
                        offset = activity_offset(core, engine, activity_name)
                        name = f"core{core}_{engine.name.lower()}_{activity_name}_cycles"
                        live = counter(offset, name)
                        with m.Case(Activity(activity)):
                            m.d.sync += live.eq(live + 1)
        for number, name in enumerate(TRAFFIC):
            live = counter(traffic_offset(name), name)
            increment = Signal(TRAFFIC_BITS, name=f"{name}_increment")
            m.d.sync += [increment.eq(self.traffic[number]), live.eq(live + increment)]

        with m.If(self.snapshot):
            m.d.sync += [kept.eq(live) for kept, live in kept_of]
        with m.If(self.read):
            m.d.sync += self.value.eq(0)
            with m.Switch(self.address[3:]):
                for index, kept in kept_at.items():
                    with m.Case(index):
                        m.d.sync += self.value.eq(kept)
        return m
