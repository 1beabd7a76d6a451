"""Benches: cycles of real commands against bounds that no card can beat."""

import pytest

from hdl.config import preset
from host.bench import operators

TINY = preset("tiny")


@pytest.fixture(scope="module")
def products():
    return operators.matmul(TINY, [(16, 16, 16), (40, 32, 24), (3, 5, 2)], "native")


def test_no_product_beats_the_array(products):
    assert [row["m"] for row in products["rows"]] == [16, 40, 3]
    for row in products["rows"]:
        assert row["bound_cycles"] == row["m"] * row["k"] * row["n"] / 16
        assert 0 < row["mac_utilisation"] == row["bound_cycles"] / row["cycles"] < 1


def test_larger_products_use_the_array_better(products):
    small, large = products["rows"][2], products["rows"][1]
    assert large["mac_utilisation"] > small["mac_utilisation"]


def test_results_carry_hash_seed_and_version(products):
    assert products["config_hash"] == TINY.hash
    assert {"seed", "halfdome_version", "engine"} <= set(products)


def test_operands_too_large_for_the_scratchpad_are_told():
    (row,) = operators.matmul(TINY, [(128, 100, 64)], "native")["rows"]
    assert not row["operands_in_scratchpad"]
