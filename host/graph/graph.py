"""What a model is: values, the nodes that make them, and constants."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

import numpy as np

from halfdome.host import arguments
from halfdome.host.graph import operators
from halfdome.host.graph.values import GraphError, Value, format_of


@dataclass(frozen=True)
class Node:
    """One operation: `op` names an operator of `halfdome.host.graph.operators`.

    `attributes` are what the operator asks for besides tensors; absent ones have its defaults.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, object] = field(default_factory=dict)


class Graph:
    """A checked graph, whose nodes stand in an order in which they can run.

    Parameters
    ----------
    inputs : the values that a request brings
    outputs : names of the values that a response holds
    nodes : in any order
    constants : array by name; a constant is a value like any other

    Attributes
    ----------
    values : Value by name: inputs, constants and what nodes make
    batch : int or None, the size of the first axis of all inputs that are not ragged, if it is one
        and every operator works on each row of it by itself

    Raises `GraphError` for a name that is made twice or by nobody, a cycle, and operands that an
    operator does not take.
    """

    def __init__(
        self,
        inputs: Sequence[Value],
        outputs: Sequence[str],
        nodes: Sequence[Node],
        constants: Mapping[str, np.ndarray],
    ):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.constants = dict(constants)
        self.values: dict[str, Value] = {}
        for value in inputs:
            self._add(value)
        for name, array in constants.items():
            if not isinstance(array, np.ndarray):
                raise GraphError(f"constant {name}: is a {type(array).__name__}, must be an array")
            self._add(Value(name, array.shape, format_of(array.dtype, f"constant {name}")))
        self.nodes = tuple(
            replace(node, attributes=operators.checked(node)) for node in self._ordered(nodes)
        )
        for node in self.nodes:
            operands = [self.values[name] for name in node.inputs]
            self._add(operators.find(node.op).infer(node, operands, self.constants))
        for name in self.outputs:
            if name not in self.values:
                raise GraphError(f"output {name}: no node makes it")
        if not self.outputs:
            raise GraphError("outputs: there must be at least one")
        self.batch = self._batch()

    def _add(self, value: Value) -> None:
        if value.name in self.values:
            raise GraphError(f"{value.name}: there are two values of this name")
        self.values[value.name] = value

    def _ordered(self, nodes: Sequence[Node]) -> Iterator[Node]:
        """Producers before consumers."""
        made = {node.output: node for node in nodes}
        if len(made) < len(nodes):
            outputs = [node.output for node in nodes]
            twice = next(name for name in outputs if outputs.count(name) > 1)
            raise GraphError(f"{twice}: two nodes make it")
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for node in nodes:
            for name in node.inputs:
                if name not in made and name not in self.values:
                    raise GraphError(f"{node.op} {node.output}: nothing makes its input {name}")
            sorter.add(node.output, *(name for name in node.inputs if name in made))
        try:
            order = list(sorter.static_order())
        except CycleError as error:
            raise GraphError(f"a cycle: {' → '.join(error.args[1])}") from None
        return (made[name] for name in order)

    def _batch(self) -> int | None:
        sizes = {value.shape[0] for value in self.inputs if value.shape and not value.ragged}
        if len(sizes) != 1 or not all(operators.find(node.op).by_rows for node in self.nodes):
            return None
        batch = sizes.pop()
        made = [self.values[node.output] for node in self.nodes]
        return batch if all(value.shape[:1] == (batch,) for value in made) else None

    def consumers(self, name: str) -> list[Node]:
        """The nodes that use a value, in their order."""
        return [node for node in self.nodes if name in node.inputs]

    def run(self, request: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every value that a request leads to, by name, as the golden operators compute it.

        Raises `GraphError` for an input that is missing or not as its value says.
        """
        values: dict[str, np.ndarray] = dict(self.constants)
        for value in self.inputs:
            values[value.name] = self._input(value, request)
        for node in self.nodes:
            operands = [values[name] for name in node.inputs]
            about = [self.values[name] for name in node.inputs]
            values[node.output] = operators.find(node.op).evaluate(node, about, operands)
        return values

    @staticmethod
    def _input(value: Value, request: Mapping[str, np.ndarray]) -> np.ndarray:
        if value.name not in request:
            raise GraphError(f"input {value.name}: missing from the request")
        return arguments.rows(f"input {value.name}", request[value.name], value.dtype, value.shape)
