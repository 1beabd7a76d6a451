"""A graph may be cut into sections, one a card, which hand tensors on from card to card."""

import re
from collections import Counter
from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Engine
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler import pipeline
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.joins import Joins
from halfdome.host.compiler.pipeline import Step, cut
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.transfers import Transfers
from tests.host.compiler.commands import QUEUES, Work
from tests.host.compiler.test_hazards import assert_all_found, changed, entries, set_at
from tests.host.golden_platform import GoldenPlatform
from tests.host.networks import Network
from tests.host.numpy_platform import NumpyPlatform
from tests.host.recommenders import Recommender, check_responses, check_served

TINY, DEFAULT = PRESETS["tiny"], PRESETS["default"]
SMALL = TINY.replace(dram_bytes=1 << 16)
WIDTH = 128
"""`SMALL` holds three layers of so many inputs and outputs, and not five."""


def layers(count, *, width=WIDTH, batch=4):
    """One linear layer after the other; the input of the first is added to what the last makes."""
    rng = np.random.default_rng(count)
    inputs = [Value("x0", (batch, width), ElementFormat.UINT8, zero_point=128)]
    nodes, constants = [], {}
    for n in range(count):
        constants |= {
            f"w{n}": rng.integers(-128, 128, (width, width)).astype(np.int8),
            f"b{n}": rng.integers(-99, 99, width).astype(np.int32),
            f"m{n}": np.full(width, 1e-3, np.float32),
        }
        operands = (f"x{n}", f"w{n}", f"b{n}", f"m{n}")
        nodes.append(Node("linear", operands, f"x{n + 1}", {"zero_point": 128}))
    nodes.append(Node("add_quantised", ("x0", f"x{count}"), "y", {"zero_point": 128}))
    return Graph(inputs, ["y", "x2"], nodes, constants)


def requests_for(graph, count):
    rng = np.random.default_rng(count)
    (value,) = graph.inputs
    sizes = rng.integers(1, value.shape[0] + 1, count)
    return [{"x0": rng.integers(0, 256, (n, *value.shape[1:]), np.uint8)} for n in sizes]


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(2, 4), config=st.sampled_from([TINY, DEFAULT]),
    requests=st.integers(1, 5), in_flight=st.sampled_from([None, 1, 2]),
    ends=st.none() | st.lists(st.integers(0, 3), min_size=12, max_size=12),
)  # fmt: skip
def test_any_network_cut_anywhere_has_the_bits_of_its_graph(
    monkeypatch, seed, cards, config, requests, in_flight, ends
):
    made = Network(seed)
    with monkeypatch.context() as patched:
        if ends is not None:
            places = sorted(end % cards for end in ends)
            patched.setattr(pipeline, "cut", lambda steps, *_: places[-len(steps) :])
        try:
            check_served(
                made.graph, [made.request() for _ in range(requests)], config, cards=cards,
                seed=seed, in_flight=in_flight, parallelism="pipeline",
            )  # fmt: skip
        except MemoryError:
            assert config is TINY
        except GraphError as error:
            if not re.search("order of columns|does not become", str(error)):
                raise


@pytest.mark.parametrize(("count", "cards"), [(5, 2), (6, 2), (6, 3), (9, 4)])
def test_a_model_that_fits_no_single_card_is_served(count, cards):
    graph = layers(count)
    program = check_served(graph, requests_for(graph, 7), SMALL, cards=cards, seed=count)
    used = Counter()
    for segment in program.segments:
        used[segment.position] += segment.nbytes * (program.slots if segment.per_slot else 1)
    assert sum(len(weight) for weight in program.weights.values()) > SMALL.dram_bytes
    assert max(used[card] for card in range(cards)) <= SMALL.dram_bytes + SMALL.scratchpad_bytes
    assert len(set(program.about["sections"].values())) > 1


def test_a_model_that_fits_every_card_is_cut_only_if_that_is_asked_for():
    graph = layers(3)
    by_samples = check_served(graph, requests_for(graph, 3), SMALL, cards=3)
    assert by_samples.about["sections"] == {}
    assert len({tuple(sorted(part.labels)) for part in by_samples.parts}) == 1
    cut_up = check_served(graph, requests_for(graph, 3), SMALL, cards=3, parallelism="pipeline")
    assert cut_up.about["sections"] == {"x1": 0, "x2": 1, "x3": 2, "y": 2}
    assert cut_up.about["interval_cycles"] < by_samples.about["interval_cycles"]


