"""Waveforms of a card in a window of cycles: what the file holds, and that nothing changes."""

import io
import re
from dataclasses import replace

import pytest

import halfdome.sim.platform as platform_module
from halfdome.hdl.config import PRESETS
from halfdome.sim.platform import Platform
from halfdome.sim.waves import Waves, cut
from tests.sim.program import assert_same, run_program
from tests.sim.standin import StandIn
from tests.sim.test_platform import Failing

TINY = PRESETS["tiny"]
UNITS = {"ps": 1, "fs": 1000}


@pytest.fixture(params=["native", "pysim"])
def engine(request):
    return request.param


class Vcd:
    """The names in a VCD file, and the changes of each as (picoseconds, value)."""

    def __init__(self, path):
        head, body = path.read_text().split("$enddefinitions", 1)
        words = head.split()
        unit = re.search(r"timescale\s+1\s*(\ws)", head)[1]
        self.changes, names = {}, {}
        for at, word in enumerate(words):
            if word == "$var":
                self.changes.setdefault(words[at + 4], [])
                names.setdefault(words[at + 3], []).append(words[at + 4])
        self.times = []
        for line in body.splitlines()[1:]:
            if line.startswith("#"):
                self.times.append(int(line[1:]) / UNITS[unit])
            elif line and line[0] in "01b":
                split = 1 if line[0] != "b" else line.index(" ")
                identifier, value = line[split:].strip(), int(line[:split].lstrip("b"), 2)
                for name in names[identifier]:
                    self.changes[name].append((self.times[-1], value))

    def at(self, name, cycle):
        """The value in a cycle."""
        return [value for time, value in self.changes[name] if time <= cycle * 1000][-1]


def test_window_holds_what_the_card_did(engine, tmp_path):
    path = tmp_path / "card.vcd"
    waves = Waves(path, card=1, start=200, stop=300)
    with Platform(TINY, cards=2, card_factory=StandIn, engine=engine, waves=waves) as platform:
        platform.world.record(1)
        platform.bus.read(platform.bars[0].bar2, 32)  # moves card 0 alone
        platform.run(50)
        platform.bus.read(platform.bars[1].bar2, 32)
        platform.run(100)
        trace = platform.world.trace(1)
    vcd = Vcd(path)
    assert min(vcd.times) == 200_000
    assert max(vcd.times) < 300_000
    assert vcd.times == sorted(vcd.times)
    assert {"clk", "rx__valid", "tx__payload"} <= set(vcd.changes)
    for name in ("tx__valid", "rx__ready", "axi__arvalid"):
        for cycle in range(200, 300):
            assert vcd.at(name, cycle) == trace[name][cycle, 0], (name, cycle)
    assert trace["tx__valid"][200:300].any()
    assert any(value for _, value in vcd.changes["rx__valid"])


@pytest.mark.slow
def test_both_engines_write_the_same_values(tmp_path):
    files = []
    for name in ("native", "pysim"):
        files.append(tmp_path / f"{name}.vcd")
        waves = Waves(files[-1], start=20, stop=120)
        with Platform(TINY, cards=1, card_factory=StandIn, engine=name, waves=waves) as platform:
            platform.bus.read(platform.bars[0].bar2, 64)
            platform.run(120)
    a, b = map(Vcd, files)
    for name in ("rx__valid", "rx__payload", "tx__valid", "tx__payload"):
        for cycle in range(20, 120):
            assert a.at(name, cycle) == b.at(name, cycle), (name, cycle)


@pytest.mark.parametrize("start", [0, 300])
def test_waves_change_nothing(start, tmp_path, engine):
    waves = Waves(tmp_path / "card.vcd", card=1, start=start, stop=start + 200)
    steps = {"native": 8, "pysim": 2}[engine]
    plain = run_program(TINY, 3, cards=2, engine=engine, steps=steps)
    assert_same(plain, run_program(TINY, 3, cards=2, engine=engine, steps=steps, waves=waves))
    assert waves.path.exists()


def test_run_that_ends_within_the_window_leaves_a_whole_file(engine, tmp_path):
    waves = Waves(tmp_path / "card.vcd", start=10, stop=1_000_000)
    with Platform(TINY, cards=1, card_factory=StandIn, engine=engine, waves=waves) as platform:
        platform.run(100)
    vcd = Vcd(waves.path)
    assert min(vcd.times) == 10_000
    assert max(vcd.times) >= 99_000


