"""The recorded figures of cocotbext-pcie are those it gives."""

import json

import pytest

from tests.cocotb.link_reference import REFERENCE, measure

pytest.importorskip("cocotbext.pcie", reason="cocotbext-pcie comes with the dev extra")


@pytest.mark.slow
def test_reference_is_what_cocotbext_pcie_measures(tmp_path):
    output = tmp_path / "measured.json"
    measure(tmp_path, output)
    recorded = json.loads(REFERENCE.read_text())
    measured = json.loads(output.read_text())
    assert measured.keys() == recorded.keys()
    for lanes, figures in recorded.items():
        assert measured[lanes] == pytest.approx(figures, rel=1e-6), lanes
