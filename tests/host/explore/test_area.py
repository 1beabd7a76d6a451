"""Area is what Yosys counts, of parts that the fit has seen and of parts that it has not."""

import pytest

from halfdome.hdl.config import preset
from halfdome.host.explore import area
from halfdome.host.explore.synthesise import errors, p95

DEFAULT = preset("default")
MOST_PERCENT = {"lut": 10, "ff": 10, "dsp": 1, "bram": 1, "gates": 10, "bits": 0}


@pytest.mark.parametrize(
    ("field", "less"),
    [
        ("array_rows", 8), ("array_columns", 8), ("lanes", 8), ("scratchpad_bytes", 1 << 17),
        ("scratchpad_banks", 2), ("accumulator_rows", 512), ("activation_rows", 16),
        ("gather_cache_bytes", 0), ("gather_outstanding", 16), ("queue_depth", 32),
        ("dma_tags", 16), ("counters", 16), ("max_read_request_bytes", 512), ("bus_bytes", 16),
        ("cores", 1),
    ],
)  # fmt: skip
def test_more_is_larger(field, less):
    base = DEFAULT.replace(
        cores=2, queue_depth=64, counters=64, max_read_request_bytes=4096, gather_cache_bytes=16384,
        activation_rows=256, accumulator_rows=1024,
        array_rows=16, array_columns=16,
    )  # fmt: skip
    assert area.lut4_equivalents(base) > area.lut4_equivalents(base.replace(**{field: less}))


def test_each_core_adds_the_same():
    one, two, three = (area.of_card(DEFAULT.replace(cores=cores)) for cores in (1, 2, 3))
    for resource in area.RESOURCES:
        added = two[resource] - one[resource]
        assert three[resource] - two[resource] == pytest.approx(added, rel=0.02, abs=2), resource


@pytest.mark.parametrize("fitted", [True, False], ids=["seen", "not seen"])
def test_the_fit_is_near_what_yosys_counts(fitted):
    rows = [row for row in area.synthesised() if row.fitted == fitted]
    grow = {name for name, part in area.PARTS.items() if "gather_float_stages" not in part.fields}
    assert {row.part for row in rows} >= {name for name in grow if area.PARTS[name].fields}
    found = p95([errors(row.counted, area.of_part(row.part, row.config)) for row in rows])
    assert found.keys() == set(area.RESOURCES)
    for resource, most in MOST_PERCENT.items():
        assert found[resource] <= most, resource


@pytest.mark.parametrize(
    ("part", "few"),
    [
        ("lane", {"lanes": 1}),
        ("function", {"float_word_cycles": 2}),
        ("quotient", {"float_word_cycles": 4}),
    ],
)
def test_a_lane_that_takes_turns_is_a_quarter_smaller_or_more(part, few):
    many, turns = (area.of_part(part, config) for config in (DEFAULT, DEFAULT.replace(**few)))
    assert turns["lut"] < 0.75 * many["lut"]
    assert turns["gates"] < 0.9 * many["gates"]


def test_bits_of_memory_are_those_that_yosys_finds():
    assert sum(row.counted["bits"] > 0 for row in area.synthesised()) > 80
    for row in area.synthesised():
        assert area.of_part(row.part, row.config)["bits"] == row.counted["bits"], row


def test_ports_of_a_memory_take_block_rams_and_no_bits():
    one, three = (DEFAULT.replace(cores=cores, counters=64) for cores in (1, 3))
    counts = [area.of_part("counters", config) for config in (one, three)]
    assert counts[0]["bits"] == counts[1]["bits"] == 64 * 32
    assert counts[1]["bram"] == 2 * counts[0]["bram"]


def test_parts_that_are_not_seen_are_not_those_of_the_fit():
    seen = {(row.part, row.config) for row in area.synthesised() if row.fitted}
    assert not [row for row in area.synthesised() if not row.fitted
                and (row.part, row.config) in seen]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "depth", "taken"),
    [
        (32, 16, (32, 0)),
        (32, 32, (96, 0)),
        (32, 64, (0, 1)),
        (512, 512, (0, 15)),
        (42, 64, (302, 0)),
        (8, 2048, (0, 1)),
    ],
)
def test_memories_are_lut_rams_or_block_rams_as_yosys_has_them(width, depth, taken):
    assert area.memory(width, depth) == taken


def test_a_resource_is_never_negative():
    for config in (preset("tiny"), DEFAULT, preset("quad"), preset("m2")):
        assert min(area.of_card(config).values()) >= 0
