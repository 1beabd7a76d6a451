"""Cards that fail while a model is served: others take over, cards come back, retries end."""

import numpy as np
import pytest

import halfdome
from halfdome.host.bench import faults
from halfdome.host.bench.dlrm import differing
from halfdome.host.report.faults import account
from halfdome.host.runtime import placement
from halfdome.host.runtime.placement import FAILURES, RETRIES
from halfdome.host.serving.deploy import deploy

CARDS = 3
READ_TIMEOUT_CYCLES = 5_000


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr("halfdome.sim.bus.READ_TIMEOUT_CYCLES", READ_TIMEOUT_CYCLES)
    with halfdome.open(
        cards=CARDS, config="tiny", patience_cycles=faults.PATIENCE_CYCLES
    ) as runtime:
        yield faults.serve(runtime)


def numbers(service):
    return [card.index for card in service.served.cards]


def right(service):
    return differing(service.served.run(service.requests), service.expected) == 0


def free_bytes(service):
    return free_of(service.runtime)


def free_of(runtime):
    return [(card.dram.free_bytes, card.scratchpad.free_bytes) for card in runtime.cards]


def holders(service):
    """The numbers of the cards that pool each table."""
    tables = service.served.program.about["tables"]
    return {name: {numbers(service)[task[0]] for task in tasks} for name, tasks in tables.items()}


def test_the_tables_of_a_dead_card_are_placed_on_the_others_until_it_is_back(service):
    served = service.served
    placed, free = holders(service), free_bytes(service)
    assert any(1 in cards for cards in placed.values())
    service.runtime.inject(["link-down:card=1,at=3,for=150"])
    assert right(service)
    assert numbers(service) == [0, 2]
    for name, cards in holders(service).items():
        assert cards <= {0, 2}
        if len(placed[name]) == 1 and placed[name] != {1}:
            assert placed[name] <= cards  # it need not move
    assert [incident.action for incident in served.incidents] == ["card 1 given up"]
    assert right(service)
    service.runtime.platform.run(80_000)
    served.revive()
    assert right(service)
    assert numbers(service) == [0, 1, 2]
    assert [incident.action for incident in served.incidents[1:]] == ["card 1 back"]
    served.release()
    assert free_bytes(service) >= free
    assert len(set(free_bytes(service))) == 1


@pytest.mark.parametrize("fault", ["poison", "unsupported", "link-down"])
def test_what_a_placing_took_that_failed_is_given_back(fault):
    with halfdome.open(cards=2, config="tiny", patience_cycles=20_000) as runtime:
        model = faults.made_up(np.random.default_rng(0), 16)
        host, free = runtime.platform._host_memory.free_bytes, free_of(runtime)
        for _ in range(3):
            runtime.inject([f"{fault}:card=1,skip=2"])
            served = deploy(runtime, model.graph)
            assert served.incidents
            assert differing(served.run(model.requests), model.expected) == 0
            served.release()
            assert free_of(runtime) == free
            assert runtime.platform._host_memory.free_bytes == host


def test_a_card_that_loads_for_long_does_not_hang():
    with halfdome.open(cards=1, config="tiny", patience_cycles=20_000) as runtime:
        table = runtime.cards[0].table(np.ones((8000, 4), np.float32))
        assert runtime.cycles > 60_000
        pooled = runtime.cards[0].embedding_bag(table, np.array([7, 7999]), np.array([0]))
        assert (pooled == 2).all()


@pytest.mark.parametrize("count", [2**31 - 9, 2**31 + 9, 2**32 - 30])
def test_a_reset_after_more_commands_than_a_counter_tells_apart(service, count):
    """A counter that is 0 must not compare as one that is 2**31 ahead."""
    timelines = [card.accelerator.timeline for card in service.runtime.cards]
    for timeline in timelines:
        timeline.issued[:] = timeline.told[:] = count
    for timeline in timelines:
        timeline.restore(timelines)
    assert right(service)
    service.runtime.inject(["link-down:card=1,at=3,for=5"])
    assert right(service)
    assert [incident.action for incident in service.served.incidents] == [
        "card 1 reset and loaded anew"
    ]
    assert right(service)


def test_a_card_that_was_given_up_is_looked_for_seldom(service, monkeypatch):
    monkeypatch.setattr(placement, "LOOK_CYCLES", 120_000)
    service.runtime.inject(["link-down:card=1,at=3,for=150"])
    assert right(service)
    assert numbers(service) == [0, 2]
    before = service.runtime.cycles
    assert right(service)
    assert service.runtime.cycles - before < READ_TIMEOUT_CYCLES + 20_000
    service.runtime.platform.run(120_000)
    assert right(service)
    assert numbers(service) == [0, 1, 2]


@pytest.mark.slow
def test_two_of_three_cards_die_and_service_goes_on(service):
    service.runtime.inject(["silent:card=2,at=3", "silent:card=0,at=60"])
    assert right(service)
    assert right(service)
    service.runtime.platform.run(30_000)
    assert right(service)
    assert numbers(service) == [1]
    assert set().union(*holders(service).values()) == {1}


