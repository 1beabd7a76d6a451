"""Tables of models that a user brings: answers, where they came from, and how right they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from halfdome.host.report.layers import Layers
from halfdome.host.report.size import size
from halfdome.host.report.tables import print_layers

_REQUESTS = 8
"""Requests whose outputs are shown."""


def print_run(result: Mapping, layers: Mapping[int, Layers], console: Console) -> None:
    """The result of `halfdome run MODEL`, `layers` by step of the cards."""
    partition = result["partition"]
    count = result["requests"]
    console.print(
        f"{partition['model']}: {count} request{'s' * (count > 1)} on {partition['cards']} cards, "
        f"engine {result['engine']}, configuration {result['config_hash']}"
    )
    outputs = _table("Outputs")
    for column in ("request", "output", "type", "first values", "top 1 of row 0"):
        outputs.add_column(column, overflow="fold")
    for place, answers in enumerate(result["outputs"][:_REQUESTS]):
        for answer in answers:
            sizes = ", ".join(map(str, answer["shape"]))
            values = "left out"
            if answer["first_values"] is not None:
                values = ", ".join(_value(value) for value in answer["first_values"])
            largest = answer["largest_of_first_row"]
            outputs.add_row(
                str(place), answer["name"], f"{answer['dtype']}[{sizes}]", values,
                "" if largest is None else str(largest),
            )  # fmt: skip
    if count > _REQUESTS:
        outputs.caption = f"and {count - _REQUESTS} requests more"
    console.print(outputs)
    print_partition(partition, console)
    for number, each in layers.items():
        console.print(f"step {number}")
        print_layers(each, console)
    latency, us = result["latency_cycles"], result["latency_us"]
    console.print(
        f"latency of a request on the cards: median {median(latency):,.0f} cycles = "
        f"{median(us):,.1f} µs, largest {max(latency):,} cycles"
    )
    console.print(
        f"total {result['total_cycles']:,} cycles = {result['total_us']:,.1f} µs of platform time"
    )


def print_partition(partition: Mapping, console: Console) -> None:
    """What of a model is where, why, and what crosses the links for it."""
    steps = partition["steps"]
    timed = "cycles" in steps[0] if steps else False
    table = _table("Steps, and bytes over the links for a request")
    table.add_column("step", justify="right")
    table.add_column("where")
    table.add_column("operators", overflow="fold")
    for column in ("to cards", "from cards", *(("cycles", "host s") if timed else ())):
        table.add_column(column, justify="right")
    for number, step in enumerate(steps):
        # Of a host step, what it takes from cards is what they send for it.
        sent = ("link_bytes_in", "link_bytes_out")[:: 1 if step["where"] == "cards" else -1]
        cells = [size(step[name]) if step[name] else "" for name in sent]
        if timed:
            on_cards = step["where"] == "cards"
            cells.append(f"{step['cycles']:,}" if on_cards else "")
            cells.append("" if on_cards else f"{step['seconds']:.3f}")
        table.add_row(str(number), step["where"], _operators(step), *cells)
    console.print(table)
    reasons = _reasons(steps)
    if reasons:
        why = _table("On the host, and why")
        for column in ("operator", "nodes", "why"):
            why.add_column(column, overflow="fold")
        for (operator, reason), nodes in reasons.items():
            why.add_row(operator, _few(nodes), reason)
        console.print(why)
    console.print(
        f"{partition['nodes_on_cards']} nodes on the cards, {partition['nodes_on_host']} on the "
        f"host; a request takes {size(partition['link_bytes_in'])} to the cards and "
        f"{size(partition['link_bytes_out'])} from them",
        highlight=False,
    )


def print_comparison(result: Mapping, console: Console) -> None:
    """The result of `halfdome compare`."""
    table = _table("Tensors of the cards beside ONNX Runtime's int8, and beside fp32")
    for column in ("node", "operator", "where"):
        table.add_column(column, overflow="fold")
    for column in ("int8", "steps", "dB", "fp32 steps", "fp32 dB"):
        table.add_column(column, justify="right")
    for row in result["tensors"]:
        differing = row["differing"]
        table.add_row(
            row["node"], row["operator"], row["where"],
            f"{differing:,} of {row['values']:,}" if differing else "equal",
            _figure(row["largest_difference"] if differing else None), _figure(row["sqnr_db"]),
            _figure(row["fp32_largest_difference"]), _figure(row["fp32_sqnr_db"]),
        )  # fmt: skip
    console.print(table)


def print_verdict(result: Mapping, console: Console) -> None:
    """Whether all tensors that were looked at are ONNX Runtime's."""
    tensors = result["tensors"]
    differing = [row for row in tensors if row["differing"]]
    if not differing:
        console.print(f"{len(tensors)} tensors are equal to ONNX Runtime's in every bit")
        return
    console.print(
        f"[red]{len(differing)} of {len(tensors)} tensors differ from ONNX Runtime's; the first "
        f"is of node {result['first']}[/red]",
        soft_wrap=True,
    )


