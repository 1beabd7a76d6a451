"""The matmul bench: cycles of real commands against bounds that no card can beat."""

import pytest

from halfdome.hdl.config import CardConfig, preset
from halfdome.host.bench import matmul

TINY = preset("tiny")


@pytest.fixture(scope="module")
def products():
    return matmul.measure(TINY, [(16, 16, 16), (40, 32, 24), (3, 5, 2), (128, 100, 64)])


def test_no_product_beats_the_array_or_the_memory(products):
    assert [row["m"] for row in products["rows"]] == [
        m for m in (16, 40, 3, 128) for _ in matmul.PLACES
    ]
    for row in products["rows"]:
        assert row["bound_cycles"] >= row["m"] * row["k"] * row["n"] / 16
        assert 0 < row["mac_utilisation"] <= row["of_bound"] == row["bound_cycles"] / row["cycles"]
        assert row["of_bound"] < 1


def test_outputs_are_golden(products):
    assert not any(row["mismatching_values"] for row in products["rows"])


def test_larger_products_use_the_array_better(products):
    places = len(matmul.PLACES)
    large, small = products["rows"][places], products["rows"][2 * places]
    assert large["mac_utilisation"] > small["mac_utilisation"]


def test_where_the_operands_were_is_told(products):
    where = [row["in_dram"] for row in products["rows"]]
    assert where[:9] == ["", "w", "all"] * 3
    # The output claims half of the scratchpad, the input would need all of it.
    assert where[9:] == ["x", "x w", "all"]


def test_results_carry_hash_seed_and_version(products):
    assert products["config_hash"] == TINY.hash
    assert {"seed", "halfdome_version", "engine"} <= set(products)
    assert "dlrm" not in products


def test_grid_stays_within_its_bounds():
    result = matmul.grid(TINY, (1, 7, 17))
    assert len(result["rows"]) == 54
    assert result["outside"] == []


def test_bounds_of_a_product_by_hand():
    config = CardConfig()
    # Two tiles of 16 x 16: 16 cycles to load, 100 rows, 16 + 16 - 2 to fill and drain.
    assert matmul.closed_form(config, 100, 17, 16) == 2 * (16 + 100 + 30)
    assert matmul.dram_bytes_per_cycle(config) == 32
    assert matmul.bound_cycles(config, 100, 17, 16, dram_bytes=0) == 2 * 100
    assert matmul.bound_cycles(config, 1, 17, 16, dram_bytes=0) == 2 * 8  # to load a tile
    assert matmul.bound_cycles(config, 129, 17, 16, dram_bytes=0) == 2 * (128 + 8)
    assert matmul.bound_cycles(config, 1, 17, 16, dram_bytes=3200) == 100
