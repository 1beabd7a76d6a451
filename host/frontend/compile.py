"""From any model to a plan: read, quantised, parted, and its parts for cards compiled."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from halfdome.hdl.config import MOST_CARDS, PRESETS, CardConfig, preset
from halfdome.host import arguments
from halfdome.host.compiler.compile import chosen_cores, sparse_cores
from halfdome.host.compiler.compile import compile as compile_graph
from halfdome.host.compiler.division import Parallelism
from halfdome.host.frontend.bags import Bag
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.net import Net
from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.plan import Argument, CardPart, Plan
from halfdome.host.frontend.prepare import Prepared, Requests, Said, prepare
from halfdome.host.frontend.steps import CardStep, HostStep, Port
from halfdome.host.graph.graph import Graph
from halfdome.host.graph.values import Value
from halfdome.host.runtime.program import Program
from halfdome.host.runtime.transfers import Transfers

ROOM = 2
"""Indices that a bag has room for, of the most that examples show."""


def compile(
    model: Any, example_inputs: Sequence[object] | None = None, *,
    calibration: Requests | None = None, shapes: Mapping[str, Sequence[int]] = {},
    cards: int = 6, config: str | CardConfig = "default", every: bool = False,
    apart: bool = False, cores: Sequence[int] | None = None, cores_sparse: int | None = None,
    transfers: Transfers | None = None, in_flight: int | None = None,
    parallelism: Parallelism | str | None = None, requests: int | None = None, values: bool = True,
    say: Said = lambda text: None,
) -> Plan:  # fmt: skip
    """Compiles a model for so many cards.

    Parameters
    ----------
    model : path of an ONNX file or of one that torch.export.save wrote (.pt2), bytes of an ONNX
        file, onnx.ModelProto, torch.nn.Module, TorchModel, or Prepared
    example_inputs : of a torch.nn.Module, its positional arguments; they calibrate it, too
    calibration : requests, arrays by input; without them only models that are quantised
    shapes : of inputs that leave sizes open
    cards : 1 to 12; requests are dealt over them, or with `parallelism` their work
    config : name of a preset, or a CardConfig
    every : whether all tensors within the model are outputs of its steps, to be looked at
    apart : whether each layer begins when the one before has ended, to be measured by itself
    cores, cores_sparse : which cores of each card run it, and how many of them pool embedding bags
        alone, see `halfdome.host.compiler.compile.compile`
    transfers, in_flight, parallelism : of each part for the cards, see there
    requests : how many the cards take together; by default so many that each card has a sample, of
        a pipeline one
    values : without, programs have all but weights: for cards that compute none
    say : told what is done next

    Raises `ModelError` for a model, calibration or shapes that do not fit, `TorchError` for a
    module that PyTorch does not export, and `MemoryError` for a model that no card has room for.
    """
    cards = arguments.integer("cards", cards, 1, MOST_CARDS)
    design = preset(config) if isinstance(config, str) else config
    numbers = chosen_cores(cores, design.cores)
    if cores_sparse is not None:
        cores_sparse = sparse_cores(cores_sparse, numbers)
    if parallelism is not None:
        parallelism = arguments.choice("parallelism", parallelism, Parallelism)
    if requests is not None:
        requests = arguments.integer("requests", requests, 1)
    how = {
        "apart": apart, "cores": numbers, "cores_sparse": cores_sparse, "transfers": transfers,
        "in_flight": in_flight, "parallelism": parallelism, "values": values,
    }  # fmt: skip
    prepared = model
    if not isinstance(model, Prepared):
        prepared = prepare(model, example_inputs, calibration=calibration, shapes=shapes, say=say)
    bags, examples = prepared.bags, prepared.examples
    _check_rows(bags, design)
    say("parting it between cards and host")
    net = Net(prepared.model)
    outputs = tuple(_argument(net, each) for each in net.outputs)
    maker = _Maker(design, cards, bags, _longest(bags, examples), requests, how)
    pooled = {bag.output for bag in bags}
    parted = steps(prepared.model, maker.check, pooled=pooled, every=every, config=design)
    say("compiling for the cards")
    made = maker.plan_steps(parted)
    inputs = [_argument(net, each) for each in net.inputs if each not in pooled]
    if bags:
        inputs = _arguments(bags, inputs, examples, prepared.ragged)
    operators = dict(zip(net.labels, (node.op_type for node in net.nodes), strict=True))
    about = {"model": prepared.name, "operators": operators}
    return Plan(tuple(inputs), outputs, tuple(made), cards, design.hash, about)


def _argument(net: Net, name: str) -> Argument:
    """What a model takes or returns. Raises `ModelError` for what is no tensor that numpy has."""
    if name not in net.tensors:
        raise ModelError(
            f"output {name}: is no tensor of a type that numpy has; export the model with tensors "
            "as outputs, such as those of a sequence one by one"
        )
    tensor = net.tensors[name]
    return Argument(name, tensor.dtype, tuple(tensor.shape or ()))


def _check_rows(bags: Sequence[Bag], design: CardConfig) -> None:
    """Refuses tables whose rows are longer than cards pool."""
    for bag in bags:
        if bag.dim > design.max_dim:
            fitting = [name for name, each in PRESETS.items() if each.max_dim >= bag.dim]
            presets = f", such as {' or '.join(fitting)}" if fitting else ""
            raise ModelError(
                f"{bag.table_name}: has rows of {bag.dim} elements, cards of this config pool "
                f"{design.max_dim}; give a config with a larger max_dim{presets}"
            )


def _longest(bags: Sequence[Bag], requests: Requests) -> dict[str, int]:
    """Room for indices in each bag."""
    found = {}
    for bag in bags:
        if bag.length is not None:
            found[bag.output] = max(1, bag.length)
            continue
        lengths = [bag.operands(each)[bag.names[1]].max(initial=1) for each in requests]
        found[bag.output] = ROOM * int(max(lengths, default=1))
    return found


def _arguments(
    bags: Sequence[Bag], inputs: Sequence[Argument], requests: Requests, ragged: frozenset[str]
) -> list[Argument]:
    """What a request of a module with bags brings."""
    known = {each.name: each for each in inputs}
    names = dict.fromkeys([*(requests[0] if requests else ()), *known])
    made = []
    for name in names:
        if name in known:
            made.append(known[name])
            continue
        array = np.asarray(requests[0][name])
        shape = tuple(None if name in ragged else size for size in array.shape)
        made.append(Argument(name, array.dtype, shape))
    return made


class _Maker:
    """Compiles steps of cards, once each."""

    def __init__(
        self, design: CardConfig, cards: int, bags: Sequence[Bag], longest: Mapping[str, int],
        together: int | None, how: Mapping[str, Any],
    ):  # fmt: skip
        self._design = design
        self._together = together
        self._cards = cards
        self._bags = {bag.output: bag for bag in bags}
        self._longest = longest
        self._how = how
        self._made: dict[int, tuple[CardStep, Program]] = {}

    def requests(self, step: CardStep) -> int:
        """Requests that a program works on at a time: each card has a sample."""
        if self._together is not None:
            return self._together
        if self._how["parallelism"] is Parallelism.PIPELINE:
            return 1
        return -(-self._cards // step.samples)

    def check(self, step: CardStep) -> None:
        """Compiles a step; raises what the compiler raises."""
        self._made[id(step)] = step, self._program(self._pools(step), step)

    def _pools(self, step: CardStep) -> list[Bag]:
        """The bags whose rows are samples of a step: it pools them itself."""
        ports = {port.tensor: port for port in step.inputs}
        return [
            bag
            for name, bag in self._bags.items()
            if name in ports and step.samples == bag.count
            and ports[name].dims == (ports[name].shape[-1],)
        ]  # fmt: skip

    def _program(self, bags: Sequence[Bag], step: CardStep) -> Program:
        requests = self.requests(step)
        graph = step.graph(requests)
        if bags:
            graph = _with_bags(graph, step, bags, self._longest, requests)
        return compile_graph(graph, self._design, self._cards, **self._how)

    def plan_steps(self, parted: Sequence[HostStep | CardStep]) -> list[HostStep | CardPart]:
        """Steps with their programs; bags that no step pools come before all others."""
        made: list[HostStep | CardPart] = []
        pooled: set[str] = set()
        for step in parted:
            if isinstance(step, HostStep):
                made.append(step)
                continue
            bags = self._pools(step)
            if id(step) not in self._made:
                self.check(step)
            pooled |= {bag.output for bag in bags}
            inside = {bag.output for bag in bags}
            inputs = tuple(port for port in step.inputs if port.tensor not in inside)
            made.append(CardPart(
                self._made[id(step)][1], inputs, step.outputs, tuple(bags), step.samples,
                self.requests(step), step.made,
            ))  # fmt: skip
        wanted = {
            name
            for step in made
            for name in (
                step.inputs if isinstance(step, HostStep) else [p.tensor for p in step.inputs]
            )
        }
        for name, bag in self._bags.items():
            if name in wanted or name not in pooled:
                made.insert(0, self._pooling(bag))
        return made

    def _pooling(self, bag: Bag) -> CardPart:
        """A step that does nothing but pool."""
        shape = bag.count, bag.dim
        port = Port(bag.output, bag.output, np.dtype(np.float32), shape, (0, 1), shape[1:])
        step = CardStep((), (port,), bag.count, (), (), {}, {bag.output: (bag.output,)})
        requests = self.requests(step)
        graph = Graph(
            _stacked(bag.inputs(self._longest[bag.output]), requests), [bag.output],
            [bag.node()], {bag.table_name: bag.table},
        )  # fmt: skip
        program = compile_graph(graph, self._design, self._cards, **self._how)
        return CardPart(program, (), (port,), (bag,), bag.count, requests, step.made)


def _stacked(values: Sequence[Value], requests: int) -> list[Value]:
    return [replace(each, shape=(each.shape[0] * requests, *each.shape[1:])) for each in values]


def _with_bags(
    graph: Graph, step: CardStep, bags: Sequence[Bag], longest: Mapping[str, int], requests: int
) -> Graph:
    """A graph whose pooled rows it pools itself."""
    values = {port.tensor: port.value for port in step.inputs}
    inside = {values[bag.output] for bag in bags}
    inputs = [value for value in graph.inputs if value.name not in inside]
    nodes, constants = list(graph.nodes), dict(graph.constants)
    for bag in bags:
        inputs += _stacked(bag.inputs(longest[bag.output]), requests)
        nodes.append(replace(bag.node(), output=values[bag.output]))
        constants[bag.table_name] = bag.table
    return Graph(inputs, graph.outputs, nodes, constants)