def _table(title: str) -> Table:
    """Narrow, since names of nodes are long."""
    return Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _operators(step: Mapping) -> str:
    counts = Counter(node["operator"] for node in step["nodes"])
    told = [f"{name} {count}" if count > 1 else name for name, count in counts.items()]
    return ", ".join([*told, *(f"bag of {table}" for table in step.get("pools", ()))])


def _reasons(steps: Sequence[Mapping]) -> dict[tuple[str, str], list[str]]:
    """Nodes of the host by operator and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        for node in step["nodes"]:
            if "why" in node:
                found.setdefault((node["operator"], node["why"]), []).append(node["node"])
    return found


def _few(nodes: Sequence[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def print_ladder(result: Mapping, console: Console) -> None:
    """The result of `halfdome bench models`."""
    console.print(
        f"{result['cards']} cards, engine {result['engine']}, configuration {result['config_hash']}"
    )
    table = _table("The ladder")
    table.add_column("rung", no_wrap=True)
    columns = ("cards", "host", "compile s", "cycles", "bits", "as int8", "as fp32", "× least")
    for column in columns:
        table.add_column(column, justify="right")
    for row in result["rows"]:
        if "missing" in row:
            table.add_row(row["rung"], *["-"] * len(columns))
            continue
        table.add_row(
            row["rung"], str(row["nodes_on_cards"]), str(row["nodes_on_host"]),
            f"{row['compile_seconds']:.1f}", f"{row['cycles_per_request']:,.0f}",
            "equal" if row["equal"] else f"{_figure(row['worst_sqnr_db'])} dB",
            *(f"{row[name]}/{row['samples']}" for name in ("top1_as_int8", "top1_as_fp32")),
            f"{row['moved_bytes'] / max(1, row['least_bytes']):.2f}",
        )  # fmt: skip
    console.print(table)
    for row in result["rows"]:
        if "missing" in row:
            console.print(f"{row['rung']}: {row['missing']}", soft_wrap=True, highlight=False)
        else:
            counts = sorted(row["operators"].items(), key=lambda each: -each[1])
            told = ", ".join(f"{name} {count}" for name, count in counts)
            console.print(f"{row['rung']}: {told}", highlight=False)
    console.print(
        "cards, host: nodes there; cycles: of platform time for a request; bits: outputs, and what "
        "steps hand on, beside ONNX Runtime's int8; as int8, as fp32: samples with its top 1; "
        "× least: bytes moved over those that each operand takes once",
        highlight=False,
    )


def print_utilisation(result: Mapping, console: Console) -> None:
    """What the rows of `halfdome bench models` used of arrays and links."""
    rows = [row for row in result["rows"] if "missing" not in row]
    table = _table("What is used of arrays and links")
    table.add_column("rung", no_wrap=True)
    for column in ("cards", "requests", "cycles", "MACs", "link", "uplink", "in", "out", "cards ×"):
        table.add_column(column, justify="right")
    for row in rows:
        ratio = row.get("cards_ratio")
        table.add_row(
            row["rung"], str(row["cards"]), str(row["requests"]), f"{row['cycles']:,}",
            *(f"{row[name]:.3f}" for name in ("useful_mac_share", "link_share", "uplink_share")),
            size(round(row["link_bytes_in"])), size(round(row["link_bytes_out"])),
            "" if ratio is None else f"{ratio:.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        "cards: those that worked; cycles: from the first command's start to the last one's end; "
        "MACs, link, uplink: shares of what arrays and links could do then; in, out: bytes of a "
        "sample over the links; cards ×: answers of all cards over those of one",
        highlight=False,
    )


def print_apart(result: Mapping, console: Console) -> None:
    """The layers of `halfdome bench models --apart` that take more of their bound than they should,
    each by itself."""
    table = _table("Beyond their bound, each layer by itself")
    for name in ("rung", "layer", "operator"):
        table.add_column(name, overflow="fold")
    for name in ("cycles", "bound", "×", "by"):
        table.add_column(name, justify="right", no_wrap=True)
    counted = []
    for row in result["rows"]:
        for step in row.get("apart", {}).values():
            counted.append(f"{row['rung']} {len(step['beyond'])} of {len(step['layers'])}")
            for layer in step["layers"]:
                if layer["name"] in step["beyond"]:
                    bound = layer["bound_cycles"][layer["bound"]]
                    table.add_row(
                        row["rung"], layer["name"], ", ".join(layer["operators"]),
                        f"{layer['ran_cycles']:,}", f"{bound:,.0f}", f"{layer['of_bound']:.2f}",
                        layer["bound"],
                    )  # fmt: skip
    console.print(table)
    console.print(
        f"by: the resource that takes longest; layers of a step: {', '.join(counted)}",
        highlight=False,
    )
