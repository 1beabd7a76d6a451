"""The driver against a card of plain Python: rings, phases, ids, and what it refuses."""

import numpy as np
import pytest

from halfdome.hdl import registers
from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import fields, offset, pack, unpack
from halfdome.host.driver.accelerator import CardState
from halfdome.host.driver.device import RESET_POLL_CYCLES, Device
from halfdome.host.driver.errors import CardError, CardLost, CommandError
from halfdome.host.driver.rings import RING_ENTRIES, TICKETS
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
    tickets = card.submit([SIGNAL] * 10)
    assert bus.doorbells == [10]
    assert card.check(tickets).id.tolist() == list(tickets)


def test_rings_wrap_and_the_phase_tells_old_entries_from_new():
    bus = FakeBus(TINY)
    card = device(bus)
    total = 0
    for count in (1, 700, 1023, 5, 1500, 3):
        tickets = card.submit([SIGNAL] * count)
        assert tickets == range(total, total + count)
        assert card.check(tickets).id.tolist() == [ticket % TICKETS for ticket in tickets]
        total += count
    assert len(bus.executed) == total > 3 * RING_ENTRIES


def test_waiting_for_a_later_command_leaves_the_earlier_one_waitable():
    card = device(FakeBus(TINY))
    first, second = card.submit([SIGNAL, SIGNAL])
    assert card.wait([second]).id == second
    assert card.wait([first]).id == first


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
    assert caught.value.detail == detail
    bus.status = lambda raw: (Status.OK, 0)
    assert card.check(card.submit([SIGNAL])).status == Status.OK


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
    card.wait(card.submit([SIGNAL]))
    lost = card.submit([SIGNAL] * 3)
    control, write = [], bus.write

    def watched(address, data):
        if address == registers.offset("CONTROL"):
            control.append(data[0])
            bus.restart()
        write(address, data)

    bus.write = watched
    card.reset()
    assert control == [2, 1]
    assert card.rings.idle
    assert card.rings.room() == RING_ENTRIES - 1
    assert card.check(card.submit([SIGNAL] * 2)).status.tolist() == [Status.OK] * 2
    with pytest.raises(CardError, match="card 2: its commands were lost in a reset"):
        card.wait(lost[:1])


def test_a_reset_that_does_not_end_and_a_fetch_that_failed_are_told():
    bus = FakeBus(TINY)
    card = device(bus)
    card.submit([SIGNAL])
    bus.silent = True
    bus.values[registers.offset("STATUS")] = 4
    with pytest.raises(TimeoutError, match="card 2: a reset is not over after 1000000 cycles"):
        card.reset()
    bus.values[registers.offset("STATUS")] = 2
    tickets = card.submit([SIGNAL])
    with pytest.raises(CardError, match="card 2: a descriptor could not be fetched"):
        card.wait(tickets)


def test_the_state_of_a_card_is_read_from_its_registers():
    bus = FakeBus(TINY)
    card = device(bus)
    status, control = registers.offset("STATUS"), registers.offset("CONTROL")
    assert card.state() is CardState.RUNNING
    bus.values[status] = registers.STATUS_FETCH_FAILED
    assert card.state() is CardState.STOPPED
    bus.values[status] = registers.STATUS_RESETTING
    assert card.state() is CardState.RESET
    bus.values |= {status: 0, control: 0}
    assert card.state() is CardState.RESET
    bus.read = lambda address, nbytes: b"\xff" * nbytes
    assert card.state() is CardState.SILENT

    def late(address, nbytes):
        raise TimeoutError

    bus.read = late
    assert card.state() is CardState.SILENT


