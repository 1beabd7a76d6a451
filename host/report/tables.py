"""Tables for people; the same figures go to JSON for machines."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from halfdome.hdl.commands import Engine
from halfdome.hdl.registers import GATHER_WAITS
from halfdome.host.report.layers import Layers
from halfdome.host.report.size import size


def of_rows(title: str, rows: Sequence[dict]) -> Table:
    """Rows with equal names as a table; floats to four digits."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    return table


def _text(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def print_dlrm(report: dict, console: Console) -> None:
    """The result of `halfdome run dlrm`."""
    cards = report["cards"]
    console.print(
        f"{report['samples']} samples in batches of {report['batch_size']} on {cards} cards, "
        f"engine {report['engine']}, configuration {report['config_hash']}"
    )
    if report["values"]:
        quality = Table(title="Answers")
        for column in ("AUC fp32", "AUC cards", "difference", "samples that differ from golden"):
            quality.add_column(column, justify="right")
        quality.add_row(
            f"{report['auc_fp32']:.5f}",
            f"{report['auc_cards']:.5f}",
            f"{report['auc_difference']:+.5f}",
            f"{report['mismatching_samples']} of {report['samples']}",
        )
        console.print(quality)
    else:
        console.print("values were left out: there are no answers")

    shown = ("busy", "starved", "blocked", "idle")
    engines = Table(title="Cycles of each engine, summed over cores")
    engines.add_column("card", justify="right")
    engines.add_column("engine")
    for activity in shown:
        engines.add_column(activity, justify="right")
    engines.add_column("busy %", justify="right")
    for card in report["per_card"]:
        for engine in Engine:
            name = engine.name.lower()
            spent = [card[f"{name}_{activity}_cycles"] for activity in shown]
            engines.add_row(
                str(card["card"]) if engine is Engine.LOAD else "",
                name,
                *(f"{cycles:,}" for cycles in spent),
                f"{100 * spent[0] / max(1, sum(spent)):.1f}",
                end_section=engine is Engine.VECTOR,
            )
    console.print(engines)

    def per_card(title: str, columns: dict[str, str]) -> None:
        table = Table(title=title)
        for column in ("card", *columns):
            table.add_column(column, justify="right")
        for card in report["per_card"]:
            table.add_row(str(card["card"]), *(f"{card[name]:,}" for name in columns.values()))
        console.print(table)

    waits = {wait: f"gather_{wait}_cycles" for wait in GATHER_WAITS}
    per_card("Gather units: cycles spent on", waits)
    payload = {
        "DRAM read": "dram_read_bytes",
        "DRAM written": "dram_write_bytes",
        "PCIe read": "pcie_read_bytes",
        "PCIe written": "pcie_write_bytes",
    }
    per_card("Payload bytes", payload)
    weights = {"from DRAM": "weight_dram_bytes", "from the scratchpad": "weight_scratchpad_bytes"}
    per_card("Weight bytes read", weights)
    caches = {"hits": "gather_cache_hits", "misses": "gather_cache_misses"}
    if any(card[name] for card in report["per_card"] for name in caches.values()):
        per_card("Hot-row caches", caches)

    latency = Table(title="Latency per batch")
    for column in ("batch", "cycles", "µs"):
        latency.add_column(column, justify="right")
    pairs = zip(report["latency_cycles"], report["latency_us"], strict=True)
    for index, (cycles, microseconds) in enumerate(pairs):
        latency.add_row(str(index), f"{cycles:,}", f"{microseconds:.1f}")
    console.print(latency)
    console.print(
        f"total {report['total_cycles']:,} cycles = {report['total_us']:.1f} µs of platform time, "
        f"{report['samples_per_second']:,.0f} samples/s"
    )


def print_layers(report: Layers, console: Console) -> None:
    """What each layer of a request took and moved; then what the host computed, and why."""
    cards = [layer for layer in report.layers if layer.where == "cards"]
    table = Table(
        title=f"Layers of {report.rows} samples on {report.cards} cards",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("layer", overflow="fold")
    table.add_column("operator", overflow="fold")
    for name in ("cycles", "MAC", "moved", "× least", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in cards:
        bound = "" if layer.of_bound is None else f"{layer.bound} {layer.of_bound:.2f}"
        moved = sum(layer.moved_bytes.values())
        table.add_row(
            layer.name,
            ", ".join(layer.operators),
            f"{layer.ran_cycles:,}",
            "" if layer.mac_utilisation is None else f"{layer.mac_utilisation:.0%}",
            size(moved),
            f"{moved / layer.least_bytes:.2f}" if layer.least_bytes else "",
            bound,
        )
    console.print(table)
    console.print(
        "cycles in which its commands ran on the card that is busiest with it; MAC: use of the "
        "array during products; × least: bytes moved over those that each operand takes once; "
        "bound: what would take longest, and how many times as long it took"
    )
    host = [layer for layer in report.layers if layer.where == "host"]
    if host:
        rows = [
            {
                "layer": layer.name,
                "operators": ", ".join(layer.operators),
                "ms": layer.seconds * 1e3,
                "reason": layer.reason,
            }
            for layer in host
        ]
        console.print(of_rows("On the host", rows))
    moved = sum(report.moved_bytes.values())
    kinds = ", ".join(f"{kind} {size(nbytes)}" for kind, nbytes in report.moved_bytes.items())
    console.print(
        f"{report.latency_cycles:,} cycles; moved {size(moved)} ({kinds}), "
        f"{moved / max(1, report.least_bytes):.2f} times the least possible "
        f"{size(report.least_bytes)}",
        highlight=False,
    )


def print_gather(result: dict, console: Console) -> None:
    """The result of `halfdome bench gather`."""
    limits = ("dram", "lanes", "index", "output", "bus")
    groups: dict[str, list[dict]] = {}
    for row in result["rows"]:
        groups.setdefault(f"{row['reuse']} lookups, {row['stride']} rows", []).append(row)
    for title, rows in groups.items():
        table = Table(title=f"{title}: cycles, and those of every bound", box=SIMPLE_HEAD)
        table.add_column("point")
        for name in ("cycles", *limits, "eff."):
            table.add_column(name, justify="right")
        for row in rows:
            bounds = {name: f"{row[f'{name}_bound_cycles']:,}" for name in limits}
            bounds[row["tightest_bound"]] += "*"
            efficiency = f"{row['gather_efficiency']:.3f}"
            table.add_row(row["point"], f"{row['cycles']:,}", *bounds.values(), efficiency)
        console.print(table)
    console.print("* the tightest bound; efficiency (eff.) is that bound over cycles")
    console.print(result["operands"])
    groups_of = result["summary"]["efficiency"]
    console.print(of_rows("Efficiency", [{"of": name} | of for name, of in groups_of.items()]))
    for point in result["summary"]["worst"]:
        console.print(f"{point['point']} {point['reuse']} {point['stride']}: {point['why']}")


def print_gather_study(result: dict, console: Console) -> None:
    """The result of `halfdome bench gather --study`."""
    table = Table(title=f"{result['study']}, production lookups", box=SIMPLE_HEAD)
    for name in ("point", "stride", "variant"):
        table.add_column(name)
    for name in ("cycles", "speed-up", "cache hits", "row hits"):
        table.add_column(name, justify="right")
    names = [(row["point"], row["stride"]) for row in result["rows"]]
    # The variants of a point under each other.
    for row in sorted(result["rows"], key=lambda r: names.index((r["point"], r["stride"]))):
        table.add_row(
            row["point"],
            row["stride"],
            row["variant"],
            f"{row['cycles']:,}",
            f"{row['speed_up']:.2f}",
            f"{row['cache_hit_rate']:.0%}",
            f"{row['dram_row_hits'] / max(1, row['dram_reads']):.0%}",
        )
    console.print(table)


def print_cores(result: dict, console: Console) -> None:
    """The result of `halfdome bench cores`."""
    shown = (
        "workload", "cores", "cycles_per_request", "speedup", "binds", "of_bound", "balance",
    )  # fmt: skip
    known = [row for row in result["rows"] if "missing" not in row]
    if known:
        rows = [{name: row[name] for name in shown} for row in known]
        console.print(of_rows("One card, some of its cores", rows))
        rows = [
            {"workload": row["workload"], "cores": row["cores"]}
            | {k.removesuffix("_share"): row[k] for k in row if k.endswith("_share")}
            for row in known
        ]
        console.print(of_rows("What is busy for which share of a request: the largest binds", rows))
    for row in result["rows"]:
        if "missing" in row:
            console.print(f"{row['workload']}: {row['missing']}")


def print_link(result: dict, console: Console) -> None:
    """The result of `halfdome bench link`: a row a kind of transfer, a column a size."""
    lengths = list(dict.fromkeys(row["bytes"] for row in result["rows"]))
    kinds: dict[str, dict[int, dict]] = {}
    for row in result["rows"]:
        kinds.setdefault(f"{row['cards']} {row['kind']} {row['end']}", {})[row["bytes"]] = row
    for title, name, unit, decimals in (
        ("Share of the payload limit", "of_payload_limit", 1, 3),
        ("GB/s, all cards together", "bytes_per_second", 1e9, 2),
        ("µs of one transfer by itself", "alone_ns", 1e3, 2),
    ):
        table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.add_column("cards", no_wrap=True)
        for nbytes in lengths:
            table.add_column(size(nbytes), justify="right")
        for kind, of_length in kinds.items():
            values = (of_length[nbytes][name] / unit for nbytes in lengths)
            table.add_row(kind, *(f"{value:.{decimals}f}" for value in values))
        console.print(table)
    console.print(of_rows("64 KiB reads of the host, by tags", result["tags"]))


def print_transfers(result: dict, console: Console) -> None:
    """The result of `halfdome bench transfers`."""
    table = Table(
        title=f"A batch of {result['samples'] // result['batches']} on {result['cards']} cards, "
        "switched off and on",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0),
    )
    table.add_column("switch", no_wrap=True)
    for name in (
        "uplink bytes off", "on", "saved", "packets off", "on", "cycles off", "on", "saved",
    ):  # fmt: skip
        table.add_column(name, justify="right", min_width=4)
    for row in result["rows"]:
        pairs = {
            name: (f"{row[f'{name}_off']:,}", f"{row[f'{name}_on']:,}")
            for name in ("uplink_bytes", "uplink_packets", "cycles")
        }
        table.add_row(
            row["switch"] + ("*" if row["of"] == "placing" else ""),
            *pairs["uplink_bytes"],
            f"{row['bytes_saved']:.0%}",
            *pairs["uplink_packets"],
            *pairs["cycles"],
            f"{row['cycles_saved']:.0%}",
        )
    console.print(table)
    console.print("* of placing the model, before the first batch")


def print_faults(account: dict, console: Console) -> None:
    """What was injected in a run, who noticed, and what the host did."""
    table = Table(title="Faults: packets hit, and who noticed", box=SIMPLE_HEAD)
    table.add_column("fault", overflow="fold")
    for name in ("injected", "corrected", "detected", "reported", "unnoticed"):
        table.add_column(name, justify="right")
    for row in account["faults"]:
        table.add_row(row["fault"], *(f"{row[c.header]}" for c in table.columns[1:]))
    console.print(table)
    for incident in account["incidents"]:
        batches = ", ".join(map(str, incident["batches"])) or "none"
        console.print(
            f"cycle {incident['cycle']:,}: {incident['error']}: {incident['action']}; "
            f"batches answered again: {batches}",
            highlight=False,
        )
    total = account["total"]
    console.print(
        f"injected {total['injected']} = corrected {total['corrected']} "
        f"+ detected {total['detected']} + reported {total['reported']}"
        + (f" + [red]unnoticed {total['unnoticed']}[/red]" if total["unnoticed"] else "")
    )


_DONE = {
    "": ("replay", "the link corrected it"),
    "answered again": ("again", "the batch was answered again"),
    "card 0 reset": ("reset", "after a reset of the card"),
    "card 0 reset and loaded anew": ("loaded", "whose memory was loaded again, too"),
    "card 0 given up": ("gone", "by the other card, this one was given up"),
}
"""What was done about a fault: a word for it, and what it means."""


def print_fault_matrix(result: dict, console: Console) -> None:
    """The result of `halfdome bench faults`: a row a fault, a column a phase."""
    phases = list(dict.fromkeys(row["phase"] for row in result["rows"]))
    cells: dict[str, dict[str, str]] = {}
    for row in result["rows"]:
        word, _ = _DONE.get(row["actions"].split("; ")[0], (row["actions"], ""))
        if row["outcome"] != "right" or "unnoticed" in row["who"]:
            word = f"[red]{row['outcome']}, {row['who']}[/red]"
        cells.setdefault(row["fault"], {})[row["phase"]] = word
    table = Table(
        title="What made the answers right, by fault and phase",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("fault", no_wrap=True)
    for phase in phases:
        table.add_column(phase)
    for fault, of_phase in cells.items():
        table.add_row(fault, *(of_phase.get(phase, "") for phase in phases))
    console.print(table)
    console.print("; ".join(f"{word}: {meaning}" for word, meaning in _DONE.values()))
    who = [row["who"] for row in result["rows"]]
    counts = ", ".join(f"{who.count(name)} {name}" for name in dict.fromkeys(who))
    right = sum(row["outcome"] == "right" for row in result["rows"])
    console.print(f"{len(who)} cells: {right} answered right in the end; {counts}")
