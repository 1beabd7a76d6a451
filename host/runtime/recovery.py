"""What the host does about cards after one of them has failed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from halfdome.hdl.commands import Engine
from halfdome.host.driver.device import CardState
from halfdome.host.driver.errors import CardError, CommandError, DataLost
from halfdome.host.runtime.card import Card

FAILURES = (CommandError, DataLost, CardError, TimeoutError)
"""What a request can fail with because something else than the request is wrong; a
`CommandError` only if it `is_transfer`."""


@dataclass(frozen=True)
class Incident:
    """Something that went wrong, and what was done about it.

    Attributes
    ----------
    cycle : int, platform time
    cards : list of int, those that it happened to, as far as is known
    batches : list of int, the batches that had to be answered again
    error : str, named
    action : str
    """

    cycle: int
    cards: list[int]
    batches: list[int]
    error: str
    action: str


@dataclass(frozen=True)
class Settled:
    """The cards that live, those of them whose memory is as it was, and those that were reset."""

    living: list[Card]
    whole: list[Card]
    reset: list[Card]


def settle(cards: Sequence[Card], suspects: Collection[Card] = ()) -> Settled:
    """Ends whatever any card was doing, and starts those anew that do not end it.

    `suspects` are reset in any case and their memory is not trusted. Commands that wait for a card
    that has failed are let go by setting the counters that it would have set. A card that was
    reset behind the driver's back may have lost its memory; one that does not answer for the
    driver's patience, or cannot be reset, is dead.
    """
    for card in cards:
        card.timeline.drop()
    states = {card: _state(card) for card in cards}
    sound = [
        card
        for card, state in states.items()
        if state is CardState.RUNNING and card not in suspects
    ]
    for card in sound:
        for peer in cards:
            if peer is not card:
                promised = peer.timeline.promised(card.index)
                card.device.set_counter(len(Engine) + peer.index, promised)
    sound = [card for card in sound if card.device.drain()]
    dead = []
    for card in cards:
        if card not in sound and (states[card] is CardState.SILENT or not _restart(card)):
            card.device.give_up()
            dead.append(card)
    living = [card for card in cards if card not in dead]
    kept = (CardState.RUNNING, CardState.STOPPED)
    whole = [card for card in living if states[card] in kept and card not in suspects]
    return Settled(living, whole, [card for card in living if card not in sound])


def _state(card: Card) -> CardState:
    """The card's state; a link that has gone down may come back soon."""
    device = card.device
    start = device.clock()
    while (state := device.state()) is CardState.SILENT:
        if device.clock() - start >= device.patience_cycles:
            break
        device.bus.wait(device.patience_cycles // 16)
    return state


def _restart(card: Card) -> bool:
    """Resets a card; False if that fails."""
    try:
        card.device.reset()
    except (CardError, TimeoutError):
        return False
    return True
