"""A read that goes wrong fails its command, by name; nothing else notices; a reset makes anew."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Opcode, ReadFailure, Status
from halfdome.hdl.descriptors import pack
from halfdome.sim.fabric.faults import Fault, FaultKind, FaultPlan, Flow

BYTES = 1024
TIMEOUT_CYCLES = 4000
READ_COUNTERS = (
    "POISONED_COMPLETIONS", "UNSUCCESSFUL_COMPLETIONS", "MALFORMED_COMPLETIONS",
    "COMPLETION_TIMEOUTS", "LATE_COMPLETIONS", "UNEXPECTED_COMPLETIONS",
)  # fmt: skip


@pytest.fixture
def load(runtime):
    """`load(card)`: loads fresh random bytes; the completion. If it is good, so are the bytes."""
    rng = np.random.default_rng(3)
    buffer = runtime.platform.bus.map(BYTES)

    def run(card):
        buffer.array[:BYTES] = rng.integers(0, 256, BYTES)
        move = {"rows": 1, "row_bytes": BYTES, "source_stride": BYTES, "destination_stride": BYTES}
        raw = pack(Opcode.LOAD, source=buffer.address, destination=0, **move)
        (completion,) = card.device.wait(card.device.submit([raw]))
        if completion.status == Status.OK:
            written = runtime.platform.bus.read(card.device.bar2, BYTES)
            assert written == buffer.array[:BYTES].tobytes()
        return completion

    yield run
    buffer.release()


def hit(runtime, kind, skip):
    """Lets a completion to card 0 go wrong: `skip` 0 is a descriptor's, later ones the data's."""
    fault = Fault(kind=kind, card=0, flow=Flow.COMPLETION, skip=skip, for_ns=40_000)
    runtime.platform.inject(FaultPlan((fault,)))


def impatient(card, monkeypatch):
    monkeypatch.setattr(card.device, "patience_cycles", 4 * TIMEOUT_CYCLES)
    card.device.write("COMPLETION_TIMEOUT_CYCLES", TIMEOUT_CYCLES)


def counts(card):
    return {name: card.device.read(name) for name in READ_COUNTERS}


@pytest.mark.parametrize(
    ("kind", "failure", "counted"),
    [
        (FaultKind.POISON, ReadFailure.POISONED, {"POISONED_COMPLETIONS": 1}),
        (FaultKind.REFUSE, ReadFailure.UNSUCCESSFUL, {"UNSUCCESSFUL_COMPLETIONS": 1}),
        (FaultKind.ABORT, ReadFailure.UNSUCCESSFUL, {"UNSUCCESSFUL_COMPLETIONS": 1}),
        (FaultKind.DROP, ReadFailure.TIMED_OUT, {"COMPLETION_TIMEOUTS": 1}),
        (FaultKind.DELAY, ReadFailure.TIMED_OUT,
         {"COMPLETION_TIMEOUTS": 1, "LATE_COMPLETIONS": 1}),
    ],
)  # fmt: skip
def test_a_bad_completion_fails_its_command_and_no_other(
    runtime, card, load, monkeypatch, kind, failure, counted
):
    impatient(card, monkeypatch)
    before = counts(card)
    hit(runtime, kind, skip=2)
    completion = load(card)
    assert (completion.status, completion.detail) == (Status.READ_FAILED, failure)
    assert load(card).status == Status.OK
    assert load(runtime.cards[1]).status == Status.OK
    quarantined = card.device.read("QUARANTINED_TAGS")
    assert quarantined == (failure == ReadFailure.TIMED_OUT)
    runtime.platform.bus.wait(20_000)  # what comes late
    after = counts(card)
    assert {n: after[n] - before[n] for n in after if after[n] != before[n]} == counted
    assert card.device.read("QUARANTINED_TAGS") == (kind == FaultKind.DROP)
    assert card.device.read("OUTSTANDING_READS") == 0
    card.device.reset()
    assert card.device.read("QUARANTINED_TAGS") == 0
    assert counts(card) == dict.fromkeys(READ_COUNTERS, 0)
    assert load(card).status == Status.OK


def test_a_lost_descriptor_stops_the_card_until_it_is_reset(runtime, card, load, monkeypatch):
    impatient(card, monkeypatch)
    hit(runtime, FaultKind.DROP, skip=0)
    with pytest.raises(halfdome.CardError, match="card 0: a descriptor could not be fetched"):
        load(card)
    assert card.device.rings.oldest()[0] == Opcode.LOAD
    card.device.reset()
    assert load(card).status == load(runtime.cards[1]).status == Status.OK
