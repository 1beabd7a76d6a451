"""A quantised DLRM served by all cards: tables sharded, dense nets replicated."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from hdl.config import CardConfig
from host.driver.errors import CommandError
from host.models.features import Batch
from host.models.quantise import QuantisedDlrm
from host.runtime import broadcast
from host.runtime.card import Card
from host.runtime.embedding import Table
from host.runtime.member import Member
from host.runtime.pipeline import Answer, Pipeline
from host.runtime.placement import TableLoad, place
from host.runtime.runtime import Runtime
from host.runtime.transfers import Transfers


def placement(
    model: QuantisedDlrm, config: CardConfig, cards: int, kept: Mapping[int, int] = {}
) -> list[int]:
    """The card of each table, half of every DRAM being left to weights and buffers.

    `kept` tells the card of tables that are placed already. Raises `ValueError` for a model that
    this configuration cannot serve and `MemoryError` for a table that fits on no card.
    """
    dim = model.architecture.dim
    if dim % config.bus_bytes:
        raise ValueError(
            f"bus_bytes={config.bus_bytes}: columns of the top input are stored card to card in "
            f"whole bus words, so it must divide the model's dim={dim}"
        )
    if dim > config.max_dim:
        raise ValueError(f"max_dim={config.max_dim}: must be at least the model's dim={dim}")
    loads = [
        TableLoad(*table.shape, length)
        for table, length in zip(model.tables, model.mean_bag_length, strict=True)
    ]
    return place(loads, cards, config.dram_bytes // 2, kept)


class Recommender:
    """Answers batches with a model placed on the cards of a runtime.

    Parameters
    ----------
    runtime : Runtime
    model : QuantisedDlrm
    batch_size : int, the most samples of a batch
    transfers : Transfers or None for its defaults

    Attributes
    ----------
    placement : list of int, the card of each table

    Raises `ValueError` for a model that the configuration cannot serve and `MemoryError` if
    tables, weights or buffers do not fit.
    """

    def __init__(
        self, runtime: Runtime, model: QuantisedDlrm, batch_size: int,
        transfers: Transfers | None = None,
    ):  # fmt: skip
        self._runtime = runtime
        self._model = model
        self._batch_size = batch_size
        self._transfers = transfers or Transfers()
        self._form(runtime.cards, {})

    def _form(self, cards: Sequence[Card], tables: Mapping[int, Table]) -> None:
        """Places the model on `cards`, of whose memory `tables` hold some of it already."""
        numbers = [card.index for card in cards]
        kept = {table: numbers.index(placed.card) for table, placed in tables.items()}
        places = placement(self._model, self._runtime.config, len(cards), kept)
        self.placement = [numbers[place] for place in places]
        share = -(-self._batch_size // len(cards))
        self._members = [
            Member(
                card, position, self._model, self.placement, self._batch_size, share,
                self._transfers, tables,
            )
            for position, card in enumerate(cards)
        ]  # fmt: skip
        operands = [member.dense.operands for member in self._members]
        broadcast.load(cards, operands, self._transfers.broadcast)
        bus = self._runtime.platform.bus
        self._pipeline = Pipeline(bus, self._members, self._transfers)

    def release(self) -> None:
        """Gives all card memory back; it answers no more."""
        for member in self._members:
            member.release()
            for table in member.tables.values():
                member.card.release(table.block)
        self._members = []

    def answer(
        self, batches: Sequence[Batch], progress: Callable[[int], None] = lambda samples: None
    ) -> list[Answer]:
        """Answers every batch, several in flight; `progress` is told of each batch's samples.

        Raises `CommandError` if a command of a batch failed, once nothing is in flight any more.
        """
        for batch in batches:
            if not 1 <= len(batch) <= self._batch_size:
                raise ValueError(f"batch of {len(batch)} samples: must be 1 to {self._batch_size}")
        for member in self._members:
            member.prepare(batches)
        answers: dict[int, Answer] = {}
        waiting = deque(range(len(batches)))
        try:
            while len(answers) < len(batches):
                if waiting and self._pipeline.has_room:
                    number = waiting.popleft()
                    self._pipeline.issue(number, batches[number])
                    continue
                number = self._pipeline.numbers[0]
                answers[number] = self._pipeline.land(last=not waiting)
                progress(len(batches[number]))
        except CommandError:
            while self._pipeline.numbers:
                with suppress(CommandError):  # the first failure is the one to tell
                    self._pipeline.land(last=True)
            raise
        return [answers[number] for number in range(len(batches))]
