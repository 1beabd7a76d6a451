"""The driver against a card of plain Python: rings, phases, ids, and what it refuses."""

import pytest

from hdl import registers
from hdl.commands import Opcode, Status, fields, offset, pack, unpack
from hdl.config import PRESETS
from host.driver.device import RING_ENTRIES, Device
from host.driver.errors import CardError, CommandError
from tests.host.fake_card import FakeBus

TINY = PRESETS["tiny"]
SIGNAL = pack(Opcode.SIGNAL, address=64, value=1)


def device(bus):
    return Device(bus, TINY, index=2, bar0=0, bar2=1 << 32, message=(0xFEE0_0000, 2))


def test_a_card_of_another_configuration_is_refused():
    bus = FakeBus(TINY.replace(lanes=2))
    with pytest.raises(CardError, match=f"card 2: built from .*, expected {TINY.hash}"):
        device(bus)


def test_something_that_is_no_card_is_refused():
    bus = FakeBus(TINY)
    bus.values[registers.offset("ID")] = 0xFFFF_FFFF
    with pytest.raises(CardError, match="ID=0xffffffff is not a Halfdome card"):
        device(bus)


def test_many_descriptors_share_one_doorbell():
    bus = FakeBus(TINY)
    card = device(bus)
    identifiers = card.submit([SIGNAL] * 10)
    assert bus.doorbells == [10]
    assert [c.id for c in card.check(identifiers)] == identifiers


def test_rings_wrap_and_the_phase_tells_old_entries_from_new():
    bus = FakeBus(TINY)
    card = device(bus)
    total = 0
    for count in (1, 700, 1023, 5, 1500, 3):
        identifiers = card.submit([SIGNAL] * count)
        assert len(set(identifiers)) == count
        assert len(card.check(identifiers)) == count
        total += count
    assert len(bus.executed) == total > 3 * RING_ENTRIES


def test_waiting_for_a_later_command_leaves_the_earlier_one_waitable():
    card = device(FakeBus(TINY))
    first, second = card.submit([SIGNAL, SIGNAL])
    assert card.wait([second])[0].id == second
    assert card.wait([first])[0].id == first


@pytest.mark.parametrize(
    ("opcode", "status", "detail", "words"),
    [
        (
            Opcode.GATHER,
            Status.BAD_INDEX,
            17,
            "GATHER failed with BAD_INDEX: .*position 17",
        ),
        (Opcode.GATHER, Status.BAD_LENGTH, 3, "bag 3 has a negative length"),
        (
            Opcode.MATMUL,
            Status.BAD_ALIGNMENT,
            offset(Opcode.MATMUL, "y"),
            "BAD_ALIGNMENT: y=0x7: not a multiple",
        ),
    ],
)
def test_a_failed_command_is_explained_in_words(opcode, status, detail, words):
    bus = FakeBus(TINY)
    card = device(bus)
    bus.status = lambda raw: (status, detail)
    values = {"y": 7} if opcode is Opcode.MATMUL else {}
    with pytest.raises(CommandError, match=words) as caught:
        card.check(card.submit([pack(opcode, **values)]))
    assert caught.value.status is status
    bus.status = lambda raw: (Status.OK, 0)
    assert card.check(card.submit([SIGNAL]))[0].status is Status.OK


def test_an_unknown_opcode_is_named():
    bus = FakeBus(TINY)
    bus.status = lambda raw: (Status.BAD_OPCODE, 0x77)
    card = device(bus)
    with pytest.raises(CommandError, match="opcode 0x77 is unknown; known are 0x01 LOAD"):
        card.check(card.submit([bytes([0x77]) + SIGNAL[1:]]))


def test_a_silent_card_is_a_timeout_that_names_the_oldest_command():
    bus = FakeBus(TINY)
    card = device(bus)
    bus.silent = True
    with pytest.raises(TimeoutError, match=r"card 2: nothing completed .* opcode 0x12, id 0"):
        card.check(card.submit([SIGNAL]))


def test_a_value_that_does_not_fit_its_field_is_named():
    with pytest.raises(ValueError, match=r"value=4294967296: must fit 32 unsigned bits"):
        pack(Opcode.SIGNAL, address=0, value=1 << 32)
    with pytest.raises(ValueError, match="rows: SIGNAL has no such field"):
        pack(Opcode.SIGNAL, rows=1)


def test_unpacking_gives_back_what_was_packed():
    values = unpack(fields(Opcode.SIGNAL), pack(Opcode.SIGNAL, address=0x1234_5678_9ABC, id=5))
    assert (values["address"], values["id"]) == (0x1234_5678_9ABC, 5)


def test_a_reset_forgets_what_was_submitted_and_starts_anew():
    bus = FakeBus(TINY)
    card = device(bus)
    done = card.submit([SIGNAL])
    card.wait(done)
    lost = card.submit([SIGNAL] * 3, ["a", "b", "c"])
    control, write = [], bus.write

    def watched(address, data):
        if address == registers.offset("CONTROL"):
            control.append(data[0])
            bus.restart()
        write(address, data)

    bus.write = watched
    assert [each.label for each in card.reset()] == ["a", "b", "c"]
    assert control == [2, 1]
    assert card.room == RING_ENTRIES - 1
    assert [c.status for c in card.check(card.submit([SIGNAL] * 2))] == [Status.OK] * 2
    with pytest.raises(KeyError):
        card.done(lost[0])


def test_a_reset_that_does_not_end_and_a_fetch_that_failed_are_told():
    bus = FakeBus(TINY)
    card = device(bus)
    card.submit([SIGNAL])
    bus.silent = True
    bus.values[registers.offset("STATUS")] = 4
    with pytest.raises(TimeoutError, match="card 2: a reset is not over after 1000000 cycles"):
        card.reset()
    bus.values[registers.offset("STATUS")] = 2
    identifiers = card.submit([SIGNAL])
    with pytest.raises(CardError, match="card 2: a descriptor could not be fetched"):
        card.wait(identifiers)
