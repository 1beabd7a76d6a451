"""A graph on the cards of an open platform, compiled again whenever other cards serve it."""

from collections.abc import Sequence

from halfdome.hdl.config import CardConfig
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.division import Parallelism
from halfdome.host.graph.graph import Graph
from halfdome.host.platform import Runtime
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.placement import Before
from halfdome.host.runtime.program import Program
from halfdome.host.runtime.transfers import Transfers


class _Plan:
    """Compiles for the cards that serve; tables stay where they are."""

    def __init__(
        self, graph: Graph, config: CardConfig, transfers: Transfers, in_flight: int | None,
        parallelism: Parallelism | str | None, cores: Sequence[int] | None,
        cores_sparse: int | None,
    ):  # fmt: skip
        self._graph = graph
        self._config = config
        self._transfers = transfers
        self._in_flight = in_flight
        self._parallelism = parallelism
        self._cores = cores
        self._cores_sparse = cores_sparse

    def __call__(self, numbers: Sequence[int], before: Before | None) -> Program:
        return compile(
            self._graph, self._config, len(numbers), transfers=self._transfers,
            in_flight=self._in_flight, kept=_kept(numbers, before) if before else {},
            parallelism=self._parallelism, cores=self._cores, cores_sparse=self._cores_sparse,
        )  # fmt: skip


def _kept(numbers: Sequence[int], before: Before) -> dict[int, int]:
    """The position of the card that holds a table, of those that lie on one card as a whole."""
    kept = {}
    tables = before.program.about["tables"]
    for table, tasks in enumerate(tables.values()):  # type: ignore[attr-defined]
        card = before.numbers[tasks[0][0]]
        if len(tasks) == 1 and card in numbers:
            kept[table] = numbers.index(card)
    return kept


def deploy(
    runtime: Runtime, model: Graph | Program, transfers: Transfers | None = None,
    in_flight: int | None = None, parallelism: Parallelism | str | None = None,
    cores: Sequence[int] | None = None, cores_sparse: int | None = None, priority: int = 0,
) -> Deployment:  # fmt: skip
    """Places a model on all cards of a runtime, ready for `Deployment.run`.

    Parameters
    ----------
    model : Graph, compiled here; or Program, made for so many cards: no other cards take over then
    transfers : Transfers or None for its defaults, or the program's
    in_flight : int, requests that are worked on at a time
    parallelism : what the cards divide between them, see `compile`; of a graph
    cores, cores_sparse : which cores of each card serve it, and how many of them pool embedding
        bags alone, see `compile`; of a graph
    priority : 1 if its cores go before those of models that have 0, see `run_together`

    Raises what `compile` and `Deployment` raise.
    """
    plan: _Plan | Program
    if not isinstance(model, Graph | Program):
        raise ValueError(f"model: is a {type(model).__name__}, must be a Graph or a Program")
    if isinstance(model, Program):
        plan, how = model, Transfers(**model.about["transfers"])  # type: ignore[arg-type]
    else:
        how = transfers or Transfers()
        plan = _Plan(model, runtime.config, how, in_flight, parallelism, cores, cores_sparse)
    return Deployment(
        runtime.session, runtime.accelerators, plan, lambda: runtime.platform.cycles,
        as_list=how.command_lists, pass_on=how.broadcast,
        priority=priority,
    )  # fmt: skip
