"""What the components of the engines say of themselves: the parameters of their timing."""

import gc
import warnings
from functools import cache

from amaranth.hdl import UnusedElaboratable

from halfdome.hdl.arith.convert import FloatNarrow
from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.array import RUN_WORDS, prefetch_words
from halfdome.hdl.gather.convert import PooledConverter
from halfdome.hdl.gather.engine import BUFFERED_ROWS
from halfdome.hdl.gather.group import group_elements
from halfdome.hdl.gather.interleave import LOOKUPS
from halfdome.hdl.gather.lanes import AccumulateLanes
from halfdome.hdl.gather.mean import BagMean
from halfdome.hdl.gather.rows import RowFetcher
from halfdome.hdl.gather.scale import RowScaler
from halfdome.hdl.gather.shape import max_factored_words
from halfdome.hdl.matmul.engine import LINES_AHEAD, PARAM_WORDS, WEIGHT_WORDS, MatmulEngine
from halfdome.hdl.matmul.feeder import Feeder
from halfdome.hdl.matmul.job import JobDecoder
from halfdome.hdl.matmul.params import PARAM_BYTES
from halfdome.hdl.matmul.requantiser import Requantiser
from halfdome.hdl.matmul.writer import RowWriter, span_bytes
from halfdome.hdl.vector.adder import WindowAdder
from halfdome.hdl.vector.engine import QUEUE_WORDS
from halfdome.hdl.vector.inverse import Inverse
from halfdome.hdl.vector.lanes import VectorLanes
from halfdome.hdl.vector.lookup import ByteTable
from halfdome.hdl.vector.maximum import WindowMaximum
from halfdome.hdl.vector.mean import MeanScaler
from halfdome.hdl.vector.mean_adder import MeanAdder
from halfdome.hdl.vector.pairs import BytePairs
from halfdome.hdl.vector.scaler import TotalScaler
from halfdome.hdl.vector.source import read_ahead_words
from halfdome.hdl.vector.unit import byte_size, word_size
from halfdome.hdl.vector.walker import WindowWalker


@cache
def attributes(config: CardConfig) -> dict[str, int]:
    """By name: the engine's, then what it is. Cycles, words, or bytes."""
    with warnings.catch_warnings():
        # They are asked, not built.
        warnings.simplefilter("ignore", UnusedElaboratable)
        engines = {"matmul": _matmul(config), "vector": _vector(config), "gather": _gather(config)}
        gc.collect()  # some of them hold each other
    return {
        f"{engine}_{name}": value
        for engine, values in engines.items()
        for name, value in values.items()
    }


def _matmul(config: CardConfig) -> dict[str, int]:
    engine = MatmulEngine(config)
    writer = RowWriter(config, engine.output_delay, engine.tiles)
    requantiser = Requantiser(columns=config.array_columns)
    return {
        "decode_latency": JobDecoder.latency,
        "convolution_latency": JobDecoder.convolution_latency,
        "lines_ahead": LINES_AHEAD,
        "weight_words": WEIGHT_WORDS,
        "rows_per_stage": config.rows_per_stage,
        "param_words": PARAM_WORDS,
        "param_bytes": PARAM_BYTES,
        "pass_cycles": Feeder.pass_cycles,
        "totals_delay": engine.totals_delay,
        "output_delay": engine.output_delay,
        # From a row's entry until its multipliers are taken.
        "multiplier_delay": engine.totals_delay + requantiser.multiplier_delay - 1,
        "tiles": engine.tiles,
        "slots": writer.slots,
        "span_bytes": span_bytes(config),
    }


def _vector(config: CardConfig) -> dict[str, int]:
    lanes = VectorLanes(config.vector_lanes, in_turns=config.lanes_in_turns)
    scaler, means = TotalScaler(config), MeanScaler(config)
    return {
        "read_ahead_words": read_ahead_words(config),
        "queue_words": QUEUE_WORDS,
        "byte_size": byte_size(config),
        "word_size": word_size(config),
        "lanes_latency": lanes.latency,
        "function_latency": lanes.table_latency,
        "reduce_latency": lanes.reduce_latency,
        # Cycles after a group, a bit each, in which none comes where lanes take turns.
        "table_turns": (1 << lanes.table_turn) * config.lanes_in_turns,
        "quotient_turns": sum(1 << turn for turn in lanes.quotient_turns) * config.lanes_in_turns,
        "reduce_turns": sum(1 << turn for turn in lanes.reduce_turns),
        "table_cycles": ByteTable.load_cycles,
        "table_latency": ByteTable.latency,
        "pairs_latency": BytePairs.latency,
        "maximum_latency": WindowMaximum.latency,
        "step_cycles": WindowWalker.latency,
        "adder_latency": WindowAdder.latency,
        "scaler_room": scaler.room,
        "scaler_parts": scaler.parts,
        # From the choice of a group's last part until it leaves.
        "scaler_delay": scaler.latency - scaler.parts,
        "mean_adder_latency": MeanAdder(config, BytePairs.term_latency).latency,
        "mean_delay": means.latency - means.parts,
        "inverse_latency": Inverse.latency,
    }


def _gather(config: CardConfig) -> dict[str, int]:
    lanes, mean, converter = AccumulateLanes(config), BagMean(config), PooledConverter(config)
    return {
        "prefetch_words": prefetch_words(config),
        "run_words": RUN_WORDS,
        "contexts": config.gather_contexts,
        "lookups": LOOKUPS,
        "address_latency": RowFetcher.address_latency,
        "row_words": 2 * max_factored_words(config),
        "buffered_rows": BUFFERED_ROWS,
        "scaler_latency": RowScaler(config, BUFFERED_ROWS).latency,
        "chain_latency": lanes.chain_latency,
        "lanes_turn": lanes.turn,
        "in_turns": int(config.gather_in_turns),
        "lanes_room": lanes.output_depth,
        "group_elements": group_elements(config),
        "mean_steps": mean.steps,
        "mean_latency": mean.latency,
        "mean_room": mean.depth,
        "half_latency": FloatNarrow.latency,
        "byte_latency": converter.latency,
        "convert_room": converter.depth,
    }
