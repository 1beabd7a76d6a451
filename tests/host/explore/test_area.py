"""The area proxy orders designs: more of anything is larger."""

import pytest

from halfdome.hdl.config import preset
from halfdome.host.explore.area import area_lut4

DEFAULT = preset("default")


@pytest.mark.parametrize(
    "changes",
    [
        {"array_rows": 32},
        {"array_columns": 32},
        {"lanes": 32},
        {"scratchpad_bytes": 1 << 19},
        {"accumulator_rows": 1024},
        {"activation_rows": 256},
        {"gather_cache_bytes": 1 << 14},
        {"cores": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_more_is_larger(changes):
    assert area_lut4(DEFAULT.replace(**changes)) > area_lut4(DEFAULT)


def test_cores_count_in_full():
    assert area_lut4(DEFAULT.replace(cores=3)) == pytest.approx(3 * area_lut4(DEFAULT), abs=3)
