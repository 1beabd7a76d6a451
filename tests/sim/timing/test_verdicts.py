"""A descriptor that was checked before is known, whatever it waits for and signals."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, HEADER, pack
from halfdome.host.serving.deploy import deploy
from halfdome.sim.golden.check import check
from halfdome.sim.timing.card import TimingModel
from tests.host.networks import Network

pytestmark = pytest.mark.slow  # the model of cards is compiled first

TINY = PRESETS["tiny"]


@pytest.fixture
def asked(monkeypatch):
    """How often Python was asked about a descriptor."""
    counted, right = [], TimingModel._check

    def counting(self, *about):
        counted.append(about)
        return right(self, *about)

    monkeypatch.setattr(TimingModel, "_check", counting)
    return counted


def test_a_program_that_runs_again_asks_nothing(asked):
    made = Network(6)
    with halfdome.open(cards=1, config=TINY, engine="timing") as runtime:
        served = deploy(runtime, made.graph)
        served.run([made.request() for _ in range(2 * served.program.slots)])
        known = len(asked)
        served.run([made.request() for _ in range(5)])
        assert len(asked) == known > 0


def test_whatever_a_rule_looks_at_has_a_verdict_of_its_own(asked):
    word = TINY.bus_bytes
    good = pack(
        Opcode.COPY, source=0, destination=1 << 12, rows=2, row_bytes=word, source_stride=word,
        destination_stride=word, signal_counter=1,
    )  # fmt: skip
    names = [each.name for each in HEADER for _ in range(each.bits // 8)]
    names += ["body"] * (DESCRIPTOR_BYTES - len(names))
    with halfdome.open(cards=1, config=TINY, engine="timing") as runtime:
        device = runtime.cards[0].device
        for byte, name in enumerate(names):
            if name in ("opcode", "extension", "wait_counter"):
                continue
            changed = bytearray(good)
            changed[byte] ^= 0xFF
            commands = [good, bytes(changed)] * 2
            known = len(asked)
            ends = device.wait(device.submit(commands))
            expected = [check(each, TINY) for each in commands]
            assert [(Status(e.status), e.detail) for e in ends] == expected, byte
            new = len(asked) - known
            assert new == (name not in ("id", "wait_value", "signal_value")) + (byte == 1), name


def test_an_extension_is_part_of_a_command(asked):
    plain = pack(Opcode.FENCE_LOAD)
    extended = [
        pack(Opcode.FENCE_LOAD, second_wait_counter=counter, second_wait_value=value)
        for counter, value in ((0, 0), (0, 3), (TINY.counters, 0))
    ]
    with halfdome.open(cards=1, config=TINY, engine="timing") as runtime:
        device = runtime.cards[0].device
        device.set_counter(0, 5)
        sizes = np.array([1, 2, 2, 2])
        ends = device.wait(device.submit([plain, *extended], sizes=sizes))
        assert [Status(each) for each in ends.status] == [*[Status.OK] * 3, Status.BAD_COUNTER]
        assert len(asked) == 3
