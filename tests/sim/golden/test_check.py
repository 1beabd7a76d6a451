"""The golden checker on descriptors whose verdict is written out by hand."""

import pytest

from hdl.commands import FLAGS, Opcode, Status, fields, offset, pack
from hdl.config import PRESETS
from sim.golden.check import check
from tests.hdl.command.descriptors import GOOD

TINY = PRESETS["tiny"]


@pytest.mark.parametrize("opcode", Opcode)
def test_good_descriptors_pass(opcode):
    assert check(pack(opcode, **GOOD.get(opcode, {})), TINY) == (Status.OK, 0)


TOP = TINY.dram_bytes
PAD = TINY.scratchpad_address(0)

CASES = [
    (Opcode.LOAD, {"core": 1}, Status.BAD_CORE, "core"),
    (Opcode.LOAD, {"flags": 1}, Status.BAD_FORMAT, "flags"),
    (Opcode.GATHER, {"flags": 2}, Status.BAD_FORMAT, "flags"),
    (Opcode.FENCE_VECTOR, {"wait_counter": 16}, Status.BAD_COUNTER, "wait_counter"),
    (Opcode.FENCE_VECTOR, {"signal_counter": 0xFE}, Status.BAD_COUNTER, "signal_counter"),
    (Opcode.STORE, {"reserved": 1}, Status.BAD_FORMAT, "reserved"),
    (Opcode.LOAD, {"rows": 0}, Status.BAD_DIMENSION, "rows"),
    (Opcode.LOAD, {"row_bytes": 0}, Status.BAD_DIMENSION, "row_bytes"),
    (Opcode.COPY, {"source_stride": 32}, Status.BAD_DIMENSION, "source_stride"),
    (Opcode.COPY, {"source_stride": 0, "rows": 1}, Status.OK, None),
    (Opcode.COPY, {"destination_stride": 72}, Status.BAD_ALIGNMENT, "destination_stride"),
    (Opcode.LOAD, {"source": 8}, Status.BAD_ALIGNMENT, "source"),
    (Opcode.LOAD, {"source": 2**64 - 16}, Status.OK, None),
    (Opcode.LOAD, {"destination": TOP - 160}, Status.BAD_RANGE, "destination"),
    (Opcode.LOAD, {"destination": TOP - 176}, Status.OK, None),
    (Opcode.LOAD, {"destination": 2**40}, Status.BAD_RANGE, "destination"),
    (Opcode.COPY, {"source": PAD + TINY.scratchpad_bytes}, Status.BAD_RANGE, "source"),
    (Opcode.STORE, {"rows": 2**32 - 1, "source_stride": 0xFFFF_FFF0}, Status.BAD_RANGE, "source"),
    (Opcode.STORE, {"destination": 4}, Status.BAD_ALIGNMENT, "destination"),
    (Opcode.SIGNAL, {"address": 2}, Status.BAD_ALIGNMENT, "address"),
    (Opcode.GATHER, {"format": 2}, Status.BAD_FORMAT, "format"),
    (Opcode.GATHER, {"mode": 3}, Status.BAD_FORMAT, "mode"),
    (Opcode.GATHER, {"dim": 257}, Status.BAD_DIMENSION, "dim"),
    (Opcode.GATHER, {"bags": 0}, Status.BAD_DIMENSION, "bags"),
    (Opcode.GATHER, {"row_stride": 39}, Status.BAD_DIMENSION, "row_stride"),
    (Opcode.GATHER, {"row_stride": 20, "format": 1}, Status.OK, None),
    (Opcode.GATHER, {"row_stride": 19, "format": 1}, Status.BAD_DIMENSION, "row_stride"),
    (Opcode.GATHER, {"output_stride": 112}, Status.BAD_DIMENSION, "output_stride"),
    (Opcode.GATHER, {"table": TOP - 400}, Status.OK, None),
    (Opcode.GATHER, {"table": TOP - 399}, Status.BAD_RANGE, "table"),
    (Opcode.GATHER, {"index_count": 0, "indices": 2**39}, Status.OK, None),
    (Opcode.GATHER, {"indices": 2**39}, Status.BAD_RANGE, "indices"),
    (Opcode.GATHER, {"weights": 2**39 + 1}, Status.OK, None),
    (Opcode.GATHER, {"weights": 2**39 + 1, "flags": 1}, Status.BAD_ALIGNMENT, "weights"),
    (Opcode.GATHER, {"weights": 2**39, "flags": 1}, Status.BAD_RANGE, "weights"),
    (Opcode.MATMUL, {"k": 65536}, Status.BAD_DIMENSION, "k"),
    (Opcode.MATMUL, {"x_stride": 16}, Status.BAD_DIMENSION, "x_stride"),
    (Opcode.MATMUL, {"w": PAD + TINY.scratchpad_bytes - 16 * 5 * 3}, Status.OK, None),
    (Opcode.MATMUL, {"w": PAD + TINY.scratchpad_bytes - 16 * 14}, Status.BAD_RANGE, "w"),
    (Opcode.MATMUL, {"params": TOP - 64}, Status.BAD_RANGE, "params"),
    (Opcode.QUANTISE, {"multiplier": 0x7F80_0000}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.QUANTISE, {"multiplier": 0xFFC0_0000}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.QUANTISE, {"columns": 0}, Status.BAD_DIMENSION, "columns"),
    (Opcode.QUANTISE, {"columns": 2**30 + 1}, Status.BAD_DIMENSION, "source_stride"),
    (Opcode.QUANTISE, {"columns": 2**30, "rows": 1}, Status.BAD_RANGE, "source"),
]  # fmt: skip


@pytest.mark.parametrize(("opcode", "change", "status", "field"), CASES)
def test_first_broken_rule_is_named(opcode, change, status, field):
    detail = 0 if field is None else offset(opcode, field)
    descriptor = pack(opcode, **GOOD.get(opcode, {}) | change)
    assert check(descriptor, TINY) == (status, detail)


@pytest.mark.parametrize("opcode", [0x00, 0x03, 0x1E, 0x50, 0xFF])
def test_unknown_opcode_is_reported_before_anything_else(opcode):
    assert check(bytes([opcode]) + b"\xff" * 63, TINY) == (Status.BAD_OPCODE, opcode)


def test_earlier_rules_win():
    descriptor = pack(Opcode.COPY, rows=0, source=1, source_stride=7, reserved=3)
    assert check(descriptor, TINY) == (Status.BAD_FORMAT, offset(Opcode.COPY, "reserved"))
    descriptor = pack(Opcode.COPY, rows=0, source=1, source_stride=7)
    assert check(descriptor, TINY) == (Status.BAD_DIMENSION, offset(Opcode.COPY, "rows"))


def test_every_flag_of_a_command_is_accepted():
    for opcode, flags in FLAGS.items():
        assert check(pack(opcode, **GOOD[opcode] | {"flags": int(flags)}), TINY)[0] == Status.OK


def test_another_cores_scratchpad_is_out_of_range():
    config = TINY.replace(cores=2)
    body = GOOD[Opcode.STORE] | {"source": config.scratchpad_address(1)}
    assert check(pack(Opcode.STORE, **body, core=1), config) == (Status.OK, 0)
    assert check(pack(Opcode.STORE, **body, core=0), config)[0] == Status.BAD_RANGE


def test_good_descriptors_name_every_body_field():
    for opcode, body in GOOD.items():
        assert set(body) == {f.name for f in fields(opcode)[9:]}
