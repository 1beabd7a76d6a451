"""Two cores on one card: what one is told never stops the other, and each is reset alone."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from halfdome.host.driver.errors import CardError
from halfdome.host.driver.rings import RING_ENTRIES

TWO = PRESETS["tiny"].replace(cores=2)
NEVER = {"wait_counter": TWO.counters - 1, "wait_value": 1}


@pytest.fixture(scope="module")
def runtime():
    with halfdome.open(cards=1, config=TWO, engine="native") as platform:
        yield platform


@pytest.fixture
def card(runtime):
    """The card, all that was submitted to it done, its counters at 0."""
    card = runtime.cards[0]
    yield card
    device = card.device
    for core in range(TWO.cores):
        device.reset_core(core)
    device.set_counter(NEVER["wait_counter"], 0)


def held(core, count):
    """Commands of every engine of a core that wait for what never comes."""
    opcodes = [opcode for opcode in Opcode if opcode.is_fence]
    return [pack(opcodes[i % len(opcodes)], core=core, **NEVER) for i in range(count)]


def copies(core, count):
    """Copies of 64 bytes in a core's scratchpad, each of what the one before wrote."""
    base = TWO.scratchpad_address(core)
    move = {"rows": 1, "row_bytes": 64, "source_stride": 64, "destination_stride": 64}
    return [
        pack(Opcode.COPY, core=core, source=base + 64 * i, destination=base + 64 * (i + 1), **move)
        for i in range(count)
    ]


def answers(runtime, seed):
    """Whether a layer computed on core 0 is right."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (5, 9)).astype(np.uint8)
    weight = rng.integers(-128, 128, (6, 9)).astype(np.int8)
    y = runtime.cards[0].linear(x, weight, 0.01, y_zero_point=9)
    return np.array_equal(y, runtime.reference.linear(x, weight, 0.01, y_zero_point=9))


def test_the_card_answers_while_a_core_is_full_of_what_waits_for_ever(runtime, card):
    device = card.device
    tickets = device.submit(held(1, RING_ENTRIES - 1))
    assert all(answers(runtime, seed) for seed in range(5))
    assert not device.rings.done(np.array(tickets[:1]))
    device.set_counter(NEVER["wait_counter"], 1)
    assert device.check(tickets).status.tolist() == [Status.OK] * len(tickets)


def test_two_cores_run_what_they_are_told_at_once(card):
    device, rng = card.device, np.random.default_rng(1)
    values = [rng.integers(0, 256, 64).astype(np.uint8) for _ in range(TWO.cores)]
    places = [device.bar2 + TWO.scratchpad_address(core) for core in range(TWO.cores)]
    for place, each in zip(places, values, strict=True):
        device.bus.write(place, each.tobytes())
    mixed = [each for pair in zip(copies(0, 40), copies(1, 40), strict=True) for each in pair]
    completions = device.check(device.submit(mixed))
    for place, each in zip(places, values, strict=True):
        assert device.bus.read(place + 40 * 64, 64) == each.tobytes()
    starts, ends = completions.start_cycle.reshape(-1, 2), completions.end_cycle.reshape(-1, 2)
    assert starts[0, 1] < ends[20, 0], "side by side"
    assert starts[20, 0] < ends[-1, 1]
    counters = device.counters()
    assert counters["core0_load_busy_cycles"] > 0
    assert counters["core1_load_busy_cycles"] > 0


def test_a_core_is_reset_while_the_other_works(runtime, card):
    device = card.device
    lost = device.submit(held(1, 100))
    running = device.submit(copies(0, 100))
    device.reset_core(1)
    assert device.check(running).status.tolist() == [Status.OK] * 100
    with pytest.raises(CardError, match="its commands were lost in a reset"):
        device.wait(lost)
    assert device.check(device.submit(copies(1, 20))).status.tolist() == [Status.OK] * 20
    assert answers(runtime, 7)


def test_a_command_for_another_core_than_the_ring_s_is_refused_beside_good_ones(card):
    device = card.device
    raw = [*copies(0, 2), pack(Opcode.FENCE_LOAD, core=7), *copies(1, 2)]
    statuses = device.wait(device.submit(raw)).status.tolist()
    assert statuses == [Status.OK, Status.OK, Status.BAD_CORE, Status.OK, Status.OK]


@pytest.mark.slow
@pytest.mark.long
def test_amaranths_simulator_sees_the_same():
    with halfdome.open(cards=1, config=TWO, engine="pysim") as runtime:
        device = runtime.cards[0].device
        tickets = device.submit(held(1, 30))
        assert device.check(device.submit(copies(0, 5))).status.tolist() == [Status.OK] * 5
        device.reset_core(1)
        with pytest.raises(CardError, match="its commands were lost in a reset"):
            device.wait(tickets)
        assert device.check(device.submit(copies(1, 3))).status.tolist() == [Status.OK] * 3
