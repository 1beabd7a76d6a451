"""What each trick of the transfers between host and cards is worth on a DLRM batch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from halfdome.hdl.config import CardConfig
from halfdome.host.bench.dlrm import SEED, Workload, check_design, differing, golden
from halfdome.host.models.features import Batch
from halfdome.host.models.quantise import request
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.transfers import Transfers
from halfdome.host.serving.deploy import deploy

SWITCHES = tuple(field.name for field in fields(Transfers))
NONE = Transfers(**dict.fromkeys(SWITCHES, False))
"""Every switch off."""
ALL = Transfers(**dict.fromkeys(SWITCHES, True))


@dataclass(frozen=True)
class Cost:
    """What a batch, or placing the model, took: bytes on the wire of the uplink, both ways, and
    packets that carried them."""

    uplink_bytes: int
    uplink_packets: int
    cycles: int


def _cost(runtime: Runtime, before: dict[str, int], start: int, batches: int = 1) -> Cost:
    """Since `start`, a batch's share."""
    after = runtime.platform.traffic()["uplink"]
    spent = {name: after[name] - before[name] for name in after}
    return Cost(
        round((spent["to_cards_wire_bytes"] + spent["to_host_wire_bytes"]) / batches),
        round((spent["to_cards_tlps"] + spent["to_host_tlps"]) / batches),
        round((runtime.cycles - start) / batches),
    )


def run(runtime: Runtime, work: Workload, transfers: Transfers) -> tuple[Cost, Cost, int]:
    """Places the model and answers every batch: both costs, and samples with other bits than
    the golden model, which sees the inputs as the cards do."""
    uplink = runtime.platform.traffic()["uplink"]
    start = runtime.cycles
    served = deploy(runtime, work.graph, transfers)
    placing = _cost(runtime, uplink, start)
    requests = [request(batch) for batch in work.batches]
    uplink, start = runtime.platform.traffic()["uplink"], runtime.cycles
    answers = served.run(requests)
    serving = _cost(runtime, uplink, start, len(work.batches))
    served.release()
    expected = [golden(work.graph, seen(batch, transfers)) for batch in work.batches]
    return placing, serving, differing(answers, expected)


def seen(batch: Batch, transfers: Transfers) -> Batch:
    """A batch as the cards see it: with `half_inputs` its dense features are rounded."""
    if not transfers.half_inputs:
        return batch
    return replace(batch, dense=batch.dense.astype(np.float16).astype(np.float32))


def measure(
    work: Workload,
    config: CardConfig,
    *,
    cards: int = 6,
    engine: str = "native",
    progress: Callable[[int], None] = lambda settings: None,
) -> dict:
    """Every switch on and off, the others as `Transfers` has them; then none and all.

    Figures are of one batch, the average of all; of `broadcast`, which acts before the first, of
    placing the model. `progress` is told of each setting that has been measured.
    """
    check_design(work, config, cards=cards, engine=engine)
    usual = Transfers()
    seen: dict[Transfers, tuple[Cost, Cost, int]] = {}

    with open(cards=cards, config=config, engine=engine) as runtime:

        def cost(setting: Transfers) -> tuple[Cost, Cost, int]:
            if setting not in seen:
                seen[setting] = run(runtime, work, setting)
                progress(1)
            return seen[setting]

        rows = []
        for name in SWITCHES:
            phase = 0 if name == "broadcast" else 1
            off, on = (cost(replace(usual, **{name: value}))[phase] for value in (False, True))
            rows.append(_row(name, "placing" if phase == 0 else "batch", off, on))
        rows.append(_row("all", "batch", cost(NONE)[1], cost(ALL)[1]))
        rows.append(_row("all", "placing", cost(NONE)[0], cost(ALL)[0]))
    return {
        **stamp(config, SEED),
        "engine": engine,
        "cards": cards,
        "samples": work.samples,
        "batches": len(work.batches),
        "usual": asdict(usual),
        "rows": rows,
        "mismatching_samples": sum(mismatches for _, _, mismatches in seen.values()),
    }


def _row(name: str, of: str, off: Cost, on: Cost) -> dict:
    row: dict[str, object] = {"switch": name, "of": of}
    for field in fields(Cost):
        row[f"{field.name}_off"] = getattr(off, field.name)
        row[f"{field.name}_on"] = getattr(on, field.name)
    row["bytes_saved"] = 1 - on.uplink_bytes / off.uplink_bytes
    row["cycles_saved"] = 1 - on.cycles / off.cycles
    return row


def steps() -> int:
    """How often `measure` tells of progress: one setting for each that differs."""
    usual = Transfers()
    turned = {replace(usual, **{name: not getattr(usual, name)}) for name in SWITCHES}
    return len({usual, NONE, ALL} | turned)