def test_run_that_ends_before_the_window_leaves_no_file(engine, tmp_path):
    waves = Waves(tmp_path / "card.vcd", start=10_000, stop=10_001)
    waves.path.write_text("of an earlier run")
    with Platform(TINY, cards=1, card_factory=StandIn, engine=engine, waves=waves) as platform:
        platform.run(10)
    assert not list(tmp_path.iterdir())


def test_waves_written_afterwards_are_those_of_the_run(engine, tmp_path):
    """The card is repeated alone, driven as it was."""
    first, again = (Waves(tmp_path / f"{n}.vcd", card=1, start=30, stop=130) for n in "ab")
    with Platform(
        TINY, cards=2, card_factory=StandIn, engine=engine, waves=first, keep_inputs=True
    ) as platform:
        platform.bus.read(platform.bars[1].bar2 + 64, 32)
        platform.run(130)
        platform.write_waves(again)
        assert Vcd(again.path).changes == Vcd(first.path).changes
        platform.write_waves(replace(again, stop=10**9))  # up to where the card is
        assert max(Vcd(again.path).times) >= (platform.cycles - 1) * 1000
        with pytest.raises(ValueError, match=r"start=1000000: card 1 has simulated \d+ cycles"):
            platform.write_waves(replace(again, start=10**6, stop=10**7))


def test_waves_of_a_card_that_broke_an_assertion_reach_up_to_it(tmp_path):
    waves = Waves(tmp_path / "card.vcd", stop=10**6)
    with Platform(
        TINY, cards=1, card_factory=Failing, engine="pysim", keep_inputs=True
    ) as platform:
        platform.run(20)
        with pytest.raises(AssertionError, match="received something"):
            platform.bus.read(platform.bars[0].bar0, 4)
        platform.write_waves(waves)
    changes = Vcd(waves.path).changes["rx__valid"]
    assert [value for _, value in changes] == [0, 1]
    assert changes[-1][0] >= 20_000


def test_keeping_inputs_changes_nothing():
    plain = run_program(TINY, 4, cards=2, steps=8)
    assert_same(plain, run_program(TINY, 4, cards=2, steps=8, keep_inputs=True))


@pytest.mark.parametrize("most", [None, 400])
def test_waves_of_inputs_that_were_not_kept_are_refused(tmp_path, monkeypatch, most):
    """Neither a platform that keeps none nor one that has run for longer than what it keeps."""
    if most is not None:
        monkeypatch.setattr(platform_module, "MOST_INPUT_BYTES", most)
    with Platform(TINY, cards=1, card_factory=StandIn, keep_inputs=most is not None) as platform:
        platform.bus.write(platform.bars[0].bar2, bytes(256))
        platform.run(200)
        with pytest.raises(RuntimeError, match="open the platform with keep_inputs=True"):
            platform.write_waves(Waves(tmp_path / "card.vcd", stop=100))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"stop": 0}, r"stop=0: must be greater than start=0"),
        ({"start": 9, "stop": 9}, r"stop=9: must be greater than start=9"),
        ({"start": -1, "stop": 9}, r"start=-1: must be 0 or more"),
    ],
)
def test_window_without_cycles_is_refused(window, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Waves(tmp_path / "card.vcd", **window)


def test_path_that_cannot_be_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder, must be a file"):
        Waves(tmp_path, stop=1)
    with pytest.raises(ValueError, match="does not exist"):
        Waves(tmp_path / "none" / "card.vcd", stop=1)


@pytest.mark.parametrize("card", [-1, 2])
def test_card_that_does_not_exist_is_refused(card, tmp_path):
    waves = Waves(tmp_path / "card.vcd", card=card, stop=1)
    with pytest.raises(ValueError, match=f"card={card}: must be 0 to 1, the platform has 2 cards"):
        Platform(TINY, cards=2, card_factory=StandIn, waves=waves)
    assert not list(tmp_path.iterdir())


def test_cut_keeps_the_last_value_of_every_signal():
    whole = io.StringIO(
        "$var wire 1 ! a $end\n$enddefinitions $end\n"
        '#0\n$dumpvars\n0!\nb0 "\nsIDLE #\n$end\n#5\n1!\nb101 "\n#10\n0!\n#15\nsBUSY #\n'
    )
    window = io.StringIO()
    cut(whole, window, 8)
    assert window.getvalue() == (
        "$var wire 1 ! a $end\n$enddefinitions $end\n"
        '#8\n$dumpvars\n1!\nb101 "\nsIDLE #\n$end\n#10\n0!\n#15\nsBUSY #\n'
    )
