"""Recommenders of any shape, and requests for them: what a graph may hold, drawn at random."""

import numpy as np

from halfdome.hdl.commands import ElementFormat, Function, RowFormat
from halfdome.host.compiler.compile import compile
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.transfers import Transfers
from tests.host.golden_platform import GoldenPlatform

BYTES = (ElementFormat.UINT8, ElementFormat.INT8)
REALS = (ElementFormat.FLOAT16, ElementFormat.FLOAT32)
WIDEST = 40
"""Largest size of an embedding row or a layer."""


def seen(graph, request, transfers):
    """A request as the cards see it: with `half_inputs` float32 rows are rounded."""
    if not transfers.half_inputs:
        return request
    whole = {*graph.outputs}
    for node in graph.nodes:
        if node.op in ("embedding_bag", "concat"):
            whole |= set(node.inputs)
    return {
        name: array.astype(np.float16).astype(np.float32)
        if array.dtype == np.float32 and name not in whole
        else array
        for name, array in request.items()
    }


def check_responses(graph, requests, responses, transfers):
    """Compares every bit with what the graph computes by itself."""
    for request, response in zip(requests, responses, strict=True):
        expected = graph.run(seen(graph, request, transfers))
        assert set(response.outputs) == set(graph.outputs)
        for name, found in response.outputs.items():
            assert (found.dtype, found.shape) == (expected[name].dtype, expected[name].shape)
            assert found.tobytes() == expected[name].tobytes(), name


def check_served(
    graph,
    requests,
    config,
    *,
    cards=1,
    seed=0,
    transfers=None,
    in_flight=None,
    parallelism=None,
    target=None,
    cores=None,
):
    """Compiles a graph and serves it on cards of plain Python, which run what they may in a random
    order: the bits, no hazard, and all memory given back. Returns the program.

    `target` is what it is compiled for, if not for cards of `config` as they usually are.
    """
    transfers = transfers or Transfers()
    program = compile(
        graph, target or config, cards, transfers=transfers, in_flight=in_flight,
        parallelism=parallelism, cores=cores,
    )  # fmt: skip
    platform = GoldenPlatform(config, cards, seed)
    empty = platform.owned()
    served = Deployment(
        platform.session, platform.accelerators, program, lambda: 0,
        as_list=transfers.command_lists, pass_on=transfers.broadcast,
    )  # fmt: skip
    check_responses(graph, requests, served.run(requests), transfers)
    assert served.incidents == []
    served.release()
    assert platform.owned() == empty
    return program