@pytest.mark.slow
def test_no_card_left_is_told_and_no_hang(service):
    service.runtime.inject([f"link-down:card={card},at=2,for=120" for card in range(CARDS)])
    for _ in range(2):
        with pytest.raises(halfdome.CardError, match="no card answers: the model is nowhere"):
            service.served.run(service.requests)
    service.runtime.platform.run(60_000)
    assert right(service)
    assert numbers(service) == [0, 1, 2]


def test_retries_are_bounded_and_a_later_request_is_answered(service):
    served = service.served
    service.runtime.inject(["poison:card=1,skip=3,count=25"])
    failures = 0
    for _ in range(10):
        try:
            assert right(service)
            break
        except FAILURES:
            failures += 1
    assert failures
    assert {tuple(incident.cards) for incident in served.incidents} == {(1,)}
    assert right(service)
    assert numbers(service) == [0, 1, 2]
    again = [batch for incident in served.incidents for batch in incident.batches]
    assert max(map(again.count, again)) <= (1 + RETRIES) * (1 + failures)


def test_requests_on_other_cards_go_on(service):
    """Each card used by itself, one of them without its link."""
    rng = np.random.default_rng(0)
    x, weight = rng.integers(0, 256, (4, 16), np.uint8), rng.integers(-9, 9, (8, 16), np.int8)
    expected = service.runtime.cards[2].linear(x, weight, 0.01)
    service.runtime.inject(["link-down:card=0,for=1000"])
    service.runtime.platform.run(10)
    assert (service.runtime.cards[2].linear(x, weight, 0.01) == expected).all()
    with pytest.raises(halfdome.CardError, match="card 0: does not answer"):
        service.runtime.cards[0].linear(x, weight, 0.01)
    assert (service.runtime.cards[1].linear(x, weight, 0.01) == expected).all()


@pytest.mark.slow
def test_a_card_that_runs_out_of_tags_is_reset(service):
    """Each completion that is lost keeps a tag until a reset."""
    phase = faults.find_phases(service)["input read"]
    tags = service.runtime.config.dma_tags
    rows = [faults.strike(service, "lost-completion", phase) for _ in range(tags)]
    assert {row["outcome"] for row in rows} == {"right"}
    assert "answered again" in rows[0]["actions"]
    assert any("all PCIe tags are in quarantine" in row["errors"] for row in rows)
    assert any("reset" in row["actions"] for row in rows)
    assert service.runtime.cards[0].device.read("QUARANTINED_TAGS") < tags - 1


def test_a_result_whose_write_is_refused_is_stored_again(service):
    card = service.runtime.cards[2]
    block, values = card.accelerator.place(64), np.arange(64, dtype=np.uint8)
    card.accelerator.upload(block, values)
    service.runtime.inject(["poisoned-write:card=2"])
    assert (card.accelerator.download(block, 64) == values).all()
    ((_, struck),) = service.runtime.platform.fault_strikes()
    assert struck == 1
    card.release(block)


@pytest.mark.slow
def test_dense_nets_that_a_refused_write_left_unfinished_are_sent_again():
    with halfdome.open(cards=2, config="tiny", patience_cycles=faults.PATIENCE_CYCLES) as runtime:
        # Each table's upload ends with an entry and an interrupt; then come those of the operands,
        # before the first of them leaves for the other card.
        told = []
        for skip in range(6, 30, 3):
            runtime.inject([f"poisoned-write:card=0,skip={skip}"])
            service = faults.serve(runtime)
            assert right(service)
            told += [incident.error for incident in service.served.incidents]
            service.served.release()
        assert "a write was refused while the model was placed: it never arrived" in told


def drawn(rng):
    """A fault by name, on any link, in the first 60 us or soon after; not for ever."""
    name = str(rng.choice([name for name in faults.FAULTS if name != "silent"]))
    link = rng.integers(CARDS + (name != "link-down"))
    where = "link=uplink" if link == CARDS else f"card={link}"
    text = f"{name}:{where},at={rng.uniform(0, 60):.2f}"
    if name in ("link-down", "late-completion"):
        text += f",for={rng.uniform(1, 40):.1f}"
    if name != "link-down":
        text += f",count={rng.integers(1, 4)},skip={rng.integers(30)}"
    return text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_whatever_goes_wrong_no_answer_is(service, seed):
    rng = np.random.default_rng(seed)
    plan = [drawn(rng) for _ in range(rng.integers(1, 6))]
    service.runtime.inject(plan)
    requests, expected = 3 * service.requests, 3 * service.expected
    answered = 0
    for _ in range(4):
        try:
            answers = service.served.run(requests)
        except FAILURES:  # more faults than retries
            continue
        assert differing(answers, expected) == 0, plan
        answered += 1
    assert answered, plan
    total = account(service.runtime, service.served.incidents)["total"]
    assert total["unnoticed"] == 0, plan
    assert total["injected"] == total["corrected"] + total["detected"] + total["reported"]
    for card in service.runtime.cards:
        assert card.device.read("OUTSTANDING_READS") == 0
