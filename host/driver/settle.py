"""What the host does about cards after something has failed: bring them to rest."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from halfdome.host.driver.accelerator import Accelerator, CardState


@dataclass(frozen=True)
class Settled:
    """The cards that live, those of them whose memory is as it was, and those that were reset."""

    living: list[Accelerator]
    whole: list[Accelerator]
    reset: list[Accelerator]


def settle(
    cards: Sequence[Accelerator], peers: Sequence[Accelerator],
    suspects: Collection[Accelerator] = (),
) -> Settled:  # fmt: skip
    """Ends whatever any of `cards` was doing, and starts those anew that do not end it.

    `suspects` are reset in any case and their memory is not trusted. Commands that wait for one of
    `peers`, all cards of the platform, are let go by setting the counters that it would have set.
    A card that was reset behind the driver's back may have lost its memory, and one that ran what
    it was not told may have written anywhere; one that does not answer for the driver's patience,
    or cannot be reset, is given up.
    """
    for card in cards:
        card.drop()
    states = {card.index: card.state() for card in cards}
    doubtful = {card.index for card in suspects}
    sound = [
        card
        for card in cards
        if states[card.index] is CardState.RUNNING and card.index not in doubtful
    ]
    for card in sound:
        card.catch_up(peers)
    drained = [card.index for card in sound if card.drain()]
    doubtful |= {card.index for card in sound if card.strayed}
    living = []
    for card in cards:
        silent = states[card.index] is CardState.SILENT
        if card.index in drained or (not silent and card.restart(peers)):
            living.append(card)
        else:
            card.give_up()
    kept = (CardState.RUNNING, CardState.STOPPED)
    whole = [c for c in living if states[c.index] in kept and c.index not in doubtful]
    return Settled(living, whole, [card for card in living if card.index not in drained])
