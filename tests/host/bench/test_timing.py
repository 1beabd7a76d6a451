"""The timing card says of every call what hardware takes for it."""

import numpy as np
import pytest

from halfdome.hdl.config import PRESETS
from halfdome.host import platform
from halfdome.host.bench import timing


@pytest.mark.slow
def test_no_call_is_further_off_than_the_bar():
    result = timing.measure([PRESETS["tiny"]], draws=2, seed=3)
    assert result["values_equal"]
    rows = result["commands"] + result["calls"]
    assert {row["of"]: row["worst_error"] for row in rows if row["worst_error"] > timing.BAR} == {}
    assert {"LOAD", "STORE", "TRANSPOSE", "GATHER", "MATMUL", "DEPTHWISE"} <= {
        row["of"] for row in rows
    }
    assert result["worst_stall_error"] == 0
    assert result["worst"][0]["error"] == max(row["error"] for row in result["worst"])


def test_drawn_cards_are_many():
    rng = np.random.default_rng(1)
    drawn = [timing.draw(rng) for _ in range(40)]
    assert len({card.hash for card in drawn}) == 40
    assert {card.cores for card in drawn} == {1, 2}
    assert max(card.array_rows for card in drawn) == 32
    assert any(card.gather_cache_bytes for card in drawn)


class Late:
    """The timing card, whose clock runs fast in the second call."""

    def __init__(self, runtime):
        self.cards, self._runtime, self._asked = runtime.cards, runtime, 0

    @property
    def cycles(self):
        self._asked += 1
        return self._runtime.cycles + 10 * (self._asked == 4)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runtime.close()


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_calls_that_differ_are_told_with_their_commands(late, monkeypatch):
    """Both engines are the timing card here, one of them out of step."""

    def opened(cards, config, engine):
        runtime = platform.open(cards=cards, config=config, engine="timing")
        return Late(runtime) if late and engine == "timing" else runtime

    monkeypatch.setattr(timing, "open", opened)
    chosen = {name: timing.CALLS[name] for name in ("affine", "embedding_bag")}
    monkeypatch.setattr(timing, "CALLS", chosen)
    result = timing.measure([timing.draw(np.random.default_rng(2)) for _ in range(2)], 1, 5)
    assert [row["of"] for row in result["calls"]] == ["affine", "embedding_bag"]
    assert len(result["worst"]) == 4
    first = result["worst"][0]
    assert (first["error"] > 0) == late
    assert result["values_equal"]
    assert {each["command"] for each in first["trace"]} >= {"LOAD", "STORE"}
    assert all(each["native"] == each["timing"] for each in first["trace"])
    if late:
        assert (first["call"], first["timing_cycles"] - first["native_cycles"]) == (
            "embedding_bag", 10,
        )  # fmt: skip
