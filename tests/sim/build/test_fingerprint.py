"""What stands for sources changes with every one of them."""

import shutil

import pytest

from halfdome.sim.build import fingerprint as module
from halfdome.sim.build.fingerprint import fingerprint


@pytest.mark.parametrize(
    "file",
    ["timing/dma.hpp", "golden/check.py", "kernel/world.cpp", "fabric/wire.hpp", "dram/dram.hpp"],
)
def test_a_changed_simulation_has_another_fingerprint(file, tmp_path, monkeypatch):
    copy = shutil.copytree(module.SIM, tmp_path / "sim")
    monkeypatch.setattr(module, "SIM", copy)
    before = fingerprint.__wrapped__()
    assert fingerprint.__wrapped__() == before
    with (copy / file).open("a") as changed:
        changed.write("\n")
    assert fingerprint.__wrapped__() != before
