"""How much of what the array and the links of cards could do some requests used."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import costs, needs, traffic
from halfdome.host.compiler.operands import decoded
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.program import Program

UPLINK = {"pcie_generation": 3, "pcie_lanes": 16}
"""The link of the host, which all cards share."""


@dataclass(frozen=True)
class Utilisation:
    """What requests used together, transfers included.

    Attributes
    ----------
    cards : int, those that worked on them
    rows : int, samples
    cycles : int, from the start of the first command on any card to the end of the last
    macs : int, useful multiply-accumulates of all of them
    useful_mac_share : float, of what the arrays of these cards could have done in that time
    link_bytes_in, link_bytes_out : float, for a sample, as they come over the links
    link_share : float, of what the link of the busiest card could carry, the busier way
    uplink_share : float, of what the host's link could, which carries the bytes of all cards
    """

    cards: int
    rows: int
    cycles: int
    macs: int
    useful_mac_share: float
    link_bytes_in: float
    link_bytes_out: float
    link_share: float
    uplink_share: float


def of(
    steps: Iterable[tuple[Program, Sequence[Response]]], config: CardConfig
) -> Utilisation:  # fmt: skip
    """What the steps of a model used, each on cards of this configuration, one after the other."""
    cycles, macs, rows, cards = 0, 0, 0, set()
    moved: Counter[tuple[int, bool]] = Counter()  # by card, and whether to it
    for program, responses in steps:
        spans = [each[each[:, 0] >= 0] for response in responses for each in response.spans]
        ran = [each for each in spans if len(each)]
        cycles += int(max(each[:, 1].max() for each in ran) - min(each[:, 0].min() for each in ran))
        rows = sum(len(next(iter(each.outputs.values()))) for each in responses)
        macs += rows * sum(need.macs for need in needs.of(program).values())
        for response in responses:
            for position, part in enumerate(program.parts):
                started = response.spans[position][:, 0] >= 0
                cards |= {position} if started.any() else set()
                commands = decoded(part, response.symbols)
                for has_run, command in zip(started, commands, strict=True):
                    if has_run:
                        nbytes = traffic.moved(command, program.segments, config)[traffic.LINK]
                        moved[position, command.opcode is Opcode.LOAD] += nbytes
    ways = [{c: n for (c, into), n in moved.items() if into is way} for way in (True, False)]
    array = config.array_rows * config.array_columns * max(1, cycles * len(cards))
    link = max(1, cycles) * costs.link_bytes_per_cycle(config)
    uplink = max(1, cycles) * costs.link_bytes_per_cycle(config.replace(**UPLINK))
    return Utilisation(
        len(cards), rows, cycles, macs, macs / array,
        *(sum(way.values()) / max(1, rows) for way in ways),
        max(max(way.values(), default=0) for way in ways) / link,
        max(sum(way.values()) for way in ways) / uplink,
    )  # fmt: skip
