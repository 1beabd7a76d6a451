"""A quantised DLRM served by all cards: tables sharded, dense nets replicated."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.config import CardConfig
from halfdome.host.driver.bus import DmaBuffer
from halfdome.host.driver.device import CardState
from halfdome.host.driver.errors import CardError, CommandError, DataLost
from halfdome.host.models.features import Batch
from halfdome.host.models.quantise import QuantisedDlrm
from halfdome.host.runtime import broadcast
from halfdome.host.runtime.card import Card
from halfdome.host.runtime.embedding import Table
from halfdome.host.runtime.member import Member
from halfdome.host.runtime.pipeline import Answer, Pipeline
from halfdome.host.runtime.placement import TableLoad, place
from halfdome.host.runtime.recovery import FAILURES, Incident, Settled, settle
from halfdome.host.runtime.runtime import Runtime
from halfdome.host.runtime.transfers import Transfers

RETRIES = 3
"""How often a batch is tried again before its failure is told."""

_NOWHERE = "no card answers: the model is nowhere any more"


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
    incidents : list of Incident, what went wrong so far

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
        self._bus = runtime.platform.bus
        self._held: list[DmaBuffer] = []
        self._members: list[Member] = []
        self._absent: list[Card] = []  # given up
        self._pipeline = Pipeline(self._bus, [], self._transfers)
        self.incidents: list[Incident] = []
        try:
            self._form(runtime.cards, {})
        except FAILURES as error:
            self._recover(error, [])

    def _form(self, cards: Sequence[Card], tables: Mapping[int, Table]) -> None:
        """Places the model on `cards`, of whose memory `tables` hold some of it already."""
        numbers = [card.index for card in cards]
        kept = {table: numbers.index(placed.card) for table, placed in tables.items()}
        places = placement(self._model, self._runtime.config, len(cards), kept)
        self.placement = [numbers[place] for place in places]
        share = -(-self._batch_size // len(cards))
        self._members = []
        for position, card in enumerate(cards):
            member = Member(
                card, position, self._model, self.placement, self._batch_size, share,
                self._transfers, tables,
            )  # fmt: skip
            self._members.append(member)
        alarms = [card.device.alarms for card in cards]
        operands = [member.dense.operands for member in self._members]
        broadcast.load(cards, operands, self._transfers.broadcast)
        if alarms != [card.device.alarms for card in cards]:
            raise DataLost("a write was refused while the model was placed: it never arrived")
        self._pipeline = Pipeline(self._bus, self._members, self._transfers)

    def _recover(self, error: Exception, batches: list[int], suspects: Sequence[Card] = ()) -> None:
        """Settles all cards, and places the model again on those that live.

        Raises `CardError` if none does, and the last failure after `RETRIES` vain attempts.
        """
        tables: dict[int, Table] = {}
        for _ in range(1 + RETRIES):
            absent = self._absent
            settled = settle(self._runtime.cards, {*suspects, *absent})
            for member in self._members:
                member.release()
                tables |= member.tables
            for table, placed in list(tables.items()):
                card = self._runtime.cards[placed.card]
                if card not in settled.whole:
                    card.release(tables.pop(table).block)
            self._members = []
            self._held += self._pipeline.abandon()
            self._pipeline = Pipeline(self._bus, [], self._transfers)
            self._absent = dead = [
                card for card in self._runtime.cards if card not in settled.living
            ]
            if not dead:  # else one of them might still write there
                while self._held:
                    self._held.pop().release()
            concerned = [*dead, *settled.reset]
            self._log(error, batches, _told(settled, dead, absent), concerned)
            if not settled.living:
                raise CardError(_NOWHERE) from error
            try:
                self._form(settled.living, tables)
            except FAILURES as failure:
                error, batches = failure, []
            else:
                return
        for member in self._members:
            member.release()
            tables |= member.tables
        for placed in tables.values():
            self._runtime.cards[placed.card].release(placed.block)
        self._members, self._absent = [], list(self._runtime.cards)
        raise error

    def _log(
        self, error: Exception, batches: list[int], action: str, concerned: Sequence[Card] = ()
    ) -> None:
        cards = {card.index for card in concerned}
        if isinstance(error, CommandError):
            cards.add(error.card)
        message = str(error).splitlines()[0]
        self.incidents.append(
            Incident(self._runtime.cycles, sorted(cards), batches, message, action)
        )

    @property
    def cards(self) -> list[Card]:
        """The cards that serve the model."""
        return [member.card for member in self._members]

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

        A batch that fails because of the cards or the links is answered again, up to `RETRIES`
        times; cards that do not serve take part again if they answer. Raises what it failed with
        last, or `CommandError` for a command that can never succeed, once nothing is in flight.
        """
        for batch in batches:
            if not 1 <= len(batch) <= self._batch_size:
                raise ValueError(f"batch of {len(batch)} samples: must be 1 to {self._batch_size}")
        self.revive()
        if not self._members:
            raise CardError(_NOWHERE)
        for member in self._members:
            member.prepare(batches)
        answers: dict[int, Answer] = {}
        attempts: Counter[int] = Counter()
        waiting = deque(range(len(batches)))
        while len(answers) < len(batches):
            oldest = (*self._pipeline.numbers, *waiting)[0]
            try:
                if waiting and self._pipeline.has_room:
                    number = waiting.popleft()
                    self._pipeline.issue(number, batches[number])
                    continue
                answers[oldest] = self._pipeline.land(last=not waiting)
                progress(len(batches[oldest]))
            except FAILURES as error:
                attempts[oldest] += 1
                final = attempts[oldest] > RETRIES
                if isinstance(error, CommandError) and (final or not error.is_transfer):
                    self._land_rest()
                    raise
                self._retry(error, oldest, batches, waiting)
                if final:
                    self._land_rest()
                    raise
        return [answers[number] for number in range(len(batches))]

    def revive(self) -> None:
        """Lets cards that were given up take part again if they answer; no batch may be in flight.

        `answer` begins with it.
        """
        returned = [c for c in self._absent if c.device.state() is not CardState.SILENT]
        if returned:
            names = ", ".join(f"card {card.index}" for card in returned)
            self._recover(CardError(f"{names}: answers again"), [])

    def _retry(
        self, error: Exception, oldest: int, batches: Sequence[Batch], waiting: deque[int]
    ) -> None:
        """Puts what failed with `error` at the head of `waiting`, and the cards in order."""
        if isinstance(error, CommandError | DataLost) and not _exhausted(error):
            waiting.appendleft(oldest)
            self._log(error, [oldest], "answered again")
            return
        again = sorted({oldest, *self._pipeline.numbers})
        waiting.extendleft(number for number in reversed(again) if number not in waiting)
        suspects = []
        if isinstance(error, CommandError):
            suspects = [self._runtime.cards[error.card]]
        self._recover(error, again, suspects)
        for member in self._members:
            member.prepare(batches)

    def _land_rest(self) -> None:
        """Lets what is in flight end, whatever becomes of it."""
        while self._pipeline.numbers:
            with suppress(CommandError, DataLost):  # the first failure is the one to tell
                self._pipeline.land(last=True)


def _exhausted(error: CommandError | DataLost) -> bool:
    """Whether a card fails because it has run out of tags: only a reset helps."""
    return isinstance(error, CommandError) and error.detail == ReadFailure.NO_TAG


def _told(settled: Settled, dead: Sequence[Card], absent: Sequence[Card]) -> str:
    """What became of the cards, in words."""
    back = [card for card in absent if card in settled.living]
    anew = [card for card in settled.living if card not in settled.whole and card not in back]
    groups = {
        "given up": dead,
        "back": back,
        "reset and loaded anew": anew,
        "reset": [card for card in settled.reset if card not in back and card not in anew],
    }
    parts = [
        f"card{'s' * (len(cards) > 1)} {', '.join(str(card.index) for card in cards)} {what}"
        for what, cards in groups.items()
        if cards
    ]
    return "; ".join(parts) or "all cards brought to rest"
