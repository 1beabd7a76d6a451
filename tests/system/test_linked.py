"""A card whose cores are compiled by themselves is the card compiled whole, pin by pin."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.hdl.core import Core
from halfdome.hdl.uncore import Uncore
from halfdome.host.platform import Runtime
from halfdome.sim import platform
from halfdome.sim.golden.operators import Reference
from halfdome.sim.platform import Platform
from halfdome.sim.rtl import linked, native
from halfdome.sim.rtl.cards import HARDWARE
from halfdome.sim.waves import Waves
from tests.sim.test_waves import Vcd
from tests.system.programs import OTHER, assert_same_ports, random_tasks, run

# Each card is compiled in parts and whole.
pytestmark = [pytest.mark.slow, pytest.mark.long]

CARDS = {
    "one core": PRESETS["tiny"],
    "two cores": PRESETS["tiny"].replace(cores=2),
    "row caches": OTHER.replace(cores=2),
}


@pytest.fixture(params=CARDS.values(), ids=CARDS)
def config(request, monkeypatch):
    """A card for which there are an engine `whole` and one of `parts`, whatever its cores."""
    config = request.param
    parts = linked.Parts(partial(Uncore, config), partial(Core, config), config.cores)
    engines = {"parts": partial(linked.models, parts=parts), "whole": native.models}
    for name, make in engines.items():
        monkeypatch.setitem(HARDWARE, name, make)
    monkeypatch.setattr(platform, "ENGINES", (*platform.ENGINES, *engines))
    return config


@pytest.mark.parametrize("skip_idle", [True, False], ids=["skipping", "every cycle"])
@settings(max_examples=8)
@given(seed=st.integers(0, 1 << 30))
def test_every_port_is_the_same_in_every_cycle(config, skip_idle, seed):
    tasks = random_tasks(config, seed, 40)
    how = {"record": True, "skip_idle": skip_idle}
    parts, whole = (run(config, tasks, engine, **how) for engine in ("parts", "whole"))
    assert_same_ports(parts["trace"], whole["trace"])
    assert parts["completions"].tolist() == whole["completions"].tolist()
    assert parts["cycles"] == whole["cycles"]
    assert parts["counters"] == whole["counters"]
    assert parts["scratchpads"] == whole["scratchpads"]
    assert np.array_equal(parts["dram"], whole["dram"])


def test_waves_written_afterwards_show_what_the_card_did(tmp_path):
    waves = Waves(tmp_path / "card.vcd", start=1000, stop=2000)
    with Platform(CARDS["two cores"], cards=1, keep_inputs=True) as platform:
        platform.world.record(0)
        runtime = Runtime(platform, platform.config, "native", Reference(platform.config))
        runtime.cards[0].linear(np.ones((4, 8), np.uint8), np.ones((4, 8), np.int8), 0.5)
        trace = platform.world.trace(0)
        platform.write_waves(waves)
    vcd, cycles = Vcd(waves.path), range(waves.start, waves.stop)
    for name in ("tx__valid", "tx__payload"):
        values = [int.from_bytes(bytes(trace[name][cycle]), "little") for cycle in cycles]
        assert [vcd.at(name, cycle) for cycle in cycles] == values
        assert len(set(values)) > 1, name
