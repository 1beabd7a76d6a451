"""ReadBuffer and SequentialReader deliver every word once, in order, whatever the memory does."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.hdl.memory.reader import SequentialReader
from tests.bench import Memory, monitor, simulate, sink, source

TINY = PRESETS["tiny"]


@given(
    runs=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=6),
    bus_bytes=st.sampled_from([16, 32, 64, 128]),
    bursts=st.integers(1, 4),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
@example(runs=[(0, 9)], bus_bytes=32, bursts=1, stall=0.0, seed=0)
def test_runs_of_words_arrive_whole_and_in_order(runs, bus_bytes, bursts, stall, seed):
    config = TINY.replace(bus_bytes=bus_bytes)
    word = config.bus_bytes
    dut = SequentialReader(config, depth=bursts * config.burst_words)
    memory = Memory(config, 49 * word, seed=seed, stall=stall, latency=(1, 1 + seed % 8))
    memory.data[:] = np.random.default_rng(seed).integers(0, 256, len(memory.data))
    expected = [
        memory.data[(start + i) * word : (start + i + 1) * word].tobytes()
        for start, words in runs
        for i in range(words)
    ]
    received = []
    simulate(
        dut,
        source(dut.i, [{"address": start * word, "words": words} for start, words in runs]),
        sink(dut.o, len(expected), received, seed=seed, stall=stall),
        background=[memory.read_port(dut.port), monitor(dut.o, "o"), monitor(dut.port.request)],
    )
    assert [int(p.data).to_bytes(word, "little") for p in received] == expected
