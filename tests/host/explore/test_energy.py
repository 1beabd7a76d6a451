"""Energy is what was counted times a table, and every constant says where it is from."""

import pytest

from halfdome.host.explore import energy


def test_every_constant_has_a_source_and_a_process():
    table = energy.load()
    for name in energy.Table.model_fields:
        cost = getattr(table, name)
        assert cost.source
        assert cost.node


def test_energy_is_actions_times_their_costs():
    spent = energy.of(energy.load(), {"mac_int8": 1e6, "dram_bit": 8e6})
    assert spent == pytest.approx({"mac_int8": 0.3, "dram_bit": 64.0})


def test_another_table_may_stand_for_it(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(energy.PUBLISHED.read_text().replace("picojoules = 8.0", "picojoules = 4.0"))
    assert energy.of(energy.load(mine), {"dram_bit": 1e6}) == {"dram_bit": 4.0}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("picojoules = 8.0", "picojoules = -8.0", "dram_bit.picojoules"),
        ("[dram_bit]", "[dram_bits]", "dram_bit: Field required"),
        ('node = "LPDDR4"', "", "dram_bit.node: Field required"),
        ("[dram_bit]", "[dram_bit", "cannot be read"),
    ],
)
def test_a_table_that_is_wrong_is_told(tmp_path, old, new, message):
    mine = tmp_path / "mine.toml"
    mine.write_text(energy.PUBLISHED.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        energy.load(mine)
