"""Nodes that together make a tensor of one other tensor, element by element."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import onnx

from halfdome.host.frontend.net import used


@dataclass(frozen=True)
class Region:
    """What makes a tensor of `source`: nodes by their places, in order.

    Others see what those that are `copied` make: DequantizeLinear nodes, which stay beside it.
    """

    source: str
    places: Sequence[int]
    copied: frozenset[int]


def regions(
    nodes: Sequence[onnx.NodeProto], outputs: Collection[str],
    operands: Callable[[onnx.NodeProto], Sequence[str]], stands: Callable[[str], bool],
) -> list[Region]:  # fmt: skip
    """All functions of one tensor, none within another.

    Parameters
    ----------
    nodes, outputs : of a model, nodes in an order in which they can run
    operands : tensors of which a node computes its output element by element; none if it does not
    stands : whether a function may begin and end with a tensor

    What others see is within no function: one ends there if it may, or nothing is a function of it.
    Which tensors these are is found one after the other.
    """
    cut: set[str] = set()
    while True:
        chart = _Chart(nodes, outputs, operands, stands, cut)
        seen = chart.seen_by_others()
        if not seen:
            return chart.regions()
        cut |= seen


class _Chart:
    """Of which tensor others are functions, if functions end at all that are `cut`.

    `_made` says of which tensor nodes compute one. `_root` is the same but for what is cut, of
    which others are functions then.
    """

    def __init__(
        self, nodes: Sequence[onnx.NodeProto], outputs: Collection[str],
        operands: Callable[[onnx.NodeProto], Sequence[str]], stands: Callable[[str], bool],
        cut: Collection[str],
    ):  # fmt: skip
        self._nodes = nodes
        self._outputs = outputs
        self._operands = [list(operands(node)) for node in nodes]
        self._stands = stands
        self._maker = {name: at for at, node in enumerate(nodes) for name in node.output}
        self._users: dict[str, list[int]] = {}
        for place, node in enumerate(nodes):
            for name in dict.fromkeys(used(node)):
                self._users.setdefault(name, []).append(place)
        self._made: dict[str, str] = {}
        self._root: dict[str, str] = {}
        for node, names in zip(nodes, self._operands, strict=True):
            roots = {self._root_of(name) for name in names}
            source = roots.pop() if len(roots) == 1 else None
            name = node.output[0] if node.output else ""
            if source is not None and (name not in cut or stands(name)):
                self._made[name] = source
                self._root[name] = name if name in cut else source

    def _root_of(self, name: str) -> str | None:
        return self._root.get(name, name if self._stands(name) else None)

    def _goes_on(self, name: str) -> list[bool]:
        """Of each that sees a tensor, whether it makes a longer function of it."""
        users = (self._nodes[place] for place in self._users.get(name, ()))
        longer = [self._made.get(user.output[0]) == self._root[name] for user in users]
        return [*longer, False] if name in self._outputs else longer

    def _ends(self, name: str) -> bool:
        """Whether a function makes this tensor, and no longer one goes on from it."""
        cut = self._root[name] == name
        return self._stands(name) and (cut or not any(self._goes_on(name)))

    def seen_by_others(self) -> set[str]:
        """What is within a function, and seen from outside."""
        found = set()
        for name in self._root:
            if self._ends(name) or all(self._goes_on(name)):
                continue
            maker = self._nodes[self._maker[name]]
            if maker.op_type != "DequantizeLinear":
                found.add(name)
            elif self._root_of(maker.input[0]) != maker.input[0]:
                found.add(maker.input[0])
        if found:
            return found
        counts = Counter(
            place for each in self.regions() for place in each.places if place not in each.copied
        )
        shared = [place for place, count in counts.items() if count > 1]
        return {self._nodes[max(shared)].output[0]} if shared else set()

    def regions(self) -> list[Region]:
        """The functions, from where each ends."""
        return [self._region(name, each) for name, each in self._made.items() if self._ends(name)]

    def _region(self, end: str, source: str) -> Region:
        places: set[int] = set()
        waiting = [end]
        while waiting:
            place = self._maker[waiting.pop()]
            if place not in places:
                places.add(place)
                waiting += [name for name in self._operands[place] if name != source]
        copied = {
            place for place in places
            if self._nodes[place].op_type == "DequantizeLinear"
            and not {*self._users[self._nodes[place].output[0]]} <= places
        }  # fmt: skip
        return Region(source, sorted(places), frozenset(copied))
