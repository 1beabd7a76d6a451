"""`halfdome bench link` and `transfers`: what goes over the links."""

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables


def bench_link(
    config: options.Config = "default",
    engine: options.EngineName = "native",
    json_file: options.JsonFile = None,
) -> None:
    """Link efficiency: payload over what the wire could carry, for DMA of 64 B to 1 MiB.

    One card and six, host and peer, and how many tags cover the latency of a read. Takes minutes.

    Example: `halfdome bench link --json link.json`
    """
    from halfdome.host.bench import link

    design = preset(config)
    with options.progress() as bar:
        task = bar.add_task("transfers", total=link.steps())
        result = link.measure(design, engine, lambda rows: bar.advance(task, rows))
    tables.print_link(result, console)
    options.write_json(json_file, result)


def bench_transfers(
    samples: options.Samples = 1024,
    batch: options.Batch = 128,
    cards: options.Cards = 6,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    data: options.Data = None,
    json_file: options.JsonFile = None,
) -> None:
    """What each trick of the transfers saves on a batch: bytes over the uplink and cycles.

    Every switch on and off, the others as usual. Answers are compared with the golden model; any
    difference makes the exit status 1.

    Example: `halfdome bench transfers --samples 512 --json transfers.json`
    """
    from halfdome.host.bench import dlrm, transfers
    from halfdome.host.models.dlrm import WEIGHTS

    work = dlrm.workload(data, WEIGHTS, samples, batch)
    design = preset(config)
    with options.progress() as bar:
        task = bar.add_task("settings", total=transfers.steps())
        result = transfers.measure(
            work, design, cards=cards, engine=engine, progress=lambda n: bar.advance(task, n)
        )
    tables.print_transfers(result, console)
    options.write_json(json_file, result)
    options.require_right(result["mismatching_samples"], "samples")
