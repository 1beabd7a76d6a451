"""Finds the embedding bags of an exported module that cards pool, and cuts them out."""

import operator
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import fx

from halfdome.host.frontend.bags import Bag, Source
from halfdome.host.graph.fused_rows import fuse_8bit

_LOOKUPS = ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
_MODES = ("sum", "mean", "max")
_SAME_VALUES = ("to", "_to_copy", "contiguous", "clone", "detach", "alias", "lift_fresh_copy")
_SAME_ORDER = ("reshape", "view", "_unsafe_view", "flatten")


class NotPooled(Exception):
    """Why no card pools a bag."""


def looks_up(graph: fx.Graph) -> bool:
    """Whether there are embedding bags in a graph."""
    return any(_operator(node) in _LOOKUPS for node in graph.nodes)


def cut(
    module: fx.GraphModule,
) -> tuple[list[Bag], dict[str, torch.Tensor], list[str]]:
    """Takes embedding bags out of a module's graph; inputs stand where their outputs were.

    Returns the bags, for each new input an example, zeros of its shape, and why others stayed: no
    card pools them.
    """
    bags: list[Bag] = []
    tables: dict[str, np.ndarray] = {}
    examples: dict[str, torch.Tensor] = {}
    stayed: list[str] = []
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node in module.graph.nodes:
        if _operator(node) not in _LOOKUPS:
            continue
        pooled = [user for user in node.users if user.args[1] == 0]
        try:
            if any(user.users for user in node.users if user not in pooled):
                raise NotPooled("more than its pooled rows are used")
            bag = _bag(module, node, f"pooled_{len(bags)}", tables)
        except NotPooled as error:
            stayed.append(f"{_name(node)}: {error}")
            _widen(module.graph, node)
            continue
        with module.graph.inserting_after((inputs or [None])[-1]):
            value = module.graph.placeholder(bag.output)
        value.target = value.name
        inputs.append(value)
        bags.append(replace(bag, output=value.name))
        examples[value.name] = torch.zeros(bag.count, bag.table.shape[1] - 8)
        for user in pooled:
            user.replace_all_uses_with(value)
    return bags, examples, stayed


def _widen(graph: fx.Graph, node: fx.Node) -> None:
    """Makes int64 of indices and offsets: torch.onnx joins them with int64, whatever they are."""
    with graph.inserting_before(node):
        for place in (1, 2):
            wide = graph.call_function(torch.ops.aten.to.dtype, (node.args[place], torch.int64))
            node.update_arg(place, wide)


def _operator(node: fx.Node) -> str:
    """The name of the ATen operator that a node calls, else an empty one."""
    target = node.target
    known = isinstance(target, torch._ops.OpOverload) and target.namespace == "aten"
    return target._schema.name.removeprefix("aten::") if known else ""


def _arguments(node: fx.Node) -> dict[str, object]:
    """The operands of a node by their names in its schema, defaults included."""
    schema = node.target._schema.arguments
    given = dict(zip((each.name for each in schema), node.args, strict=False)) | node.kwargs
    return {each.name: given.get(each.name, each.default_value) for each in schema}


def _name(node: fx.Node) -> str:
    """A lookup as people know it: by its table, if that is a parameter."""
    weight = node.args[0]
    return f"embedding bag of {weight.target if weight.op == 'get_attr' else weight.name}"


def _bag(
    module: fx.GraphModule, node: fx.Node, output: str, tables: dict[str, np.ndarray]
) -> Bag:  # fmt: skip
    given = _arguments(node)
    mode = _MODES[given["mode"]]
    if mode == "max":
        raise NotPooled("mode='max', cards pool 'sum' and 'mean'")
    none = -1 if _operator(node).startswith("_") else None
    padding = given.get("padding_idx", none)
    if not (count := int(node.meta["val"][0].shape[0])):
        raise NotPooled("there are none in a request")
    table_name = _table(module, node, given["weight"], tables)
    length, offsets = _equally_long(given["offsets"]), None
    if length is None:
        offsets = _source(node, given["offsets"], "offsets")
    weights = given["per_sample_weights"]
    return Bag(
        output, table_name, tables[table_name], count,
        indices=_source(node, given["indices"], "indices"), offsets=offsets, length=length,
        include_last=bool(given["include_last_offset"]),
        weights=None if weights is None else _source(node, weights, "per_sample_weights"),
        mode=mode, padding=None if padding == none else padding % len(tables[table_name]),
    )  # fmt: skip


def _table(
    module: fx.GraphModule, node: fx.Node, weight: fx.Node, tables: dict[str, np.ndarray]
) -> str:  # fmt: skip
    """The name of a table, which is now among `tables`."""
    if weight.op != "get_attr":
        raise NotPooled(f"its table is computed by {weight.target}, must be a parameter")
    name = str(weight.target)
    if name not in tables:
        held = operator.attrgetter(name)(module).detach().cpu()
        if held.dtype != torch.float32:
            raise NotPooled(f"its table is {held.dtype}, must be torch.float32")
        try:
            tables[name] = fuse_8bit(held.numpy())
        except ValueError as error:
            raise NotPooled(str(error)) from None
    return name


def _equally_long(offsets: fx.Node) -> int | None:
    """How long the bags of `arange(0, n * length, length)` are: of indices with two dimensions."""
    if _operator(offsets) != "arange":
        return None
    given: Mapping[str, object] = _arguments(offsets)
    step = given.get("step") or 1
    return int(step) if not given.get("start") else None


def _source(bag: fx.Node, node: fx.Node, operand: str) -> Source:
    """The input that an operand of a bag is, seen through what leaves its elements as they are."""
    places: list[int] = []
    at = node
    while at.op != "placeholder":
        name = _operator(at)
        if name in _SAME_VALUES or (name in _SAME_ORDER and not places):
            at = at.args[0]
        elif name == "select" and at.args[1] == 0:
            places.insert(0, at.args[2])
            at = at.args[0]
        elif at.target is operator.getitem and _operator(at.args[0]) == "unbind":
            places.insert(0, at.args[1])
            at = at.args[0].args[0]
        else:
            raise NotPooled(
                f"its {operand} are computed by the module (by {at.target}), must be inputs of it"
            )
    return Source(str(at.target), tuple(places))
