"""Embedding bags that were cut out of a model: nodes of a graph, and what they compute."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import ElementFormat, RowFormat
from halfdome.host.frontend.errors import ModelError
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from halfdome.host.runtime import embedding

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """Where an operand of a bag comes from: an input of the model, or a part of one.

    `places` are taken of its first axes: of an input that stacks what belongs to several tables.
    """

    input: str
    places: tuple[int, ...] = ()

    def of(self, inputs: Arrays) -> np.ndarray:
        """The operand, with one dimension. Raises `ModelError` for an input that is missing."""
        if self.input not in inputs:
            raise ModelError(f"input {self.input}: is missing; there are {', '.join(inputs)}")
        return np.asarray(inputs[self.input])[self.places].reshape(-1)


@dataclass(frozen=True)
class Bag:
    """The bags of one lookup: sums or means of rows of an 8-bit table, in fp32.

    Attributes
    ----------
    output : str; the input of the rest of the model that holds the pooled rows
    table_name : str; the parameter that the table was quantised from, which bags may share
    table : uint8[rows, bytes of a row]; fused rows
    count : int; bags in a request
    indices : Source of integers
    offsets : Source of integers, or None if all bags are equally long
    length : int or None; how long they are then
    include_last : bool; whether offsets end with the number of indices
    weights : Source of float32 or None; a factor for each row that is taken
    mode : "sum" or "mean"
    padding : an index that takes no row, or None
    row_format : RowFormat of the table, INT8 or INT4
    """

    output: str
    table_name: str
    table: np.ndarray
    count: int
    indices: Source
    offsets: Source | None = None
    length: int | None = None
    include_last: bool = False
    weights: Source | None = None
    mode: str = "sum"
    padding: int | None = None
    row_format: RowFormat = RowFormat.INT8

    @property
    def dim(self) -> int:
        """Elements of a row: as many as there is room for."""
        elements_bytes = self.table.shape[1] - self.row_format.tail_bytes
        return elements_bytes * 8 // self.row_format.element_bits

    @property
    def names(self) -> tuple[str, ...]:
        """What its operands are called in a graph: indices, lengths, and weights if it has any."""
        kinds = ("indices", "lengths", "weights")[: 2 if self.weights is None else 3]
        return tuple(f"{self.output} {kind}" for kind in kinds)

    def operands(self, inputs: Arrays, room: int | None = None) -> dict[str, np.ndarray]:
        """Indices int32[n], lengths int32[count] and weights float32[n] of a request, by `names`.

        Raises `ModelError` for inputs that do not make `count` bags of rows that the table has, for
        a bag with more than `room` indices, and for a weight that is not finite.
        """
        given = self.indices.of(inputs)
        with _named(self.indices.input):
            indices = embedding.integers(f"{self.output} indices", given)
        outside = np.flatnonzero((indices < 0) | (indices >= len(self.table)))
        if len(outside):
            raise ModelError(
                f"input {self.indices.input}: index {indices[outside[0]]} at position {outside[0]} "
                f"is none of the {len(self.table)} rows of {self.table_name}"
            )
        lengths = self._lengths(inputs, len(indices))
        if len(lengths) != self.count:
            raise ModelError(
                f"{self.output}: the request has {len(lengths)} bags, must have {self.count}"
            )
        taken = np.ones(len(indices), bool) if self.padding is None else indices != self.padding
        bags = np.repeat(np.arange(self.count), lengths)
        lengths = np.bincount(bags[taken], minlength=self.count)
        if room is not None and lengths.max(initial=0) > room:
            raise ModelError(
                f"input {self.indices.input}: bag {lengths.argmax()} has {lengths.max()} indices, "
                f"the model has room for {room} in each; compile it with a request as long as that "
                "among those that calibrate it"
            )
        made = [indices[taken].astype(np.int32), lengths.astype(np.int32)]
        if self.weights is not None:
            weights = self.weights.of(inputs).astype(np.float32)
            if len(weights) != len(indices):
                raise ModelError(
                    f"input {self.weights.input}: has {len(weights)} weights for {len(indices)} "
                    "indices"
                )
            infinite = np.flatnonzero(taken & ~np.isfinite(weights))
            if len(infinite):
                raise ModelError(
                    f"input {self.weights.input}: weight {weights[infinite[0]]} at position "
                    f"{infinite[0]} is not finite; cards pool by finite weights"
                )
            made.append(weights[taken])
        return dict(zip(self.names, made, strict=True))

    def _lengths(self, inputs: Arrays, count: int) -> np.ndarray:
        if self.offsets is None:
            length = self.length or 0
            bags = self.count if length == 0 else count // length
            if bags * length != count:
                raise ModelError(
                    f"input {self.indices.input}: has {count} indices, must be in bags of {length}"
                )
            return np.full(bags, length)
        offsets = self.offsets.of(inputs)
        with _named(self.offsets.input):
            starts = embedding.bag_starts(offsets, count, self.include_last)
        return np.diff(starts, append=count)

    def inputs(self, longest: int) -> list[Value]:
        """The values of `names` in a graph whose bags have up to `longest` indices."""
        places = self.count * max(1, longest)
        kinds = (ElementFormat.INT32, ElementFormat.INT32, ElementFormat.FLOAT32)
        return [
            Value(name, (self.count if kind == 1 else places,), element, ragged=kind != 1)
            for kind, (name, element) in enumerate(zip(self.names, kinds, strict=False))
        ]

    def node(self, **how: object) -> Node:
        """The node that makes `output` of the constant `table_name` and the values of `names`.

        `how` are more of its attributes: `mean_length`, by which tables are placed, or another
        format.
        """
        attributes = {
            "format": ElementFormat.FLOAT32, "mode": self.mode, "row_format": self.row_format,
            **how,
        }  # fmt: skip
        return Node("embedding_bag", (self.table_name, *self.names), self.output, attributes)

    def pool(self, inputs: Arrays) -> np.ndarray:
        """float32[count, dim]: what cards compute, and FBGEMM. Raises as `operands` does."""
        operands = self.operands(inputs)
        longest = int(operands[self.names[1]].max(initial=0))
        graph = Graph(
            self.inputs(longest), [self.output], [self.node()], {self.table_name: self.table}
        )
        return graph.run(operands)[self.output]


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Has an error that says what is wrong with an operand name the input that it is."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"input {name}: {error}") from None


def pool(bags: Sequence[Bag], inputs: Arrays) -> dict[str, np.ndarray]:
    """float32[bags, dim] of each of `bags` for a request, by the name of its output."""
    return {bag.output: bag.pool(inputs) for bag in bags}
