"""Tables for people: legible in 80 columns, the figures of the report."""

import io

import pytest
from rich.console import Console

from halfdome.hdl.commands import Engine
from halfdome.hdl.registers import ACTIVITIES, TRAFFIC
from halfdome.host.report import tables

CARD = {
    "cycles": 40_000_000,
    **{
        f"{engine.name.lower()}_{activity}_cycles": 10_000_000 + 10 * engine + place
        for engine in Engine
        for place, activity in enumerate(ACTIVITIES)
    },
    **{name: 987_654_321 + place for place, name in enumerate(TRAFFIC)},
}
REPORT = {
    "samples": 1024, "batch_size": 128, "engine": "native", "config_hash": "0123456789abcdef",
    "values": True,
    "auc_fp32": 0.71234, "auc_cards": 0.7123, "auc_difference": -0.00004,
    "mismatching_samples": 3, "latency_cycles": [123_456, 7], "latency_us": [308.64, 0.0175],
    "total_cycles": 123_456_789, "total_us": 308_641.97, "samples_per_second": 3317.8,
    "cards": 6, "per_card": [{"card": index} | CARD for index in range(6)],
}  # fmt: skip


def printed(draw):
    file = io.StringIO()
    draw(Console(file=file, width=80))
    return file.getvalue()


@pytest.fixture(scope="module")
def text():
    return printed(lambda console: tables.print_dlrm(REPORT, console))


def test_every_figure_is_there_in_full_in_80_columns(text):
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for name, value in CARD.items():
        if name != "cycles":
            assert text.count(f"{value:,}") == 6
    for words in ("0.71234", "-0.00004", "3 of 1024", "308.6", "3,318 samples/s"):
        assert words in text


def test_every_engine_of_every_card_has_a_row(text):
    for engine in Engine:
        assert text.count(f"│ {engine.name.lower()} ") == 6


def test_activities_stand_under_their_names(text):
    header = next(line for line in text.splitlines() if "busy" in line and "idle" in line)
    row = next(line for line in text.splitlines() if "│ load " in line)
    for activity in ACTIVITIES:
        column = [cell.strip() for cell in header.strip("┃ ").split("┃")].index(activity)
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells[column] == f"{CARD[f'load_{activity}_cycles']:,}"


def test_rows_become_a_table():
    rows = [{"a_name": 1234, "share": 0.123456, "large": 12345.6, "yes": True, "word": "x"}]
    text = printed(lambda console: console.print(tables.of_rows("Title", rows)))
    for words in ("Title", "a name", "1,234", "0.1235", "12,346", "yes", "x"):
        assert words in text
