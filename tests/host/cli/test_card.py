"""`halfdome info` and `fpga`: what a configuration means."""

import io
import json
import sys

import pytest

from halfdome.hdl.boards import nitefury
from halfdome.hdl.config import NITEFURY, PRESETS
from halfdome.host.cli import explore
from halfdome.host.explore import measure, search, workers
from tests.host.explore import studies


def test_info_tells_the_peaks(halfdome, tmp_path):
    path = tmp_path / "info.json"
    status, text, _ = halfdome("info", "--config", "m2", "--json", path)
    facts = json.loads(path.read_text())
    assert status == 0
    assert facts["config_hash"] == PRESETS["m2"].hash
    assert facts["peak_int8_tops"] == 12 * 4096 * 2 * 510e6 / 1e12
    assert facts["config_hash"] in text


def test_info_tells_what_the_cache_holds(halfdome, tmp_path, monkeypatch):
    (tmp_path / "cache" / "model-key").mkdir(parents=True)
    (tmp_path / "cache" / "model-key" / "model.so").write_bytes(bytes(1234))
    (tmp_path / "cache" / "model-key.lock").touch()
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HALFDOME_CACHE_BYTES", "5000")
    status, text, _ = halfdome("info", "--json", tmp_path / "info.json")
    facts = json.loads((tmp_path / "info.json").read_text())
    assert status == 0
    assert facts["cache_path"] == str(tmp_path / "cache")
    names = ("entries", "models", "bytes", "limit_bytes")
    assert [facts[f"cache_{name}"] for name in names] == [1, 1, 1234, 5000]
    assert "1,234" in text


def test_info_of_a_preset_with_fields_set(halfdome, tmp_path):
    path = tmp_path / "info.json"
    options = ("--set", "lanes=2", "--set", "array=2x8", "--json", path)
    status, text, _ = halfdome("info", "--config", "tiny", *options)
    facts = json.loads(path.read_text())
    assert status == 0
    assert "tiny lanes=2 array_rows=2 array_columns=8" in " ".join(text.split())
    assert facts["config_hash"] == PRESETS["tiny"].replace(
        lanes=2, array_rows=2, array_columns=8
    ).hash  # fmt: skip


def test_info_of_a_point_of_a_study(halfdome, tmp_path, monkeypatch):
    file, path = tmp_path / "s.toml", tmp_path / "info.json"
    file.write_text('version = 1\nconfig = "tiny"\n[parameters]\nlanes = [2, 4]\n')
    monkeypatch.setattr(measure, "measure", lambda study, values: studies.row(values))
    monkeypatch.setattr(workers, "_processes", studies.threads)
    made = explore.load(file)
    storage = search.storage_in(tmp_path)
    search.run(made, search.Results(made, storage), 1)
    options = ("--study", file, "--storage", storage, "--json", path)
    assert halfdome("info", *options, "--point", 0)[0] == 0
    assert json.loads(path.read_text())["config_hash"] == PRESETS["tiny"].replace(lanes=2).hash
    status, _, error = halfdome("info", *options, "--point", 5)
    assert status == 2
    assert "point 5: is not among those measured: 0, 1" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "lanes=2,4"), "--set lanes=2,4: give one value, once"),
        (("--set", "cards=2"), "--set cards=2: is no field of the card"),
        (("--set", "lames=2"), "lames: no such parameter; nearest are lanes"),
        (("--set", "lanes=3"), "lanes=3: must be a power of two"),
        (("--point", 2), "--study and --point: give both"),
        (
            ("--study", "a.toml", "--point", 2, "--set", "lanes=2"),
            "give --config and --set without",
        ),
    ],
)
def test_a_card_that_is_not_told_well_is_refused(refused, options, message):
    refused(message, "info", *options)


def test_info_of_an_unknown_preset(refused):
    refused("preset 'big' is unknown", "info", "--config", "big")


