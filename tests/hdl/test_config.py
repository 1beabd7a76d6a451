"""A configuration that breaks a rule is refused in words; the others are values."""

import dataclasses
import json
import re

import pytest
from amaranth.hdl import Fragment

from halfdome.hdl.card import Card
from halfdome.hdl.config import ADDRESS_BITS, PRESETS, CardConfig, ConfigError, preset

BOUNDS = {
    "cores": (1, 12), "array_rows": (2, 64), "array_columns": (2, 64),
    "accumulator_rows": (4, 65536), "activation_rows": (2, 4096), "lanes": (1, 64),
    "max_dim": (1, 1024), "gather_outstanding": (2, 256), "gather_float_stages": (1, 2),
    "gather_cache_ways": (1, 8),
    "scratchpad_bytes": (4096, 1 << 26),
    "scratchpad_banks": (1, 32), "bus_bytes": (16, 128), "byte_word_cycles": (1, 16),
    "float_word_cycles": (1, 4), "dram_channels": (1, 4), "clock_mhz": (1, 2000),
    "pcie_generation": (1, 5), "pcie_lanes": (1, 16), "max_payload_bytes": (128, 4096),
    "max_read_request_bytes": (128, 4096), "dma_tags": (2, 256), "queue_depth": (2, 64),
    "counters": (1, 128),
}  # fmt: skip

POWERS_OF_TWO = (
    "accumulator_rows", "activation_rows", "array_columns", "array_rows", "bus_bytes",
    "byte_word_cycles", "dram_channels", "float_word_cycles", "gather_cache_ways", "lanes",
    "max_payload_bytes", "max_read_request_bytes", "pcie_lanes",
    "scratchpad_banks", "scratchpad_bytes",
)  # fmt: skip

WIDE = CardConfig(bus_bytes=128)
"""Wide enough a bus that the array's bounds alone decide."""


