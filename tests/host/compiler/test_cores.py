"""Work of a card over its cores: with the bits of one, and each core its part."""

import random
import re
from collections import Counter, defaultdict
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Engine, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.host.bench import shapes
from halfdome.host.compiler import cores, sharing
from halfdome.host.compiler.compilation import Compilation
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.memory import buffers
from halfdome.host.compiler.operands import decoded
from halfdome.host.driver.kernels import queue_of
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.program import ProgramError
from halfdome.host.runtime.transfers import Transfers
from tests.host.golden_platform import GoldenPlatform
from tests.host.networks import Network, residual
from tests.host.recommenders import Recommender, check_responses, check_served

TINY, DEFAULT = PRESETS["tiny"].replace(counters=32), PRESETS["default"]
U8 = ElementFormat.UINT8


def product(rows, k, n):
    """A layer of `n` channels of `k`, for so many rows."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-9, 9, (n, k)).astype(np.int8), "b": np.zeros(n, np.int32),
        "m": np.full(n, 1e-3, np.float32),
    }  # fmt: skip
    node = Node("linear", ("x", "w", "b", "m"), "y", {"zero_point": 128})
    return Graph([Value("x", (rows, k), U8)], ["y"], [node], constants)


def busy(program, engine, count):
    """What an engine of each core of the first card is expected to be busy."""
    cycles = program.about["busy_cycles"][0]
    return [cycles.get(str(queue_of(core, engine)), 0.0) for core in range(count)]


def commands(program, opcode):
    """Commands of the first card, and the core of each."""
    part = program.parts[0]
    return [
        (each, queue // len(Engine))
        for each, queue in zip(decoded(part), part.queue.tolist(), strict=True)
        if each.opcode is opcode
    ]


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(1, 2), count=st.integers(2, 4),
    kind=st.sampled_from([Network, Recommender]), bus_bytes=st.sampled_from([16, 128]),
)  # fmt: skip
def test_any_network_has_its_bits_however_cores_share_it(seed, cards, count, kind, bus_bytes):
    made, draw = kind(seed), random.Random(seed)
    config, share = TINY.replace(cores=count, bus_bytes=bus_bytes), draw.choice([0.0, 0.7])

    def way(self, parts, rows=None):
        return cores._Way(parts, draw.random() * 1e4, draw.random() * 1e4, rows)

    def far(self):
        held = [each for each in buffers(self._lowering.commands) if each.contents is not None]
        return {each.held for each in held if draw.random() < share}

    with (
        patch.object(cores._Dealer, "_way", way),
        patch.object(Compilation, "_far_contents", far),
        patch.object(sharing, "LEAST_CYCLES", 0),
    ):
        try:
            requests = [made.request(), made.request()]
            check_served(made.graph, requests, config, cards=cards, seed=seed)
        except GraphError as error:
            if not re.search("order of columns|does not become", str(error)):
                raise


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("rows", "k", "n"), [(512, 64, 64), (32, 256, 1024)])
def test_arrays_share_a_product_evenly(rows, k, n, count):
    """By rows, or by channels if there are so few rows that loading tiles would take longer."""
    alone, shared = (
        compile(product(rows, k, n), DEFAULT.replace(cores=cores), values=False)
        for cores in (1, count)
    )
    [whole] = busy(alone, Engine.MATMUL, 1)
    assert busy(shared, Engine.MATMUL, count) == [pytest.approx(whole / count, rel=0.03)] * count


def test_wide_weights_in_far_memory_are_fetched_once():
    """64 rows pass a tile as fast as DRAM brings the next, to one of four cores at a time."""
    program = compile(product(64, 2560, 1024), PRESETS["quad"], values=False)
    parts = commands(program, Opcode.MATMUL)
    assert {program.segments[each.places["w"][0]].memory for each, _ in parts} == {"dram"}
    assert sum(each.values["k"] * each.values["n"] for each, _ in parts) == 2560 * 1024
    assert {core for _, core in parts} == set(range(4))


def test_rows_that_a_core_makes_and_reads_lie_near_it():
    """A sum goes row by row over what a product makes; a window sees rows of others, too."""
    near = {"scratchpad", "scratchpad 1"}
    for kernel, memories in ((1, near | {"dram"}), (3, {"dram"})):
        program = compile(residual(32, 64, 2, kernel), DEFAULT.replace(cores=2), values=False)
        sums = commands(program, Opcode.ADD_QUANTISED)
        read, made = (
            {program.segments[each.places[name][0]].memory for each, _ in sums} for name in "by"
        )
        assert read == near
        assert made == memories


def test_weights_in_far_memory_are_held_once():
    program = compile(residual(56, 64, 2, 3), DEFAULT.replace(cores=4), values=False)
    held = [s for s in program.segments if s.contents and s.memory == "dram"]
    assert len({segment.contents for segment in held}) == len(held)
    assert len({(s.position, s.name) for s in program.segments if s.contents}) == sum(
        bool(segment.contents) for segment in program.segments
    )


def test_a_core_reaches_its_own_near_memory_alone():
    program = compile(residual(28, 64, 2, 3, images=2), DEFAULT.replace(cores=3), values=False)
    part = program.parts[0]
    for each, queue in zip(decoded(part), part.queue.tolist(), strict=True):
        near = {
            program.segments[number].memory
            for number, remote in each.places.values()
            if not remote and program.segments[number].memory != "dram"
        }
        core = queue // len(Engine)
        assert near <= {f"scratchpad {core}" if core else "scratchpad"}


@pytest.mark.parametrize("cards", [1, 2])
def test_one_core_runs_what_it_ran(cards):
    """A second core changes nothing for those who do not use it."""
    graph = residual(14, 32, 2, 3)
    one = compile(graph, DEFAULT, cards, values=False)
    assert {int(queue) for part in one.parts for queue in part.queue} <= set(range(len(Engine)))
    assert {s.memory for s in one.segments} <= {"scratchpad", "dram", "host"}


def test_channels_are_cut_at_bus_words_where_groups_of_tiles_are_narrower():
    config, graph = TINY.replace(cores=3, bus_bytes=128), product(16, 16, 1000)
    assert config.group_tiles * config.array_columns < config.bus_bytes
    program = check_served(graph, [{"x": np.full((16, 16), 3, np.uint8)}], config, cores=range(3))
    assert {core for _, core in commands(program, Opcode.MATMUL)} == {0, 1, 2}


def test_what_no_cut_fits_is_done_by_one_core():
    attributes = {"scale": 0.5, "zero_point": 3, "format": U8}
    node = Node("quantise", ("x",), "y", attributes)
    graph = Graph([Value("x", (64, 48), ElementFormat.FLOAT32)], ["y"], [node], {})
    x = np.random.default_rng(0).normal(0, 30, (64, 48)).astype(np.float32)
    program = check_served(graph, [{"x": x}], TINY.replace(cores=4), cores=range(4))
    assert [core for _, core in commands(program, Opcode.QUANTISE)] == [0]


def recommender(batch=48):
    """Bags of four tables, of which one is as much work as the others, and nets beside them."""
    shape = shapes.Recommender((16, 32), (32, 1), 4, 32, 20)
    return shapes.recommender(shape, batch, 300)[0]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_cores_pool_as_much_each(count):
    program = compile(recommender(), DEFAULT.replace(cores=count), values=False, cores_sparse=0)
    pooled = busy(program, Engine.GATHER, count)
    assert max(pooled) <= 1.1 * min(pooled)


RM1 = shapes.named("RM1", 1)[0]


@pytest.mark.parametrize(
    ("graph", "count", "pieces"), [(RM1, 2, 7), (RM1, 4, 4), (recommender(), 2, 1)]
)
def test_indices_come_table_by_table_where_near_memory_is_scarce(graph, count, pieces):
    """Beside a table of 160 KiB a core has room for those of two tables and some weights."""
    program = compile(graph, PRESETS["quad"], values=False, cores=range(count), cores_sparse=0)
    pooled = [each.places["indices"][0] for each, _ in commands(program, Opcode.GATHER)]
    assert "dram" not in {program.segments[number].memory for number in pooled}
    loaded = Counter(
        core
        for each, core in commands(program, Opcode.LOAD)
        if program.segments[each.places["source"][0]].name.startswith("indices")
    )
    assert loaded == dict.fromkeys(range(count), pieces)


@pytest.mark.parametrize(("in_flight", "stride"), [(2, 64), (10, 40)])
def test_rows_in_far_memory_lie_apart_if_there_is_room(in_flight, stride):
    """Rows of 40 bytes touch one line of it then, instead of one and a half. Of 128 KiB tables
    take 39,744 bytes or 57,920, buffers of each request 7,936."""
    graph, draw = shapes.recommender(shapes.Recommender((16, 32), (32, 1), 8, 32, 6), 16, 190)
    config = TINY.replace(cores=2, dram_bytes=1 << 17)
    program = check_served(graph, [draw(), draw()], config, cores=range(2), in_flight=in_flight)
    strides = defaultdict(set)
    for each, _ in commands(program, Opcode.GATHER):
        memory = program.segments[each.places["table"][0]].memory
        strides[memory.partition(" ")[0]].add(each.values["row_stride"])
    assert strides == {"dram": {stride}, "scratchpad": {40}}


def test_some_cores_pool_and_do_nothing_else():
    config = DEFAULT.replace(cores=4)
    program = compile(recommender(), config, values=False, cores_sparse=1)
    assert program.about["cores_sparse"] == 1
    assert [cycles > 0 for cycles in busy(program, Engine.GATHER, 4)] == [False] * 3 + [True]
    assert busy(program, Engine.MATMUL, 4)[3] == busy(program, Engine.VECTOR, 4)[3] == 0
    chosen = compile(recommender(), config, values=False).about
    assert chosen["interval_cycles"] <= program.about["interval_cycles"]


@pytest.mark.parametrize(("columns", "tables", "cards"), [(32, 7, 2), (16, 9, 3)])
def test_what_a_core_pools_is_sent_from_a_bus_word_on(columns, tables, cards):
    """Pooled rows are shorter than a word, and each core pools a part of a card's tables."""
    shape = shapes.Recommender((16, columns), (8, 1), tables, columns, 40)
    graph, draw = shapes.recommender(shape, 16, 200)
    config = PRESETS["tiny"].replace(bus_bytes=64, cores=4, counters=64, dram_bytes=1 << 22)
    check_served(graph, [draw()], config, cards=cards, seed=0, cores=range(4))