def test_a_tensor_goes_once_to_every_card_that_reads_it_and_inputs_to_where_they_are_read():
    graph = layers(3)
    first, second, third = compile(graph, TINY, 3, parallelism="pipeline").parts
    moves = [[label for label in part.labels if not label.startswith("x")] for part in
             (first, second, third)]  # fmt: skip
    assert moves[0] == ["to card 1", "sent"]
    assert sorted(moves[1]) == ["answers", "sent", "to card 2"]
    assert sorted(moves[2]) == ["answers", "y"]
    assert [part.labels.count("x0") for part in (first, second, third)] == [1, 0, 1]


def test_a_card_has_room_for_the_joins_that_it_runs_alone(monkeypatch):
    monkeypatch.setattr(pipeline, "cut", lambda *_: [0, 1, 1])
    (x,), attributes = layers(2).inputs, {"format": ElementFormat.UINT8, "zero_point": 128}
    nodes = [
        Node("affine", ("x0",), "a", attributes), Node("affine", ("x0",), "b", attributes),
        Node("concat", ("a", "b", "b"), "y"),
    ]  # fmt: skip
    graph = Graph([x], ["y"], nodes, {})
    program = check_served(graph, requests_for(graph, 3), TINY, cards=2, parallelism="pipeline")
    rooms = [s.nbytes for s in program.segments if s.position == 0]
    assert sum(rooms) == 2 * x.shape[0] * x.shape[1]  # x0 and a


def test_what_a_node_costs_includes_its_transfers():
    graph, target = layers(3), HalfdomeTarget(TINY)
    costs = pipeline.rehearse(graph, target, Joins(graph, target, {}, apart=False))
    assert [step.label for step in costs] == ["x1", "x2", "x3", "y"]
    assert [step.last for step in costs] == [1, 2, 3, -1]
    for step in costs:  # what is put out is stored, what is read first is loaded
        store = step.handing_on
        assert step.cycles[store.queue] == (store.cycles if step.label in ("x2", "y") else 0)
        assert (step.cycles[Engine.LOAD] > 0) == (step.label == "x1")
    held = [weight for name, weight in compile(graph, TINY).weights.items() if name[:2] == "x1"]
    assert costs[0].weight_bytes == sum(map(len, held))
    assert costs[3].weight_bytes == 0


def test_a_graph_without_nodes_is_a_pipeline_of_one_card():
    value = Value("x0", (3, 5), ElementFormat.UINT8)
    graph = Graph([value], ["x0"], [], {})
    check_served(graph, requests_for(graph, 2), TINY, cards=2, parallelism="pipeline")


def test_requests_in_flight_take_less_room_if_all_do_not_fit():
    """Buffers of a request are as large as weights: where it is cut depends on them."""
    graph = layers(4, batch=80)
    program = check_served(graph, requests_for(graph, 4), SMALL, cards=4)
    assert program.slots < program.stages


@pytest.mark.parametrize("cards", [2, 4])
def test_other_accelerators_hand_tensors_on_too(cards):
    graph, platform = layers(5), NumpyPlatform(cards)
    program = compile(graph, platform.design, cards, parallelism="pipeline")
    served = Deployment(platform.session, platform.accelerators, program, lambda: 0)
    requests = requests_for(graph, 6)
    check_responses(graph, requests, served.run(requests), Transfers())
    assert len(set(program.about["sections"].values())) == cards


@pytest.mark.parametrize("seed", range(4))
def test_any_wait_that_is_taken_out_of_a_pipeline_is_found(seed):
    graph = layers(4) if not seed else Network(seed).graph
    program = compile(graph, TINY, 3, parallelism="pipeline")
    assert_all_found(
        ((position, place), changed(program, position, waits=set_at(part.waits, place, -1)))
        for position, place in entries(program, "waits")
        for part in [program.parts[position]]
    )


