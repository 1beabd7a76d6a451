"""The engine bench: every speed, every ratio, and shares that add up."""

import pytest

from halfdome.hdl.config import preset
from halfdome.host.bench import engines
from halfdome.host.models import movielens
from halfdome.host.platform import open

TINY = preset("tiny")


def no_data():
    raise movielens.DataError("not installed")


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "PYSIM_SHAPE", (1, 4, 4))
        patch.setattr(engines, "NATIVE_SHAPE", (16, 16, 16))
        patch.setattr(engines, "ROUNDS", 1)
        patch.setattr(movielens, "find", no_data)
        return engines.compare(TINY)


@pytest.mark.slow
def test_ratios_are_those_of_the_speeds(result):
    speed = {name: result[f"{name}_cycles_per_second"]
             for name in ("pysim", "bare", "native", "native_six_cards")}  # fmt: skip
    assert result["native_work"] == "matmul"
    assert result["native_over_pysim"] == speed["native"] / speed["pysim"] > 10
    assert result["native_over_bare"] == speed["native"] / speed["bare"]
    assert result["six_over_one"] == speed["native_six_cards"] / speed["native"]
    assert set(result["bars"]) == {"native_over_pysim", "native_over_bare", "six_over_one"}


@pytest.mark.slow
def test_shares_of_the_wall_time_add_up(result):
    shares = {name: value for name, value in result.items() if name.endswith("_share")}
    assert len(shares) == 4
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 <= share < 1 for share in shares.values())
    assert result["evaluation_share"] > 0


@pytest.mark.slow
def test_results_carry_hash_seed_and_version(result):
    assert result["config_hash"] == TINY.hash
    assert {"seed", "halfdome_version", "processors", "load_average_before"} <= set(result)


def test_bare_speed_moves_no_card():
    with open(cards=1, config=TINY) as runtime:
        before = runtime.cycles
        assert runtime.platform.bare_cycles_per_second(1000) > 0
        assert runtime.cycles == before
        with pytest.raises(ValueError, match="cycles=0: must be 1 or more"):
            runtime.platform.bare_cycles_per_second(0)


def test_time_is_measured_only_on_demand():
    with open(cards=1, config=TINY, skip_idle=False) as runtime:
        world = runtime.platform.world
        runtime.platform.run(500)
        assert set(world.time_spent().values()) == {0.0}
        world.measure_time()
        runtime.platform.run(500)
        spent = world.time_spent()
        assert 0 < spent["evaluation_seconds"] < spent["run_seconds"]
        world.measure_time(False)
        runtime.platform.run(500)
        assert world.time_spent() == spent


def test_bare_speed_needs_the_compiled_engine():
    with (
        open(cards=1, config=TINY, engine="timing") as runtime,
        pytest.raises(ValueError, match="engine='timing': only native"),
    ):
        runtime.platform.bare_cycles_per_second(10)
