"""The register map: addresses are unique and inside BAR0 for every configuration."""

import pytest

from halfdome.hdl import registers
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import PRESETS, CardConfig

CONFIGS = PRESETS | {"most": CardConfig(cores=12, counters=128)}


@pytest.mark.parametrize("name", CONFIGS)
def test_addresses_are_unique_aligned_and_inside_bar0(name):
    names = registers.register_names(CONFIGS[name])
    addresses = list(names.values())
    assert len(set(addresses)) == len(addresses)
    assert all(address % 4 == 0 for address in addresses)
    assert all(0 <= address < registers.BAR0_BYTES for address in addresses)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_register_is_missing_and_halves_are_neighbours(name):
    config = CONFIGS[name]
    names = registers.register_names(config)
    activities = config.cores * len(Engine) * len(registers.ACTIVITIES)
    assert len(names) == (
        len(registers.REGISTERS) + config.cores * len(registers.CORE_REGISTERS)
        + config.counters + 2 * activities + 2 * len(registers.TRAFFIC)
    )  # fmt: skip
    for register, address in names.items():
        if register.endswith("_LO"):
            assert names[register.removesuffix("LO") + "HI"] == address + 4


@pytest.mark.parametrize("name", CONFIGS)
def test_arrays_stay_in_their_own_range(name):
    config = CONFIGS[name]
    assert max(register.offset for register in registers.REGISTERS) < registers.CORE_BASE
    assert max(register.offset for register in registers.CORE_REGISTERS) < registers.CORE_STRIDE
    assert registers.CORE_BASE + config.cores * registers.CORE_STRIDE <= registers.COUNTER_BASE
    assert registers.counter_offset(config.counters - 1) < registers.ACTIVITY_BASE
    last = registers.activity_offset(config.cores - 1, list(Engine)[-1], registers.ACTIVITIES[-1])
    assert last + 8 <= registers.TRAFFIC_BASE
    end = registers.traffic_offset(registers.TRAFFIC[-1]) + 8
    assert end <= registers.BAR0_BYTES


def test_offsets_are_found_by_name():
    for register in registers.REGISTERS + registers.CORE_REGISTERS:
        base = registers.CORE_BASE if register in registers.CORE_REGISTERS else 0
        assert registers.offset(register.name) == base + register.offset
        assert register.access in ("ro", "rw")
        assert register.doc
    third = registers.CORE_BASE + 3 * registers.CORE_STRIDE
    assert registers.offset("SQ_BASE_LO", 3) == third
    assert registers.register_names(CONFIGS["most"])["CORE3_SQ_BASE_LO"] == third
    with pytest.raises(KeyError, match="no register 'SQ_TAILS'"):
        registers.offset("SQ_TAILS")


def test_identification_reads_half_in_a_hex_dump():
    assert registers.IDENTIFICATION.to_bytes(4, "little") == b"HALF"