def test_what_is_sent_nowhere_lies_side_by_side():
    """Else the top net would multiply by the gaps between pooled rows."""
    config, tables, columns = PRESETS["quad"], 4, 32
    program = compile(recommender(), config, values=False, cores=range(4))
    widest = max(each.values["k"] for each, _ in commands(program, Opcode.MATMUL))
    assert widest == config.bus_bytes + tables * columns, "a word of the bottom net's, and tables"


def test_a_short_request_takes_as_few_cores_as_answer_it_as_often():
    """Commands of each core are fetched by themselves; those of long requests come in time."""
    short, long = (
        compile(product(rows, 64, 64), PRESETS["quad"], values=False).about["cores"]
        for rows in (4, 4096)
    )
    assert len(short) < len(long) == 4
    told = compile(product(4, 64, 64), PRESETS["quad"], values=False, cores=range(4))
    assert told.about["cores"] == [0, 1, 2, 3]


def test_a_program_may_have_some_cores_alone():
    config = TINY.replace(cores=3)
    made = Recommender(7)
    program = compile(made.graph, config, 2, cores=(2, 1))
    assert program.about["cores"] == [1, 2]
    assert {queue // len(Engine) for part in program.parts for queue in part.queue} <= {1, 2}
    platform = GoldenPlatform(config, 2)
    served = Deployment(platform.session, platform.accelerators, program, lambda: 0)
    requests = [made.request()]
    check_responses(made.graph, requests, served.run(requests), Transfers())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"cores": [0, 4]}, "cores=4: a card has 4, numbered from 0"),
        ({"cores": [-1]}, "cores=-1: must be"),
        ({"cores": []}, "must be one at least"),
        ({"cores": [1, 1]}, "each once"),
        ({"cores": 2}, "cores: is a int, must be numbers of cores"),
        ({"cores_sparse": 4}, "cores_sparse=4: one of 4 cores at least does everything else"),
        ({"cores": [1, 2], "cores_sparse": 2}, "cores_sparse=2: one of 2 cores"),
        ({"cores_sparse": -1}, "cores_sparse=-1: must be"),
    ],
)
def test_cores_that_there_are_not_are_refused(how, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compile(recommender(), DEFAULT.replace(cores=4), values=False, **how)


def test_a_program_for_another_number_of_cores_is_refused():
    program = compile(product(4, 8, 8), TINY.replace(cores=2))
    platform = GoldenPlatform(TINY, 1)
    with pytest.raises(ProgramError, match="compile it for this configuration"):
        Deployment(platform.session, platform.accelerators, program, lambda: 0)
