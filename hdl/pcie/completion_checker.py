"""What a completion means for its read and for its tag, judged by its header alone."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.pcie.port import READ_EVENTS, events
from halfdome.hdl.pcie.tlp import (
    BYTE_COUNT_BITS,
    MAX_PAYLOAD_BYTES,
    READ_COMPLETION_BOUNDARY,
    CompletionHeader,
    CompletionStatus,
    TlpType,
)

READ_STATE = data.StructLayout(
    {
        "open": 1,
        "quarantined": 1,
        "draining": 1,
        "malformed": 1,
        "poisoned": 1,
        "needed": BYTE_COUNT_BITS,
        "lower_address": 7,
    }
)
"""A tag as a completion or a timeout finds it.

open : its read was sent and has not ended
quarantined : its read has ended, but completions may still come
draining : quarantined, and time will end that
malformed, poisoned : a completion of its read was
needed : bytes that its read still waits for
lower_address : low bits of the bus address of the first of them
"""

VERDICT = data.StructLayout(
    {
        "good": 1,
        "ends": 1,
        "frees": 1,
        "enters": 1,
        "drains": 1,
        "failure": ReadFailure,
        "event": events(READ_EVENTS),
        "carried": BYTE_COUNT_BITS,
        "bytes": BYTE_COUNT_BITS,
    }
)
"""What becomes of a read and of its tag.

good : the payload is what the read needs next
ends : the read is over
frees, enters : the tag is free, is in quarantine from now on
drains : of a quarantine that begins or ends here, time may end it
failure : of a read that ends
event : what is wrong, if anything
carried : bytes of the payload, whole doublewords
bytes : those of them that the read asked for
"""


class CompletionChecker(wiring.Component):
    """Judges a completion, or a timeout, by what its read still needs.

    Members
    -------
    header : In(CompletionHeader)
    malformed : In(1), the payload is not as long as the header says
    timeout : In(1), there is no completion: the tag has waited too long
    read : In(of `READ_STATE`), of the tag; neither open nor quarantined if the card awaits nothing
        under it
    verdict : Out(of `VERDICT`), in the same cycle

    What becomes of a read, and its tag, whose completion is refused:

    - *poisoned*, or its payload is not as long as it says, but in sequence: the read ends with its
      last completion, failed, since the rest will come;
    - an error status: the read ends and its tag is free, since nothing follows;
    - byte count, lower address or length are not what the read needs next: the read ends. If the
      completion is the last by its own count and by the read's, the tag is free. Otherwise more may
      come: the tag drains, until a completion says that it is the last, or the read times out;
    - none comes in time: the read ends, its tag stays in quarantine until a late completion says
      that it is the last.

    Completions under a tag in quarantine are dropped and counted as late.
    """

    def __init__(self):
        super().__init__(
            {
                "header": In(CompletionHeader),
                "malformed": In(1),
                "timeout": In(1),
                "read": In(READ_STATE),
                "verdict": Out(VERDICT),
            }
        )

    def elaborate(self, platform):
        m = Module()
        header, read, verdict = self.header, self.read, self.verdict

        # The header against what the read still needs.
        carried = Signal(BYTE_COUNT_BITS)
        announced = Signal(BYTE_COUNT_BITS)
        end_offset = Signal(exact_log2(READ_COMPLETION_BOUNDARY))
        excess = Signal(BYTE_COUNT_BITS + 1)
        final = Signal()  # the last by the read's count
        last = Signal()  # the last by its own
        successful = Signal()
        in_sequence = Signal()
        with_data = header.type == TlpType.COMPLETION_DATA
        m.d.comb += [
            carried.eq(Mux(header.length == 0, MAX_PAYLOAD_BYTES, header.length << 2)),
            announced.eq(Mux(header.byte_count == 0, MAX_PAYLOAD_BYTES, header.byte_count)),
            end_offset.eq(read.lower_address + carried),
            excess.eq(carried - read.needed),
            final.eq(~excess[-1]),
            last.eq(with_data & (announced <= carried)),
            successful.eq(header.status == CompletionStatus.SUCCESSFUL),
            in_sequence.eq(
                with_data
                & successful
                & (announced == read.needed)
                & (header.lower_address == read.lower_address)
                & Mux(final, excess < 4, end_offset == 0)
            ),
            verdict.good.eq(
                read.open & in_sequence & ~header.poisoned & ~self.malformed & ~self.timeout
            ),
            verdict.carried.eq(carried),
            verdict.bytes.eq(Mux(final, read.needed, carried)),
        ]

        # What that means for the read and for its tag.
        ends = Signal()
        enters = Signal()
        released = Signal()  # from quarantine
        m.d.comb += [
            ends.eq(read.open & (self.timeout | final | ~in_sequence)),
            enters.eq(ends & (self.timeout | (successful & ~(last & final)))),
            released.eq(read.quarantined & Mux(self.timeout, read.draining, ~successful | last)),
            verdict.ends.eq(ends),
            verdict.enters.eq(enters),
            verdict.frees.eq((ends & ~enters) | released),
            verdict.drains.eq(Mux(read.quarantined, read.draining, enters & ~self.timeout)),
        ]

        event, failure = verdict.event, verdict.failure
        malformed = Signal()
        poisoned = Signal()
        m.d.comb += [
            malformed.eq(self.malformed | ~in_sequence),
            poisoned.eq(header.poisoned & ~malformed),
        ]
        with m.If(self.timeout):
            m.d.comb += [event.completion_timeout.eq(read.open), failure.eq(ReadFailure.TIMED_OUT)]
        with m.Elif(read.quarantined):
            m.d.comb += event.late_completion.eq(1)
        with m.Elif(~read.open):
            m.d.comb += event.unexpected_completion.eq(1)
        with m.Elif(~successful):
            m.d.comb += [
                event.unsuccessful_completion.eq(1),
                failure.eq(ReadFailure.UNSUCCESSFUL),
            ]
        with m.Else():
            m.d.comb += [
                event.malformed_completion.eq(malformed),
                event.poisoned_completion.eq(poisoned),
            ]
            with m.If(read.malformed | malformed):
                m.d.comb += failure.eq(ReadFailure.MALFORMED)
            with m.Elif(read.poisoned | poisoned):
                m.d.comb += failure.eq(ReadFailure.POISONED)
        return m
