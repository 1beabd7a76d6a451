"""The timing card says of every call what hardware takes for it."""

import pytest

from halfdome.hdl.config import PRESETS
from halfdome.host.bench import timing


@pytest.mark.slow
def test_no_call_is_further_off_than_the_bar():
    result = timing.measure(PRESETS["tiny"], draws=2, seed=3)
    assert result["values_equal"]
    rows = result["commands"] + result["calls"]
    assert {row["of"]: row["worst_error"] for row in rows if row["worst_error"] > timing.BAR} == {}
    assert {"LOAD", "STORE", "TRANSPOSE", "GATHER", "MATMUL", "DEPTHWISE"} <= {
        row["of"] for row in rows
    }
    assert result["worst"][0]["error"] == max(row["error"] for row in result["worst"])
