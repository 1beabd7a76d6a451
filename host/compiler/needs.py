"""What the layers of a graph need at least, wherever they run: kept with a program, for reports.

A layer is the nodes of one label.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod

from halfdome.hdl.commands import ElementFormat
from halfdome.host.compiler.lowering import label
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.runtime.program import Program


@dataclass(frozen=True)
class Need:
    """What one layer needs.

    Attributes
    ----------
    operators : list of str
    makes : list of str, names of the tensors that its nodes make
    macs : int, useful multiply-accumulates for a sample; what only moves elements has none
    sample_bytes : int, for a sample: what nodes read that they do not make themselves, and what
        others read of them. Of embedding bags nothing: a request decides how many rows they pool
    constant_bytes : int, weights and the like, again without embedding tables
    """

    operators: list[str]
    makes: list[str]
    macs: int
    sample_bytes: int
    constant_bytes: int


def plain(graph: Graph, format_of: Callable[[str], ElementFormat]) -> dict[str, dict]:
    """The need of every layer by its name as plain data, tensors having the formats told."""
    layers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        layers.setdefault(label(node), []).append(node)
    readers: dict[str, set[str]] = {name: {""} for name in graph.outputs}
    for name, nodes in layers.items():
        for node in nodes:
            for each in node.inputs:
                readers.setdefault(each, set()).add(name)

    def sample_bytes(name: str) -> int:
        return prod(graph.values[name].shape[1:]) * format_of(name).nbytes

    found = {}
    for name, nodes in layers.items():
        others = [node for node in nodes if node.op != "embedding_bag"]
        made = {node.output for node in others}
        read = {each for node in others for each in node.inputs} - made
        constants = read & graph.constants.keys()
        left = {each for each in made if readers.get(each, set()) - {name}}
        found[name] = asdict(Need(
            operators=list(dict.fromkeys(node.op for node in nodes)),
            makes=[node.output for node in nodes],
            macs=sum(_macs(node, graph) for node in others),
            sample_bytes=sum(map(sample_bytes, (read - constants) | left)),
            constant_bytes=sum(graph.constants[each].nbytes for each in constants),
        ))  # fmt: skip
    return found


def of(program: Program) -> dict[str, Need]:
    """The need of every layer of a program by its name."""
    return {name: Need(**need) for name, need in program.about["layers"].items()}  # type: ignore[attr-defined]


def _macs(node: Node, graph: Graph) -> int:
    first, *others = (graph.values[name].shape for name in node.inputs)
    made = prod(graph.values[node.output].shape[1:])
    match node.op:
        case "linear" | "batch_matmul" | "pairs":
            return made * first[-1]
        case "conv2d":
            return made * prod(others[0][1:])
    return 0
