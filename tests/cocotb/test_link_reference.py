"""The recorded figures of cocotbext-pcie are those it gives."""

import json

import pytest

from tests.cocotb.link_reference import REFERENCE, measure

pytest.importorskip("cocotbext.pcie", reason="cocotbext-pcie comes with the dev extra")


@pytest.mark.slow
def test_reference_is_what_cocotbext_pcie_measures(tmp_path):
    lanes = 4  # where the uplink is the narrowest, and the most waits
    output = tmp_path / "measured.json"
    measure(tmp_path, output, (lanes,))
    recorded = json.loads(REFERENCE.read_text())
    measured = json.loads(output.read_text())
    assert measured == {str(lanes): pytest.approx(recorded[str(lanes)], rel=1e-6)}