class Recommender:
    """A graph with embedding tables, nets below and above, and something in between.

    Attributes
    ----------
    graph : Graph
    """

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.batch = self.integer(1, 12)
        self._inputs, self._nodes, self._constants = [], [], {}
        self._bags_of = {}
        self._values = {}
        self._joined = self.choice(BYTES), self.zero_point
        segments = [self._table(table) for table in range(self.integer(1, 6))]
        if self.maybe(0.8):
            segments.append(self._net(self._dense(), self.integer(0, 2)))
        segments = [self._quantised(name) for name in segments]
        if self.maybe(0.3):  # one of them a second time
            segments.append(self.choice(segments))
        self.rng.shuffle(segments)
        last = self._net(self._interaction(segments), self.integer(0, 2))
        if self.maybe(0.3):
            self._alike()
        made = [node.output for node in self._nodes]
        ends = [last] if self.maybe(0.5) else [self._probability(last)]
        ends += [str(name) for name in self.rng.permutation(made)[: self.integer(0, 3)]]
        self.rng.shuffle(self._nodes)
        self.graph = Graph(self._inputs, list(dict.fromkeys(ends)), self._nodes, self._constants)

    # Draws

    def integer(self, low, high):
        return int(self.rng.integers(low, high, endpoint=True))

    def choice(self, options):
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def maybe(self, likely):
        return self.rng.random() < likely

    @property
    def zero_point(self):
        return self.integer(0, 127)

    def _node(self, op, inputs, shape, made, **attributes):
        name = f"{op} {len(self._nodes)}"
        attributes["format"] = made
        if made in BYTES:
            attributes.setdefault("zero_point", self.zero_point)
        self._nodes.append(Node(op, tuple(inputs), name, attributes))
        self._values[name] = Value(name, shape, made, zero_point=attributes.get("zero_point", 0))
        return name

    def _input(self, name, shape, element, *, ragged=False, zero_point=0):
        value = Value(name, shape, element, zero_point=zero_point, ragged=ragged)
        self._inputs.append(value)
        self._values[name] = value
        return name

    # Parts

    def _table(self, table):
        row_format = self.choice(RowFormat)
        dim = self.choice([4, 8, 12, 16]) if self.maybe(0.6) else self.integer(1, WIDEST)
        inputs, rows = self._bags(table)
        self._constants[f"rows {table}"] = _rows(self.rng, rows, dim, row_format)
        made = self.choice((*BYTES, *REALS))
        attributes = {"row_format": row_format, "mode": self.choice(["sum", "mean"]), "dim": dim}
        if made in BYTES:
            attributes["multiplier"] = np.float32(self.rng.uniform(1, 20))
            if self.maybe(0.7):
                made, attributes["zero_point"] = self._joined
        if self.maybe(0.5):
            attributes["mean_length"] = 2.0
        return self._node(
            "embedding_bag", (f"rows {table}", *inputs), (self.batch, dim), made, **attributes
        )

    def _bags(self, table):
        """The inputs of a table's bags, now and then those of another, and its rows."""
        if self._bags_of and self.maybe(0.2):
            return self.choice(self._bags_of.values())
        room = (self.batch * self.integer(1, 6),)
        names = [
            self._input(f"indices {table}", room, ElementFormat.INT32, ragged=True),
            self._input(f"lengths {table}", (self.batch,), ElementFormat.INT32),
        ]
        if self.maybe(0.3):
            names.append(self._input(f"weights {table}", room, ElementFormat.FLOAT32, ragged=True))
        rows = self.integer(1, 60) if self.maybe(0.8) else self.integer(100, 300)
        self._bags_of[table] = tuple(names), rows
        return self._bags_of[table]

    def _dense(self):
        element = self.choice((*BYTES, *REALS))
        point = self.zero_point if element in BYTES else 0
        name = self._input(
            "dense", (self.batch, self.integer(1, WIDEST)), element, zero_point=point
        )
        return name

    def _elementwise(self, name, made, **attributes):
        shape = self._values[name].shape
        if self.maybe(0.3):
            attributes["multiplier"] = np.float32(self.rng.uniform(0.5, 9))
        if self.maybe(0.2):
            attributes["function"] = self.choice([Function.RELU, Function.TANH, Function.SIGMOID])
        op = self.choice(["affine", "add", "multiply", "clamp"])
        if op == "affine":
            attributes |= {"scale": 0.9, "shift": 0.1}
        if op == "clamp":
            attributes |= {"low": -3.0, "high": 50.0}
        operands = [name, self._like(name)] if op in ("add", "multiply") else [name]
        return self._node(op, operands, shape, made, **attributes)

    def _like(self, name):
        """Of the same shape, and not of columns that a card may have in another order."""

        def columns(of):
            node = next((node for node in self._nodes if node.output == of), None)
            if node is None or node.op in ("embedding_bag", "linear"):
                return "as they are"
            return of if node.op in ("concat", "pairs") else columns(node.inputs[0])

        shape = self._values[name].shape
        alike = [other for other, value in self._values.items() if value.shape == shape]
        return self.choice(other for other in alike if columns(other) == columns(name))

    def _quantised(self, name):
        """As the interaction takes it."""
        made, point = self._joined
        value = self._values[name]
        if (value.format, value.zero_point) == (made, point) and self.maybe(0.8):
            return name
        return self._elementwise(name, made, zero_point=point)

    def _net(self, name, layers):
        """Linear layers of any width."""
        for _ in range(layers):
            value = self._values[name]
            if value.format not in BYTES:
                name = self._elementwise(name, self.choice(BYTES))
            name = self._linear(name)
        return name

    def _linear(self, name):
        k, n = self._values[name].shape[1], self.integer(1, WIDEST)
        made = self.choice((*BYTES, *BYTES, ElementFormat.INT32))
        layer = f"layer {len(self._nodes)}"
        weight = self.choice((np.int8, np.uint8))
        limits = np.iinfo(weight)
        self._constants[f"{layer} w"] = self.rng.integers(
            limits.min, limits.max, (n, k), weight, endpoint=True
        )
        operands, attributes = [name, f"{layer} w"], {"weight_zero_point": self.integer(0, 127)}
        if made in BYTES:
            self._constants |= {
                f"{layer} b": self.rng.integers(-999, 999, n).astype(np.int32),
                f"{layer} s": self.rng.uniform(1e-4, 1e-2, n).astype(np.float32),
            }
            operands += [f"{layer} b", f"{layer} s"]
            attributes["relu"] = self.maybe(0.5)
        return self._node("linear", operands, (self.batch, n), made, **attributes)

    def _interaction(self, segments):
        """All of them side by side, some of them multiplied with each other before."""
        by_shape = {}
        for name in segments:
            by_shape.setdefault(self._values[name].shape, []).append(name)
        alike = max(by_shape.values(), key=len)
        made, point = self._joined
        if len(alike) > 1 and self.maybe(0.7):
            count = len(alike)
            products = self._node(
                "pairs", alike, (self.batch, count * (count - 1) // 2), made, zero_point=point,
                multiplier=np.float32(self.rng.uniform(1e-3, 1e-2)),
            )  # fmt: skip
            segments = [products, *(n for n in segments if n not in alike or self.maybe(0.5))]
        if self.maybe(0.2) and len(segments) > 2:
            segments = [self._concat(segments[:2]), *segments[2:]]
        return self._concat(segments)

    def _alike(self):
        """Tensors of one format side by side, whatever it is."""
        by_format = {}
        for name, value in self._values.items():
            if len(value.shape) == 2:
                by_format.setdefault((value.format, value.zero_point), []).append(name)
        names = self.choice(by_format.values())
        self._concat([self.choice(names) for _ in range(self.integer(1, 4))])

    def _concat(self, names):
        name = f"concat {len(self._nodes)}"
        self._nodes.append(Node("concat", tuple(names), name))
        columns = sum(self._values[each].shape[1] for each in names)
        first = self._values[names[0]]
        self._values[name] = Value(
            name, (self.batch, columns), first.format, zero_point=first.zero_point
        )
        return name

    def _probability(self, name):
        attributes = {"scale": 0.02, "function": Function.SIGMOID}
        shape = self._values[name].shape
        return self._node("affine", [name], shape, ElementFormat.FLOAT32, **attributes)

    # Requests

    def request(self, rows=None):
        """Inputs of some samples, empty bags among them; by default of up to a batch."""
        rows = self.integer(1, self.batch) if rows is None else rows
        arrays = {}
        for (indices, lengths, *weights), known in self._bags_of.values():
            longest = self._values[indices].shape[0] // self.batch
            arrays[lengths] = self.rng.integers(0, longest + 1, rows).astype(np.int32)
            count = int(arrays[lengths].sum())
            arrays[indices] = self.rng.integers(0, known, count).astype(np.int32)
            for name in weights:
                arrays[name] = self.rng.normal(size=count).astype(np.float32)
        if "dense" in self._values:
            value = self._values["dense"]
            shape = rows, value.shape[1]
            arrays["dense"] = self.rng.normal(0, 3, shape).astype(value.dtype)
            if value.format in BYTES:
                arrays["dense"] = self.rng.integers(0, 256, shape, np.uint8).view(value.dtype)
        return arrays


def _rows(rng, rows, dim, row_format):
    """A table of any row format, with moderate scales and biases."""
    if row_format in (RowFormat.FLOAT16, RowFormat.FLOAT32):
        dtype = np.float16 if row_format is RowFormat.FLOAT16 else np.float32
        return rng.normal(size=(rows, dim)).astype(dtype)
    raw = rng.integers(0, 256, (rows, row_format.row_bytes(dim)), np.uint8)
    real = np.float32 if row_format.tail_bytes == 8 else np.float16
    tail = rng.normal(0, 0.05, (rows, 2)).astype(real)
    raw[:, -row_format.tail_bytes :] = tail.view(np.uint8)
    return raw
