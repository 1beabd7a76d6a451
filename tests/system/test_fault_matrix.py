"""Every fault at every phase of a batch: the right bits in the end, and somebody noticed."""

import pytest
from rich.console import Console

import halfdome
from halfdome.host.bench import faults
from halfdome.host.report import tables
from halfdome.host.report.faults import account
from halfdome.sim.fabric.faults import Fault, FaultKind, FaultPlan

QUICK = ("input read", "peer copy")


def opened():
    return halfdome.open(cards=faults.CARDS, config="tiny", patience_cycles=faults.PATIENCE_CYCLES)


@pytest.fixture(scope="module")
def service():
    with opened() as runtime:
        yield faults.serve(runtime)


@pytest.fixture(scope="module")
def phases(service):
    return faults.find_phases(service)


@pytest.fixture(scope="module")
def matrix():
    """The rows so far; printed at the end, which `pytest -s` shows."""
    rows = []
    yield rows
    tables.print_fault_matrix({"rows": rows}, Console(width=80))


@pytest.fixture
def impatient(monkeypatch):
    """The host's reads of a card that does not answer end sooner: less to simulate."""
    monkeypatch.setattr("halfdome.sim.bus.READ_TIMEOUT_CYCLES", 5_000)


@pytest.mark.parametrize(
    ("phase", "fault"),
    [
        pytest.param(*cell, marks=() if cell[0] in QUICK else pytest.mark.slow)
        for cell in faults.cells()
    ],
)
def test_a_fault_is_noticed_and_the_answers_are_right(
    service, phases, matrix, impatient, phase, fault
):
    if fault == "silent":  # for good
        with opened() as runtime:
            row = faults.strike(faults.serve(runtime), fault, phases[phase])
    else:
        row = faults.strike(service, fault, phases[phase])
        free = service.runtime.platform._host_memory.free_bytes
        assert len(service.served.run(service.requests[:1])) == 1
        assert service.runtime.platform._host_memory.free_bytes == free
        for card in service.runtime.cards:
            assert card.device.read("OUTSTANDING_READS") == 0
    matrix.append({"phase": phase, **row})
    assert row["outcome"] == "right"
    assert row["injected"] == 1
    assert row["who"] in ("corrected", "detected", "reported")
    corrected = fault == "corrupt"
    assert (row["who"] == "corrected") == corrected
    assert (row["again"] == 0) == corrected
    if fault == "silent":
        assert row["actions"] == "card 0 given up"
    if fault == "link-down":
        assert row["actions"] == "card 0 reset and loaded anew"
    if phase == "input read" and fault in ("poison", "unsupported", "abort", "lost-completion"):
        assert row["actions"] == "answered again"  # no reset for that
        assert "card 0: LOAD failed with READ_FAILED" in row["errors"]
    if phase == "peer copy" and fault == "poisoned-write":
        assert "a write was refused" in row["errors"]


def strike_uplink(service, text):
    """Answers the batches with a fault of the uplink; the incidents, and the fault's row."""
    runtime, served = service.runtime, service.served
    before = len(served.incidents)
    runtime.inject([text])
    answers = served.run(service.requests)
    assert faults.differing(answers, service.expected) == 0
    incidents = served.incidents[before:]
    row = account(runtime, incidents)["faults"][-1]
    assert row["fault"] == text
    return incidents, row


@pytest.mark.parametrize("skip", [0, 7])
@pytest.mark.parametrize(
    "fault", [name for name in faults.FAULTS if name not in ("silent", "link-down")]
)
def test_a_fault_of_the_uplink_is_noticed_and_the_answers_are_right(
    service, impatient, fault, skip
):
    text = f"{fault}:link=uplink,skip={skip},for={faults.LATE_US}"
    incidents, row = strike_uplink(service, text)
    assert row["injected"] == 1
    assert row["unnoticed"] == 0
    assert (row["corrected"] == 1) == (fault == "corrupt")
    assert bool(incidents) == (fault != "corrupt")


def test_a_silent_uplink_leaves_no_card_and_is_reported(impatient):
    with opened() as runtime:
        service = faults.serve(runtime)
        runtime.inject(["silent:link=uplink"])
        with pytest.raises(halfdome.CardError):
            service.served.run(service.requests)
        (row,) = account(runtime, service.served.incidents)["faults"]
        assert (row["injected"], row["reported"]) == (1, 1)


def test_faults_of_a_plan_have_no_text_but_are_accounted_for(service, impatient):
    runtime = service.runtime
    fault = Fault(
        kind=FaultKind.CORRUPT, card=None, to_card=False, after_ns=runtime.platform.time_ns
    )
    runtime.platform.inject(FaultPlan((fault,)))
    service.served.run(service.requests)
    row = account(runtime, [])["faults"][-1]
    assert row["fault"] == "CORRUPT uplink up"
    assert row["corrected"] == row["injected"] == 1
