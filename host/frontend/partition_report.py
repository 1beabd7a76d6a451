"""What of a compiled model is where, why, and what crosses the links for it."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING

from halfdome.host.frontend.steps import HostStep, Port

if TYPE_CHECKING:
    from halfdome.host.frontend.plan import CardPart, Plan


def partition_report(plan: "Plan") -> dict:
    """Steps in their order: where each is, its nodes, and its bytes over the links for a request.

    JSON-able. Of a host step, `link_bytes_in` are what it takes from cards and `link_bytes_out`
    what cards take of it; indices of bags, whose number a request decides, are not counted. Nodes
    of the host say `why`.
    """
    operators: Mapping[str, str] = plan.about["operators"]  # type: ignore[assignment]
    taken = _sizes(port for part in plan.parts for port in part.inputs)
    made = _sizes(port for part in plan.parts for port in part.outputs)
    steps = []
    for step in plan.steps:
        if isinstance(step, HostStep):
            steps.append(_of_host(step, operators, taken, made))
        else:
            steps.append(_of_cards(step, operators))
    counts = {
        where: sum(len(step["nodes"]) for step in steps if step["where"] == where)
        for where in ("cards", "host")
    }
    on_cards = [step for step in steps if step["where"] == "cards"]
    return {
        "model": plan.about["model"], "cards": plan.cards, "config_hash": plan.config,
        "nodes_on_cards": counts["cards"], "nodes_on_host": counts["host"],
        "link_bytes_in": sum(step["link_bytes_in"] for step in on_cards),
        "link_bytes_out": sum(step["link_bytes_out"] for step in on_cards), "steps": steps,
    }  # fmt: skip


def _of_host(
    step: HostStep, operators: Mapping[str, str], taken: Mapping[str, int], made: Mapping[str, int]
) -> dict:
    nodes = [
        {"node": label, "operator": operators[label], "why": why}
        for label, why in step.reasons.items()
    ]
    return {
        "where": "host", "nodes": nodes,
        "link_bytes_in": sum(made.get(name, 0) for name in step.inputs),
        "link_bytes_out": sum(taken.get(name, 0) for name in step.outputs),
    }  # fmt: skip


def _of_cards(part: "CardPart", operators: Mapping[str, str]) -> dict:
    return {
        "where": "cards",
        "nodes": [{"node": label, "operator": operators[label]} for label in part.layers
                  if label in operators],
        "pools": [bag.table_name for bag in part.bags],
        "link_bytes_in": sum(_nbytes(port) for port in part.inputs),
        "link_bytes_out": sum(_nbytes(port) for port in part.outputs),
    }  # fmt: skip


def _sizes(ports: Iterable[Port]) -> dict[str, int]:
    """Bytes by tensor; a tensor that goes several ways counts each."""
    sizes: dict[str, int] = {}
    for port in ports:
        sizes[port.tensor] = sizes.get(port.tensor, 0) + _nbytes(port)
    return sizes


def _nbytes(port: Port) -> int:
    return prod(port.shape) * port.dtype.itemsize
