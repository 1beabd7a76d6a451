"""`halfdome bench`: measure, and say against what."""

import typer

from halfdome.host.cli.bench import cores, engine, faults, fpga, gather, link, matmul, models

app = typer.Typer(help="Measure, and say against what.", no_args_is_help=True)
for name, command in {
    "matmul": matmul.bench_matmul,
    "gather": gather.bench_gather,
    "link": link.bench_link,
    "transfers": link.bench_transfers,
    "faults": faults.bench_faults,
    "engine": engine.bench_engine,
    "cores": cores.bench_cores,
    "fairness": cores.bench_fairness,
    "together": cores.bench_together,
    "flights": cores.bench_flights,
    "model": engine.bench_model,
    "models": models.bench_models,
    "fpga": fpga.bench_fpga,
    "area": fpga.bench_area,
}.items():
    app.command(name)(command)
