"""Descriptor and completion layouts: they fit, they do not overlap, they round-trip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Engine, Flag, IndexMode, Opcode, index_mode, mode_flags
from halfdome.hdl.descriptors import (
    BODIES,
    COMPLETION,
    COMPLETION_BYTES,
    DESCRIPTOR_BYTES,
    EXTENSION,
    FLAGS,
    HEADER,
    NO_COUNTER,
    field_at,
    fields,
    layout,
    offset,
    pack,
    unpack,
)

TABLES = [(opcode.name, fields(opcode), DESCRIPTOR_BYTES) for opcode in Opcode]
TABLES.append(("extension", EXTENSION, DESCRIPTOR_BYTES))
TABLES.append(("completion", COMPLETION, COMPLETION_BYTES))


@pytest.mark.parametrize(("name", "table", "size"), TABLES, ids=[t[0] for t in TABLES])
def test_fields_are_whole_bytes_and_fit(name, table, size):
    assert all(field.bits > 0 and field.bits % 8 == 0 for field in table)
    assert sum(field.bits for field in table) <= 8 * size
    assert len({field.name for field in table}) == len(table)
    assert all(field.doc for field in table)


@pytest.mark.parametrize(("name", "table", "size"), TABLES, ids=[t[0] for t in TABLES])
def test_the_hardware_layout_puts_fields_where_the_table_says(name, table, size):
    hardware = layout(table, size)
    assert hardware.size == 8 * size
    position = 0
    for field in table:
        assert hardware[field.name].offset == position
        assert hardware[field.name].width == field.bits
        position += field.bits


@pytest.mark.parametrize("opcode", Opcode)
def test_field_at_is_the_inverse_of_offset(opcode):
    offsets = {field.name: offset(opcode, field.name) for field in fields(opcode)}
    assert len(set(offsets.values())) == len(offsets)
    assert offsets["opcode"] == 0
    for name, byte in offsets.items():
        assert field_at(opcode, byte) == name


def test_an_unknown_field_has_no_offset():
    with pytest.raises(KeyError, match="FENCE_LOAD has no field 'rows'"):
        offset(Opcode.FENCE_LOAD, "rows")


def test_every_command_has_a_body_and_every_engine_a_fence():
    assert set(BODIES) == {opcode for opcode in Opcode if not opcode.is_fence}
    assert {opcode.engine for opcode in Opcode if opcode.is_fence} == set(Engine)
    assert {opcode.engine for opcode in BODIES} == set(Engine)
    assert set(FLAGS) <= set(BODIES)
    gather = "WEIGHTED MEAN WIDE OFFSETS PRUNED WARN IGNORE"
    assert FLAGS[Opcode.GATHER] == sum(Flag[name] for name in gather.split())


@pytest.mark.parametrize("mode", IndexMode)
def test_index_modes_are_two_flags(mode):
    assert index_mode(mode_flags(mode) | Flag.WEIGHTED | Flag.PRUNED) is mode


def test_both_mode_flags_are_no_mode():
    with pytest.raises(ValueError, match="3"):
        index_mode(Flag.WARN | Flag.IGNORE)


@pytest.mark.parametrize("opcode", Opcode)
@given(data=st.data())
def test_pack_writes_each_field_at_its_offset_and_nothing_else(opcode, data):
    values = {
        field.name: data.draw(st.integers(0, (1 << field.bits) - 1), label=field.name)
        for field in (*fields(opcode), *EXTENSION)
        if field.name != "opcode"
    }
    expected = bytearray(2 * DESCRIPTOR_BYTES)
    for field in (*fields(opcode), *EXTENSION):
        start, size = offset(opcode, field.name), field.bits // 8
        value = (values | {"opcode": opcode.value})[field.name]
        expected[start : start + size] = value.to_bytes(size, "little")
    packed = pack(opcode, **values)
    assert packed == bytes(expected)
    assert unpack(fields(opcode), packed) | unpack(
        EXTENSION, packed[DESCRIPTOR_BYTES:]
    ) == values | {"opcode": opcode.value}


def test_counters_default_to_none():
    header = unpack(HEADER, pack(Opcode.FENCE_STORE))
    assert header["wait_counter"] == header["signal_counter"] == NO_COUNTER
    assert header["id"] == header["wait_value"] == header["extension"] == 0


def test_a_second_wait_is_in_a_slot_of_its_own():
    packed = pack(Opcode.STORE, rows=3, second_wait_counter=5, second_wait_value=1 << 31)
    assert len(packed) == 2 * DESCRIPTOR_BYTES
    assert unpack(HEADER, packed)["extension"] == 1
    assert packed[:DESCRIPTOR_BYTES] == pack(Opcode.STORE, rows=3, extension=1)[:DESCRIPTOR_BYTES]
    extension = unpack(EXTENSION, packed[DESCRIPTOR_BYTES:])
    assert extension == {"second_wait_counter": 5, "reserved": 0, "second_wait_value": 1 << 31}
    assert offset(Opcode.STORE, "second_wait_value") == DESCRIPTOR_BYTES + 4
    assert field_at(Opcode.STORE, DESCRIPTOR_BYTES) == "second_wait_counter"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"row": 1}, "row: STORE has no such field"),
        ({"rows": 1 << 32}, "rows=4294967296: must fit 32 unsigned bits"),
        ({"rows": -1}, "rows=-1: must fit 32 unsigned bits"),
        ({"id": 65536}, "id=65536: must fit 16 unsigned bits"),
    ],
)
def test_pack_names_what_does_not_fit(values, message):
    with pytest.raises(ValueError) as error:
        pack(Opcode.STORE, **values)
    assert str(error.value) == message
