"""One core: its five engines and their ports to memory and PCIe."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.dma.load import LoadEngine
from halfdome.hdl.dma.store import StoreEngine
from halfdome.hdl.engine import Activity, engine_members
from halfdome.hdl.gather.engine import GatherEngine
from halfdome.hdl.gather.watched import WatchedCache
from halfdome.hdl.matmul.engine import MatmulEngine
from halfdome.hdl.memory.axi_arbiter import dram_writes
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.once import EnableInserter
from halfdome.hdl.pcie.port import DmaReadPort, PostedWritePort
from halfdome.hdl.registers import GATHER_WAITS
from halfdome.hdl.vector.engine import VectorEngine

READERS = (
    Engine.LOAD, Engine.STORE, *[Engine.VECTOR] * 2, *[Engine.GATHER] * 4, *[Engine.MATMUL] * 3,
)  # fmt: skip
"""Whose the memory read ports of a core are."""
WEIGHT_PORT = 9
"""Read port of the matmul engine's second operand."""
WRITERS = (Engine.LOAD, Engine.VECTOR, Engine.GATHER, Engine.MATMUL)
"""Whose the memory write ports of a core are."""


def core_members(config: CardConfig) -> dict[str, wiring.Member]:
    """Members of a core, all that it has to do with the rest of its card.

    engines : Out(engine_members()) for each of `Engine`, in its order
    reads : Out(ReadPort) for each of `READERS`
    writes : Out(WritePort) for each of `WRITERS`
    dma : Out(DmaReadPort)
    posted : Out(PostedWritePort)
    gather_waits : Out(4), see `GatherEngine`

    With a hot-row cache (`config.gather_cache_bytes`) also
    dram_writes : In(`dram_writes`)
    gather_cache_hits, gather_cache_misses : Out(1), pulses
    """
    members = {
        "engines": Out(wiring.Signature(engine_members())).array(len(Engine)),
        "reads": Out(ReadPort(config)).array(len(READERS)),
        "writes": Out(WritePort(config)).array(len(WRITERS)),
        "dma": Out(DmaReadPort(config)),
        "posted": Out(PostedWritePort(config)),
        "gather_waits": Out(len(GATHER_WAITS)),
    }
    if config.gather_cache_bytes:
        members |= {
            "dram_writes": In(dram_writes(config)),
            "gather_cache_hits": Out(1),
            "gather_cache_misses": Out(1),
        }
    return members


class Core(wiring.Component):
    """The engines of one core, side by side; they meet only in memory and in timeline counters.

    Registers of an engine without a command hold still (clock enable): that saves power, and most
    of the work of a simulator.

    Its members are `core_members`. A core without a command, whose inputs hold still,
    holds still as a whole: it repeats itself every `idle_period` cycles.
    """

    idle_period = 1

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(core_members(config))

    def elaborate(self, platform):
        m = Module()
        load = LoadEngine(self._config)
        store = StoreEngine(self._config)
        gather = GatherEngine(self._config)
        matmul = MatmulEngine(self._config)
        vector = VectorEngine(self._config)

        by_number = {
            Engine.LOAD: load,
            Engine.STORE: store,
            Engine.GATHER: gather,
            Engine.MATMUL: matmul,
            Engine.VECTOR: vector,
        }
        for engine, unit in by_number.items():
            outer = self.engines[engine]
            awake = Signal(name=f"{engine.name.lower()}_awake")
            m.d.comb += awake.eq(unit.command.valid | (unit.activity != Activity.IDLE))
            m.submodules[engine.name.lower()] = EnableInserter(awake)(unit)
            connect(m, flipped(outer.command), unit.command)
            connect(m, unit.result, flipped(outer.result))
            m.d.comb += outer.activity.eq(unit.activity)

        m.d.comb += self.gather_waits.eq(gather.waits)
        rows = gather.rows
        if self._config.gather_cache_bytes:
            m.submodules.gather_cache = cache = WatchedCache(self._config)
            connect(m, gather.rows, cache.client)
            rows = cache.memory
            m.d.comb += [
                cache.start.eq(gather.command.valid & gather.command.ready),
                cache.command.eq(gather.command.p),
                cache.writes.eq(self.dram_writes),
                self.gather_cache_hits.eq(cache.hit),
                self.gather_cache_misses.eq(cache.miss),
            ]

        reads = [
            load.source, store.source, vector.a, vector.b,
            gather.lengths, gather.indices, gather.weights, rows,
            matmul.x, matmul.w, matmul.params,
        ]  # fmt: skip
        writes = [load.destination, vector.y, gather.output, matmul.y]
        for outer, port in zip(self.reads, reads, strict=True):
            connect(m, port, flipped(outer))
        for outer, port in zip(self.writes, writes, strict=True):
            connect(m, port, flipped(outer))
        connect(m, load.dma, flipped(self.dma))
        connect(m, store.posted, flipped(self.posted))
        return m
