"""Area is what Yosys counts, of parts that the fit has seen and of parts that it has not."""

import pytest

from halfdome.hdl.config import preset
from halfdome.host.explore import area
from halfdome.host.explore.synthesise import errors, p95

DEFAULT = preset("default")
MOST_PERCENT = 10


@pytest.mark.parametrize(
    "changes",
    [
        {"array_rows": 32}, {"array_columns": 32}, {"lanes": 32}, {"scratchpad_bytes": 1 << 19},
        {"scratchpad_banks": 8}, {"accumulator_rows": 1024}, {"activation_rows": 256},
        {"gather_cache_bytes": 1 << 14}, {"gather_outstanding": 256}, {"queue_depth": 32},
        {"dma_tags": 64}, {"counters": 128}, {"max_read_request_bytes": 4096}, {"bus_bytes": 64},
        {"cores": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_more_is_larger(changes):
    larger = area.lut4_equivalents(DEFAULT.replace(**changes))
    assert larger > area.lut4_equivalents(DEFAULT)


def test_each_core_adds_the_same():
    one, two, three = (area.of_card(DEFAULT.replace(cores=cores)) for cores in (1, 2, 3))
    for resource in area.RESOURCES:
        added = two[resource] - one[resource]
        assert three[resource] - two[resource] == pytest.approx(added, rel=0.02, abs=2), resource


@pytest.mark.parametrize("fitted", [True, False], ids=["seen", "not seen"])
def test_the_fit_is_within_10_percent_of_yosys(fitted):
    rows = [row for row in area.synthesised() if row.fitted == fitted]
    assert {row.part for row in rows} == set(area.PARTS)
    found = p95([errors(row.counted, area.of_part(row.part, row.config)) for row in rows])
    assert found.keys() == set(area.RESOURCES)
    assert max(found.values()) <= MOST_PERCENT


@pytest.mark.parametrize(
    ("width", "depth", "taken"),
    [
        (32, 16, (32, 0)),
        (32, 32, (96, 0)),
        (32, 64, (0, 1)),
        (512, 512, (0, 15)),
        (8, 2048, (0, 1)),
    ],
)
def test_memories_are_lut_rams_or_block_rams_as_yosys_has_them(width, depth, taken):
    assert area.memory(width, depth) == taken


def test_a_resource_is_never_negative():
    for config in (preset("tiny"), DEFAULT, preset("quad"), preset("m2")):
        assert min(area.of_card(config).values()) >= 0
