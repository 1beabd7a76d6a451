"""The same bytes into the memory of several cards."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from halfdome.hdl.commands import Opcode
from halfdome.host.runtime.card import Card
from halfdome.host.runtime.memory import Block
from halfdome.host.runtime.timeline import Event

Operand = tuple[Block, np.ndarray]
"""A block of some card's memory, and uint8[n] that are to be there."""


def load(cards: Sequence[Card], operands: Sequence[Sequence[Operand]], pass_on: bool) -> None:
    """Brings each card its operands, of which each has the same bytes on all cards, and waits.

    With `pass_on` the first card reads host memory, and each card that has the bytes passes them
    to one that has not, until all have them; otherwise all of them read host memory.
    """
    readers = 1 if pass_on else len(cards)
    with ExitStack() as stack:
        for copies in zip(*operands[:readers], strict=True):
            staging = cards[0].device.bus.map(len(copies[0][1]))
            stack.callback(staging.release)
            staging.array[: len(copies[0][1])] = copies[0][1]
            for card, (block, values) in zip(cards, copies, strict=False):
                card.move(Opcode.LOAD, staging.address, block.address, len(values))
        there = [card.timeline.issue(Opcode.FENCE_LOAD) for card in cards[:readers]]
        while len(there) < len(cards):
            for holder in range(min(len(there), len(cards) - len(there))):
                peer = cards[len(there)]
                arrived = _copy(
                    cards[holder], peer, operands[holder], operands[len(there)], there[holder]
                )
                there.append(arrived)
        submitted = [card.timeline.flush() for card in cards]
        for card, identifiers in zip(cards, submitted, strict=True):
            card.timeline.wait(identifiers)


def _copy(
    card: Card, peer: Card, held: Sequence[Operand], lacking: Sequence[Operand], after: Event
) -> Event:
    """Issues copies of what a card has after an event; the event of `peer` when they are there."""
    for (source, values), (target, _) in zip(held, lacking, strict=True):
        address = peer.device.bar2 + target.address
        card.move(Opcode.STORE, source.address, address, len(values), after)
    arrived = card.timeline.notify(peer.device)
    # Else nobody would know when the last bytes have arrived.
    peer.timeline.issue(Opcode.FENCE_STORE, after=(arrived,))
    return arrived