# Cards that fail


class Served:
    """A model on cards of which it needs two, and what they own without it."""

    def __init__(self, cards):
        self.graph = layers(6)
        self.platform = GoldenPlatform(SMALL, cards, patience_cycles=2000)
        self.empty = self.platform.owned()
        self.deployment = Deployment(
            self.platform.session, self.platform.accelerators,
            lambda numbers, before: compile(self.graph, SMALL, len(numbers)), lambda: 0,
        )  # fmt: skip

    def check(self):
        requests = requests_for(self.graph, 5)
        check_responses(self.graph, requests, self.deployment.run(requests), Transfers())


def test_the_cards_that_are_left_take_over_all_sections():
    served = Served(3)
    served.check()
    served.platform.silence(1)
    served.check()
    assert [card.index for card in served.deployment.cards] == [0, 2]
    served.platform.silence(1, False)
    served.deployment.revive()
    served.check()
    assert len(served.deployment.cards) == 3
    served.deployment.release()
    assert served.platform.owned() == served.empty


@pytest.mark.parametrize("revive", [True, False])
def test_a_model_that_does_not_fit_the_cards_that_are_left_is_served_when_others_are_back(revive):
    served = Served(2)
    served.platform.silence(0)
    for _ in range(2):
        with pytest.raises(MemoryError, match=r"do not fit 1 card, .* take 2 cards at least"):
            served.check()
    served.platform.silence(0, False)
    if revive:
        served.deployment.revive()
    served.check()
    assert len(served.deployment.cards) == 2
    served.deployment.release()
    assert served.platform.owned() == served.empty


# Where a graph is cut


@st.composite
def steps(draw, most=7):
    made = []
    count = draw(st.integers(1, most))
    for number in range(count):
        cycles = Counter({q: draw(st.integers(0, 50)) for q in range(QUEUES)})
        last = draw(st.sampled_from([-1, *range(number + 1, count)]))
        handing_on = Work(draw(st.integers(0, QUEUES - 1)), float(draw(st.integers(1, 60))))
        made.append(Step(f"n{number}", draw(st.integers(0, 20)), cycles, handing_on, last))
    return made


def cost(steps, ends, rooms):
    """What the busiest queue of any card has to do; infinite if weights do not fit."""
    busiest = 0.0
    for (start, stop), room in zip(pairwise(ends), rooms, strict=False):
        busy = Counter()
        for step in steps[start:stop]:
            busy.update(step.cycles)
            if step.last >= stop:
                busy[step.handing_on.queue] += step.handing_on.cycles
        if sum(step.weight_bytes for step in steps[start:stop]) > room:
            return np.inf
        busiest = max(busiest, *busy.values(), 0.0)
    return busiest


@given(steps=steps(), rooms=st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_a_graph_is_cut_where_the_busiest_queue_has_least_to_do(steps, rooms):
    best = min(
        cost(steps, (0, *inner, len(steps)), rooms)
        for inner in combinations_with_replacement(range(len(steps) + 1), len(rooms) - 1)
    )
    try:
        sections = cut(steps, rooms, 100)
    except MemoryError:
        assert np.isinf(best)
    else:
        assert sections == sorted(sections)
        ends = np.searchsorted(sections, range(len(rooms) + 1))
        assert cost(steps, tuple(map(int, ends)), rooms) == best


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: compile(layers(2, width=300), SMALL, 4), MemoryError,
         r"x1: its weights of \d+ bytes fit no card, of whose 65536 bytes .*: cut the layer"),
        (lambda: compile(layers(9), SMALL, 2), MemoryError,
         r"weights of \d+ bytes do not fit 2 cards, of .*: take \d cards at least"),
        (lambda: compile(layers(3, batch=400), SMALL, 1, parallelism="pipeline"), MemoryError,
         "take a smaller batch"),
        (lambda: compile(Recommender(5).graph, TINY, 2, parallelism="pipeline"), GraphError,
         "embedding_bag .*: the tables of embedding bags .*parallelism='data'"),
        (lambda: compile(layers(2), TINY, 2, parallelism="layers"), ValueError,
         "parallelism='layers': must be"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