def test_every_number_of_a_configuration_has_bounds():
    numbers = {f.name for f in dataclasses.fields(CardConfig)} - {
        "dram_bytes", "dram_mapping", "dram_page_policy", "dram_preset", "gather_cache_bytes",
    }  # fmt: skip
    assert numbers == set(BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_belong_to_the_range_and_their_neighbours_do_not(name):
    low, high = BOUNDS[name]
    for value in (low, high):
        assert getattr(WIDE.replace(**{name: value} | _room_for(name, value)), name) == value
    for value in (low - 1, high + 1, -low):
        with pytest.raises(ConfigError) as error:
            WIDE.replace(**{name: value})
        assert str(error.value) == f"{name}={value}: must be {low} to {high}"


def _room_for(name: str, value: int) -> dict[str, int]:
    """The other fields that a narrow bus, few accumulators or few byte lanes ask for."""
    if name == "bus_bytes":
        return {"array_rows": 16, "array_columns": 16}
    if name == "accumulator_rows":
        return {"activation_rows": min(value, 128)}
    if name == "byte_word_cycles":
        return {"float_word_cycles": -(-value // 4)}
    return {"accumulator_rows": 4096} if name == "activation_rows" else {}


@pytest.mark.parametrize("name", POWERS_OF_TWO)
def test_a_size_that_is_no_power_of_two_is_refused(name):
    value = BOUNDS[name][0] + (BOUNDS[name][0] or 1) // 2 if BOUNDS[name][0] > 2 else 3
    with pytest.raises(ConfigError) as error:
        WIDE.replace(**{name: value})
    assert str(error.value) == f"{name}={value}: must be a power of two"


@pytest.mark.parametrize("name", sorted(set(BOUNDS) - set(POWERS_OF_TWO)))
def test_other_numbers_are_free_within_their_bounds(name):
    value = min(3, BOUNDS[name][1])
    assert getattr(WIDE.replace(**{name: value}), name) == value


@pytest.mark.parametrize(
    "mapping", ["row-bank-column", "row-bank-column-rank", "row-row-bank-column", "", "row-bank"]
)
def test_a_mapping_orders_four_fields(mapping):
    with pytest.raises(ConfigError) as error:
        CardConfig(dram_mapping=mapping)
    assert str(error.value) == (
        f"dram_mapping={mapping!r}: must be row, bank, column and channel in any order, "
        "joined by '-'"
    )


@pytest.mark.parametrize("size", [0, 1 << 16, 1 << 20, 1 << 36])
def test_dram_is_a_power_of_two_or_there_is_none(size):
    assert CardConfig(dram_bytes=size).dram_bytes == size


@pytest.mark.parametrize("size", [-(1 << 16), 1, 1 << 15, 3 << 16, 1 << 37])
def test_other_sizes_of_dram_are_refused(size):
    with pytest.raises(ConfigError) as error:
        CardConfig(dram_bytes=size)
    assert str(error.value) == (
        f"dram_bytes={size}: must be 0 or a power of two from 65536 to 68719476736"
    )


@pytest.mark.parametrize("grade", ["", "DDR9", "lpddr4-3200", "LPDDR4"])
def test_a_speed_grade_of_the_dram_is_one_of_jedecs(grade):
    with pytest.raises(ConfigError) as error:
        CardConfig(dram_preset=grade)
    known = "LPDDR4-533, .*, LPDDR4-3733 or LPDDR4-4266"
    assert re.fullmatch(f"dram_preset={grade!r}: must be {known}", str(error.value))


@pytest.mark.parametrize("policy", ["", "Open", "close", "open-adaptive"])
def test_a_page_policy_is_one_of_three(policy):
    with pytest.raises(ConfigError) as error:
        CardConfig(dram_page_policy=policy)
    assert str(error.value) == f"dram_page_policy={policy!r}: must be open, closed or adaptive"


@pytest.mark.parametrize("name", ["array_rows", "array_columns"])
def test_a_row_of_the_array_must_fit_a_bus_word(name):
    assert getattr(CardConfig(bus_bytes=32, **{name: 32}), name) == 32
    with pytest.raises(ConfigError) as error:
        CardConfig(bus_bytes=32, **{name: 64})
    assert str(error.value) == (
        f"{name}=64: one bus word must hold a row of the array, so at most bus_bytes=32"
    )


def test_each_row_of_activations_needs_an_accumulator():
    assert CardConfig(accumulator_rows=64, activation_rows=64).group_tiles == 1
    with pytest.raises(ConfigError) as error:
        CardConfig(accumulator_rows=64, activation_rows=128)
    assert str(error.value) == (
        "activation_rows=128: each needs an accumulator, so at most accumulator_rows=64"
    )


def test_a_bus_word_of_4_bit_elements_must_feed_every_lane():
    assert CardConfig(bus_bytes=16, lanes=32).lanes == 32
    with pytest.raises(ConfigError) as error:
        CardConfig(bus_bytes=16, lanes=64)
    assert str(error.value) == (
        "lanes=64: one bus word of 4-bit elements must feed every lane, so at most 2*bus_bytes=32"
    )


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("lanes", 16.0, "int"), ("lanes", "16", "int"), ("lanes", None, "int"),
        ("cores", True, "int"), ("dram_preset", 3200, "str"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(name, value, kind):
    with pytest.raises(ConfigError) as error:
        CardConfig(**{name: value})
    message = str(error.value)
    assert message.startswith(f"{name}={value!r}: must be ")
    assert kind in message


def test_an_unknown_field_or_preset_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"array: no such field; known are .*array_rows"):
        CardConfig().replace(array=4)
    with pytest.raises(ConfigError, match="'m3' is unknown; known are tiny, default, quad, m2"):
        preset("m3")


def test_a_configuration_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CardConfig().lanes = 8


def test_equal_configurations_have_equal_hashes():
    config = CardConfig(lanes=8)
    assert config == CardConfig().replace(lanes=8)
    assert config.hash == CardConfig().replace(lanes=8).hash
    assert len(config.hash) == 16
    assert CardConfig(**json.loads(config.as_json())) == config


def test_every_field_changes_the_hash():
    changed = {
        name: low if getattr(WIDE, name) != low else 2 * low for name, (low, _) in BOUNDS.items()
    } | {
        "dram_bytes": 0,
        "dram_preset": "LPDDR4-4266",
        "dram_mapping": "channel-row-bank-column",
        "dram_page_policy": "open",
        "gather_cache_bytes": 4096,
    }
    changed |= {"bus_bytes": 64, "accumulator_rows": 256}
    hashes = {WIDE.replace(**{name: value}).hash for name, value in changed.items()}
    assert len(hashes | {WIDE.hash}) == len(dataclasses.fields(CardConfig)) + 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets_describe_a_card_address_space_without_overlap(name):
    config = preset(name)
    assert preset(name) == CardConfig(**json.loads(config.as_json()))
    assert config.scratchpad_address(0) == config.scratchpad_base >= config.dram_bytes
    end = config.scratchpad_address(config.cores - 1) + config.scratchpad_bytes
    assert end <= config.window_bytes < 2 * end
    assert end < 1 << config.address_bits <= 1 << ADDRESS_BITS
    assert config.weight_tile_bytes % config.bus_bytes == 0
    assert config.weight_tile_bytes >= config.array_rows * config.array_columns
    assert config.burst_words * config.bus_bytes in (64, config.bus_bytes)


def test_derived_sizes_of_the_default_card():
    config = CardConfig()
    assert config.scratchpad_base == 1 << 30
    assert config.window_bytes == 1 << 31
    assert config.burst_words == 2
    assert config.weight_tile_bytes == 256
    assert config.clock_period_ps == 2500
    assert CardConfig(array_rows=2, array_columns=2).weight_tile_bytes == 32
    assert CardConfig(bus_bytes=128).burst_words == 1


def test_quad_is_four_cores_of_default_with_the_memory_for_them():
    default, quad = preset("default"), preset("quad")
    assert quad.cores == 4 * default.cores
    assert quad.bus_bytes == 2 * default.bus_bytes
    assert quad.dram_channels == 2 * default.dram_channels
    assert quad.byte_lanes == default.byte_lanes
    assert quad.diagonal_tiles == default.diagonal_tiles


def test_the_m2_class_card_has_4096_multipliers_a_core():
    config = preset("m2")
    assert config.array_rows * config.array_columns == 4096
    assert config.cores == 12
    assert config.scratchpad_bytes == 4 << 20
    assert config.dram_bytes == 16 << 30


@pytest.mark.parametrize("name", ["tiny", "default", pytest.param("quad", marks=pytest.mark.slow)])
def test_presets_elaborate(name):
    Fragment.get(Card(preset(name)), None)
