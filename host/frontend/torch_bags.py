"""Finds the embedding bags of an exported module that cards pool, and cuts them out."""

import operator
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import fx

from halfdome.hdl.commands import RowFormat
from halfdome.host.frontend.bags import Bag, Source
from halfdome.host.frontend.errors import TorchError
from halfdome.host.frontend.finite import check_array
from halfdome.host.graph.fused_rows import fuse_8bit

_LOOKUPS = ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
_QUANTISED = {
    "quantized::embedding_bag_byte_rowwise_offsets": RowFormat.INT8,
    "quantized::embedding_bag_4bit_rowwise_offsets": RowFormat.INT4,
}
"""Lookups of tables that are fused rows already; they sum, whatever mode they are told."""
_MODES = ("sum", "mean", "max")
_SAME_VALUES = ("to", "_to_copy", "contiguous", "clone", "detach", "alias", "lift_fresh_copy")
_SAME_ORDER = ("reshape", "view", "_unsafe_view", "flatten")


class NotPooled(Exception):
    """Why no card pools a bag."""


def looks_up(graph: fx.Graph) -> bool:
    """Whether there are embedding bags in a graph."""
    return any(_operator(node) in (*_LOOKUPS, *_QUANTISED) for node in graph.nodes)


def cut(
    module: fx.GraphModule,
) -> tuple[list[Bag], dict[str, torch.Tensor], list[str]]:
    """Takes embedding bags out of a module's graph; inputs stand where their outputs were.

    Returns the bags, for each new input an example, zeros of its shape, and why others stayed: no
    card pools them.

    Raises `TorchError` for one of a quantised table: nor does ONNX. Raises `ModelError` for a
    quantised table that is not finite.
    """
    bags: list[Bag] = []
    tables: dict[str, np.ndarray] = {}
    examples: dict[str, torch.Tensor] = {}
    stayed: list[str] = []
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node in module.graph.nodes:
        if _operator(node) not in (*_LOOKUPS, *_QUANTISED):
            continue
        try:
            pooled = _pooled(node)
            if not len(_rows(node)):
                _empty(module.graph, node, pooled)
                continue
            bag = _bag(module, node, f"pooled_{len(bags)}", tables)
        except NotPooled as error:
            if _operator(node) in _QUANTISED:
                raise TorchError(
                    f"{_name(node)}: {error}; cards do not pool it so, and ONNX has no such tables;"
                    " look up in a torch.nn.EmbeddingBag of float32"
                ) from None
            stayed.append(f"{_name(node)}: {error}")
            _widen(module.graph, node)
            continue
        with module.graph.inserting_after((inputs or [None])[-1]):
            value = module.graph.placeholder(bag.output)
        value.target = value.name
        inputs.append(value)
        bags.append(replace(bag, output=value.name))
        examples[value.name] = torch.zeros(bag.count, bag.dim)
        for user in pooled:
            user.replace_all_uses_with(value)
    return bags, examples, stayed


def _pooled(node: fx.Node) -> list[fx.Node]:
    """The nodes that are the pooled rows of a lookup, whose other results nobody uses."""
    if _operator(node) in _QUANTISED:
        return [node]
    pooled = [user for user in node.users if user.args[1] == 0]
    if any(user.users for user in node.users if user not in pooled):
        raise NotPooled("more than its pooled rows are used")
    return pooled


def _rows(node: fx.Node) -> torch.Tensor:
    """What stands for the pooled rows of a lookup while a module is exported."""
    made = node.meta["val"]
    return made if _operator(node) in _QUANTISED else made[0]


def _empty(graph: fx.Graph, node: fx.Node, pooled: list[fx.Node]) -> None:
    """Puts a tensor without rows where those of a lookup without bags were."""
    rows = _rows(node)
    with graph.inserting_before(node):
        made = graph.call_function(
            torch.ops.aten.zeros.default, (list(rows.shape),), {"dtype": rows.dtype}
        )
    for each in pooled:
        each.replace_all_uses_with(made)


def _widen(graph: fx.Graph, node: fx.Node) -> None:
    """Makes int64 of indices and offsets: torch.onnx joins them with int64, whatever they are."""
    with graph.inserting_before(node):
        for place in (1, 2):
            wide = graph.call_function(torch.ops.aten.to.dtype, (node.args[place], torch.int64))
            node.update_arg(place, wide)


def _operator(node: fx.Node) -> str:
    """The name of the operator that a node calls, of ATen's without their namespace; else an empty
    one."""
    target = node.target
    known = isinstance(target, torch._ops.OpOverload)
    return target._schema.name.removeprefix("aten::") if known else ""


def operands(node: fx.Node) -> dict[str, object]:
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
    given = operands(node)
    row_format = _QUANTISED.get(_operator(node))
    mode = _MODES[given["mode"]] if row_format is None else "sum"
    if mode == "max":
        raise NotPooled("mode='max', cards pool 'sum' and 'mean'")
    none = -1 if _operator(node).startswith("_") else None
    padding = given.get("padding_idx", none)
    if given.get("pruned_weights") or given.get("compressed_indices_mapping") is not None:
        raise NotPooled("rows of its table are left out")
    table_name = _table(module, given["weight"], tables, row_format)
    length, offsets = _equally_long(given["offsets"]), None
    if length is None:
        offsets = _source(node, given["offsets"], "offsets")
    weights = given["per_sample_weights"]
    return Bag(
        output, table_name, tables[table_name], len(_rows(node)),
        indices=_source(node, given["indices"], "indices"), offsets=offsets, length=length,
        include_last=bool(given["include_last_offset"]),
        weights=None if weights is None else _source(node, weights, "per_sample_weights"),
        mode=mode, padding=None if padding == none else padding % len(tables[table_name]),
        row_format=RowFormat.INT8 if row_format is None else row_format,
    )  # fmt: skip


def _table(
    module: fx.GraphModule, weight: fx.Node, tables: dict[str, np.ndarray],
    fused: RowFormat | None,
) -> str:  # fmt: skip
    """The name of a table, which is now among `tables`; one of float32, or `fused` already.

    Raises `ModelError` for fused rows whose scale or bias is not finite.
    """
    if weight.op != "get_attr":
        raise NotPooled(f"its table is computed by {weight.target}, must be a parameter")
    name = str(weight.target)
    if name not in tables:
        held = operator.attrgetter(name)(module).detach().cpu()
        wanted = torch.float32 if fused is None else torch.uint8
        if held.dtype != wanted:
            raise NotPooled(f"its table is {held.dtype}, must be {wanted}")
        table = held.numpy()
        if fused is not None:
            tails = np.ascontiguousarray(table[:, table.shape[1] - fused.tail_bytes :])
            check_array(f"scale and bias of {name}", tails.view(f"<f{fused.tail_bytes // 2}"))
            tables[name] = table
            return name
        try:
            tables[name] = fuse_8bit(table)
        except ValueError as error:
            raise NotPooled(str(error)) from None
    return name


def _equally_long(offsets: fx.Node) -> int | None:
    """How long the bags of `arange(0, n * length, length)` are: of indices with two dimensions."""
    if _operator(offsets) != "arange":
        return None
    given: Mapping[str, object] = operands(offsets)
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
