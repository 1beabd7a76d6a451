"""ReadBuffer and SequentialReader deliver every word once, in order, whatever the memory does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hdl.config import PRESETS
from hdl.memory.reader import SequentialReader
from tests.bench import Memory, monitor, simulate, sink, source

TINY = PRESETS["tiny"]


@given(
    runs=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=6),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_runs_of_words_arrive_whole_and_in_order(runs, stall, seed):
    dut = SequentialReader(TINY, depth=8)
    memory = Memory(TINY, 1024, seed=seed, stall=stall)
    memory.data[:] = np.random.default_rng(seed).integers(0, 256, 1024)
    word = TINY.bus_bytes
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
