"""What the engines of a core share: how they take commands, report, and account for time."""

from amaranth.lib import data, enum, stream
from amaranth.lib.wiring import In, Out

from halfdome.hdl.commands import Status
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES

DESCRIPTOR_BITS = DESCRIPTOR_BYTES * 8

WAIT = data.StructLayout({"counter": 8, "value": 32})
"""A counter that does not exist is not waited for."""


class Activity(enum.Enum, shape=2):
    """What an engine does in this cycle; in the order of `registers.ACTIVITIES`."""

    #: No command.
    IDLE = 0
    #: Working on a command.
    BUSY = 1
    #: Has a command, waits for input.
    STARVED = 2
    #: Has a command, waits to hand over output.
    BLOCKED = 3


class Result(data.Struct):
    """How a command ended; `detail` as `Status` describes."""

    status: Status
    detail: 32


def engine_members() -> dict:
    """Members of every engine, seen from the engine.

    command : In(stream of 512 bits), a checked descriptor; viewed as `descriptors.layout`
    result : Out(stream of `Result`), one per command, after its last write can be seen
    activity : Out(Activity)

    An engine that is `Activity.IDLE` and offered no command is frozen: it must have nothing in
    flight by then.

    Fences never reach an engine. An engine may trust what the descriptor checker checks: fields in
    range, operands aligned and inside memory.
    """
    return {
        "command": In(stream.Signature(DESCRIPTOR_BITS)),
        "result": Out(stream.Signature(Result)),
        "activity": Out(Activity),
    }
