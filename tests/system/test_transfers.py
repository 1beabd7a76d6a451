"""Each way of moving a batch: the golden bits, and what it says of bytes and packets."""

from dataclasses import replace

import numpy as np
import pytest

import halfdome
from halfdome.host.bench import transfers
from halfdome.host.models.features import Batch
from halfdome.host.runtime.transfers import Transfers
from tests.system.test_dlrm import small_workload


@pytest.fixture(scope="module")
def runtime():
    with halfdome.open(cards=3, config="tiny") as runtime:
        yield runtime


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """So many batches that what the host says at the begin and the end, as it happens, is less of
    each than halves save."""
    return small_workload(tmp_path_factory.mktemp("ratings"), batches=8)


@pytest.fixture(scope="module")
def usual(runtime, work):
    placing, batch, wrong = transfers.run(runtime, work, Transfers())
    assert wrong == 0
    return placing, batch


@pytest.mark.parametrize("name", transfers.SWITCHES)
def test_a_switch_changes_no_bit_and_saves_what_it_says(runtime, work, usual, name):
    default = getattr(Transfers(), name)
    turned = transfers.run(runtime, work, replace(Transfers(), **{name: not default}))
    *costs, wrong = turned
    assert wrong == 0
    phase = 0 if name == "broadcast" else 1
    off, on = (costs, usual) if default else (usual, costs)
    assert on[phase].uplink_bytes < off[phase].uplink_bytes
    if name != "half_inputs":  # a card's rows travel in one packet, long or short
        assert on[phase].uplink_packets < off[phase].uplink_packets


def test_all_off_has_the_golden_bits_too_and_costs_the_most(runtime, work, usual):
    _, batch, wrong = transfers.run(runtime, work, transfers.NONE)
    assert wrong == 0
    assert batch.uplink_bytes > 2 * usual[1].uplink_bytes
    free = [card.dram.free_bytes + card.scratchpad.free_bytes for card in runtime.cards]
    assert len(set(free)) == 1  # all of it was given back


def test_halves_are_what_the_cards_see():
    dense = np.array([[1 + 2**-12, -3.0, 0.1]], np.float32)
    batch = Batch(dense, (), np.zeros(1, np.float32))
    assert transfers.seen(batch, Transfers()) is batch
    seen = transfers.seen(batch, replace(Transfers(), half_inputs=True)).dense
    assert seen.dtype == np.float32
    assert seen[0].tolist() == [1.0, -3.0, float(np.float16(0.1))]