def test_a_terminal_without_the_signs_of_tables_shows_others(halfdome, monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", written)
    status, _, error = halfdome("info")
    assert (status, error) == (0, "")
    written.seek(0)
    assert "peak" in written.read()


def test_without_standard_output_a_command_still_runs(halfdome, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    status, _, error = halfdome("info", "--json", tmp_path / "info.json")
    assert (status, error) == (0, "")
    assert (tmp_path / "info.json").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(refused, tmp_path):
    (tmp_path / "file").touch()
    refused(
        "file: is no folder to write to", "verilog", "--config", "tiny", "-o", tmp_path / "file"
    )


def test_the_project_of_a_board_is_written_without_running_a_tool(halfdome, tmp_path):
    status, text, _ = halfdome("fpga", "--board", "ulx3s-85f", "--no-run", "-o", tmp_path)
    assert status == 0
    script = (tmp_path / "build_halfdome_pico.sh").read_text()
    assert "--85k" in script
    assert str(tmp_path / "build_halfdome_pico.sh") in text.replace("\n", "")
    constraints = (tmp_path / "halfdome_pico.lpf").read_text()
    assert 'LOCATE COMP "uart_0__rx__io" SITE "M1";' in constraints


def test_the_project_of_a_whole_card_is_written_for_vivado(halfdome, tmp_path, monkeypatch):
    monkeypatch.setattr(nitefury, "card_verilog", lambda config: f"// {config.hash}\n")
    status, text, _ = halfdome("fpga", "--board", "nitefury", "--no-run", "-o", tmp_path)
    assert status == 0
    assert str(tmp_path / "build_halfdome_nitefury.sh") in text.replace("\n", "")
    assert (tmp_path / "halfdome_card.v").read_text() == f"// {NITEFURY.hash}\n"
    assert "create_ip -name pcie_7x" in (tmp_path / "halfdome_nitefury.tcl").read_text()


def test_an_unknown_board_is_refused_with_the_nearest_names(refused):
    refused("board 'nightfury' is unknown; did you mean nitefury?", "fpga", "--board", "nightfury")
    refused("board 'ulx3s' is unknown; did you mean ulx3s-", "fpga", "--board", "ulx3s")
    refused("board 'zzz' is unknown; known are ulx3s-85f, ", "fpga", "--board", "zzz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--board", "ulx3s-85f", "--unit", "array"), "--unit: is placed by itself"),
        (("--board", "ulx3s-85f", "--config", "tiny"), "--config: a board holds a pico; leave"),
        (("--board", "ulx3s-85f", "--set", "lanes=8"), "--set: a board holds a pico; leave"),
        (("--unit", "array", "--point", "3"), "--study and --point: give both"),
        (("--board", "ulx3s-85f", "--no-run", "--json", "-"), "--json: there is no result with"),
        (
            ("--board", "ulx3s-85f", "--engine", "vector"),
            "--engine vector: a pico has none; known are matmul, gather",
        ),
        (("--board", "nitefury"), "--board nitefury: Vivado builds its bitstream; add --no-run"),
        (("--no-run",), "--no-run: writes the project of a board; name one by --board"),
        (("--unit", "array", "--config", "big"), "preset 'big' is unknown; known are tiny"),
    ],
)
def test_what_an_fpga_cannot_be_asked_together_is_refused(refused, options, message):
    refused(message, "fpga", *options)


def test_units_are_of_the_card_that_is_told(halfdome, monkeypatch):
    from halfdome.hdl import synthesis

    built = []
    monkeypatch.setitem(synthesis.UNITS, "lane", built.append)
    monkeypatch.setattr(synthesis, "ecp5_report", lambda component, name: {"unit": name})
    status, text, _ = halfdome("fpga", "--unit", "lane", "--set", "lanes=8")
    assert status == 0
    assert "lanes=8" in text
    assert built == [PRESETS["tiny"].replace(lanes=8)]


def test_an_unknown_fpga_unit_is_refused_with_the_known_ones(halfdome):
    status, _, error = halfdome("fpga", "--unit", "card")
    assert status == 2
    assert "--unit card: unknown; known are array, lane" in error