def test_all_ones_are_a_value_or_nobody():
    bus = FakeBus(TINY)
    card = device(bus)
    place = registers.counter_offset(0)
    bus.values[place] = 0xFFFF_FFFF
    assert card.read_at(place, 4) == 0xFFFF_FFFF
    bus.values[registers.offset("ID")] = 0xFFFF_FFFF
    with pytest.raises(CardLost, match="card 2: nothing answers in its place"):
        card.read_at(place, 4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"CONTROL": 0}, "card 2: was reset behind the driver's back"),
        ({"ID": 0xFFFF_FFFF, "STATUS": 0xFFFF_FFFF}, "card 2: does not answer"),
    ],
)
def test_an_alarm_makes_the_driver_look_before_its_patience_ends(values, words):
    bus = FakeBus(TINY)
    card = device(bus)
    tickets = card.submit([SIGNAL])
    waits = []

    def wait(cycles, message=0):
        waits.append(cycles)
        bus.errors = 1
        return False

    bus.wait = wait
    bus.values |= {registers.offset(name): value for name, value in values.items()}
    with pytest.raises(CardError, match=words):
        card.wait(tickets)
    assert waits == [card.patience_cycles // 16]


def test_error_messages_land_where_the_driver_looks():
    bus = FakeBus(TINY)
    card = device(bus)
    low = bus.values[registers.offset("MSIX_ERROR_ADDRESS_LO")]
    flag = next(buffer.array for buffer in bus.mapped if buffer.address == low)
    before = card.alarms
    flag[0] = bus.values[registers.offset("MSIX_ERROR_DATA")]
    assert card.alarms == card.alarms == before + 1
    bus.errors = 3  # of the root port
    assert card.alarms == before + 4


def test_error_counts_go_on_over_resets():
    bus = FakeBus(TINY)
    card = device(bus)
    count = registers.offset("LATE_COMPLETIONS")
    for value, total in ((3, 3), (5, 5), (1, 6)):  # the card has been reset before the last
        bus.values[count] = value
        assert card.error_counts()["LATE_COMPLETIONS"] == total
    bus.values[registers.offset("ID")] = 0xFFFF_FFFF
    bus.values[count] = 0xFFFF_FFFF
    assert card.known_errors()["LATE_COMPLETIONS"] == 6


def test_draining_tells_the_card_again_and_says_whether_it_ended():
    bus = FakeBus(TINY)
    card = device(bus)
    write = bus.write
    bus.write = lambda address, data: None  # the doorbell is lost
    tickets = card.submit([SIGNAL])
    bus.write = write
    assert card.drain()
    assert card.rings.done(np.array(tickets))
    bus.silent = True
    card.submit([SIGNAL])
    assert not card.drain()


@pytest.mark.parametrize(("quarantined", "looks"), [(0, 1), (3, 4), (10**6, 12)])
def test_a_reset_waits_for_late_completions_as_long_as_its_patience(quarantined, looks):
    bus = FakeBus(TINY)
    card = device(bus)
    card.patience_cycles = 12 * RESET_POLL_CYCLES
    card.wait(card.submit([SIGNAL]))
    seen, read, write = [], bus.read, bus.write

    def watched(address, nbytes):
        if address == registers.offset("QUARANTINED_TAGS"):
            seen.append("look")
            return (len(seen) <= quarantined).to_bytes(nbytes, "little")
        return read(address, nbytes)

    def noted(address, data):
        if address == registers.offset("CONTROL") and data[0] == registers.CONTROL_RESET:
            seen.append("reset")
        write(address, data)

    bus.read, bus.write = watched, noted
    card.reset()
    assert seen == ["look"] * looks + ["reset"]


def stray(bus, identifier):
    """Lets the card tell of a command that it was never given."""
    bus.complete(pack(Opcode.SIGNAL, id=identifier))


def test_a_completion_that_nobody_asked_for_is_told_and_the_next_reset_forgets_it():
    bus = FakeBus(TINY)
    card = device(bus)
    tickets = card.submit([SIGNAL])
    stray(bus, 77)
    for _ in range(2):
        with pytest.raises(CardError, match="card 2: completion of id 77, which no command has"):
            card.wait(tickets)
    assert not card.drain()
    bus.restart()
    card.reset()
    assert card.check(card.submit([SIGNAL])).status == Status.OK


def test_a_card_that_was_given_up_is_told_nothing_until_it_is_reset():
    bus = FakeBus(TINY)
    card = device(bus)
    lost = card.submit([SIGNAL])
    bus.write = lambda address, data: bus.values.update({address: int.from_bytes(data, "little")})
    card.give_up()
    assert bus.values[registers.offset("BUS_MASTER")] == 0
    with pytest.raises(CardLost, match="card 2: was given up"):
        card.submit([SIGNAL])
    with pytest.raises(CardError, match="lost in a reset"):
        card.wait(lost)
    del bus.write
    bus.restart()
    card.reset()
    assert card.check(card.submit([SIGNAL])).status == Status.OK


def test_history_has_every_command_with_its_label_and_completion():
    bus = FakeBus(TINY)
    card = device(bus)
    card.check(card.submit([SIGNAL] * 3))
    card.history = []
    card.check(card.submit([SIGNAL] * 2, ["a", "b"]))
    assert [(each.label, each.slot, each.completion.id) for each in card.history] == [
        ("a", 3, 3), ("b", 4, 4),
    ]  # fmt: skip
    assert [each.descriptor[2] for each in card.history] == [3, 4]


def test_a_full_ring_never_cuts_a_command_of_several_slots():
    bus = FakeBus(TINY)
    bus.slots = lambda descriptor: 3
    card = device(bus)
    raw = np.zeros((3 * 700, 64), np.uint8)
    raw[:, 0] = Opcode.SIGNAL
    tickets = card.submit(raw, sizes=np.full(700, 3))
    assert card.check(tickets).id.tolist() == list(range(700))
    assert len(bus.executed) == 700
