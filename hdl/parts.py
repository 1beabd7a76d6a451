"""What parts of a card take on a Lattice ECP5 and in silicon, as Yosys counts it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from amaranth.lib import wiring

from halfdome.hdl.arith.fma import FloatFma
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.quantise import FloatToByte
from halfdome.hdl.arith.quotient import QuotientToByte
from halfdome.hdl.command.counters import CounterBank
from halfdome.hdl.command.fetcher import CommandFetcher
from halfdome.hdl.command.queues import EngineQueue
from halfdome.hdl.config import CardConfig
from halfdome.hdl.core import READERS, WRITERS
from halfdome.hdl.gather.cache import RowCache
from halfdome.hdl.gather.lane import Lane
from halfdome.hdl.gather.rows import RowFetcher
from halfdome.hdl.matmul.accumulators import Accumulators
from halfdome.hdl.matmul.activations import ActivationBuffer
from halfdome.hdl.memory.scratchpad import Scratchpad
from halfdome.hdl.pcie.requester import Requester
from halfdome.hdl.silicon import gates_and_bits
from halfdome.hdl.synthesis import UNITS, synthesise
from halfdome.hdl.vector.function import FunctionCurve, FunctionLane
from halfdome.hdl.vector.lanes import ElementDecoder, ElementEncoder
from halfdome.hdl.vector.pairs import PairLane

PARTS: dict[str, Callable[[CardConfig], wiring.Component]] = {
    "array": UNITS["array"],
    "accumulators": Accumulators,
    "activations": ActivationBuffer,
    "requantiser": UNITS["requantiser"],
    "lane": lambda config: Lane(config.gather_float_stages, in_turns=config.gather_in_turns),
    "quantiser": lambda config: FloatToByte(config.gather_float_stages),
    "row_fetcher": RowFetcher,
    "row_cache": RowCache,
    "decoder": lambda config: ElementDecoder(),
    "fma": lambda config: FloatFma(FLOAT32),
    "function": lambda config: FunctionCurve() if config.lanes_in_turns else FunctionLane(),
    "encoder": lambda config: ElementEncoder(),
    "quotient": lambda config: QuotientToByte(in_turns=config.lanes_in_turns),
    "pair": lambda config: PairLane(),
    "scratchpad": lambda config: Scratchpad(config, len(READERS) + 1, len(WRITERS) + 2),
    "queue": EngineQueue,
    "counters": CounterBank,
    "fetcher": CommandFetcher,
    "requester": lambda config: Requester(config, config.cores),
}
"""The parts of a card that parameters make larger, by name: one requantiser is of a column, one
lane and one quantiser of the gather unit's, decoder to quotient of an element of the vector
engine's, one pair of its byte lanes', one queue of an engine's."""


DELAY_NS = 10
"""What paths of a part may take. By itself a short part would be made as fast as it can be, with up
to twice the LUTs; beside the others of a card it is not what the clock waits for."""


def count(make: Callable[[], wiring.Component]) -> dict[str, int]:
    """`synthesise` and `gates_and_bits` of what is made, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        counted = synthesise(make(), Path(folder), DELAY_NS)
        return counted | gates_and_bits(make(), Path(folder))
