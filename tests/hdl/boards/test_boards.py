"""Every board gets its pins and its clock, and is told in time if it is too small."""

import json
import re

import pytest

from halfdome.hdl import tools
from halfdome.hdl.boards import build
from halfdome.hdl.boards.boards import BOARDS, TOP, BoardError, check_size, project
from halfdome.hdl.serial import BAUD
from halfdome.hdl.tools import ToolError

SERIAL = {
    "ulx3s-85f": ("M1", "L4"), "ecpix5-85f": ("R26", "R24"), "versa-ecp5-5g": ("C11", "A11"),
    "orangecrab-85f": ("N17", "M18"), "butterstick": ("G2", "J3"),
}  # fmt: skip
"""Pins of the line from and to the host, as the boards' schematics have them."""


@pytest.mark.parametrize("name", SERIAL)
def test_a_board_has_its_serial_line_and_a_clock_that_divides_into_bits(name):
    files = project(name).files
    constraints = files[f"{TOP}.lpf"]
    sites = dict(re.findall(r'LOCATE COMP "(\S+)" SITE "(\S+)"', constraints))
    assert (sites["uart_0__rx__io"], sites["uart_0__tx__io"]) == SERIAL[name]
    platform = BOARDS[name].make_platform()
    frequency = platform.default_clk_frequency / BOARDS[name].divide
    assert abs(frequency / round(frequency / BAUD) / BAUD - 1) < 0.02
    if BOARDS[name].divide > 1:
        assert re.search(rf"FREQUENCY NET \S+ {frequency} HZ", constraints)


@pytest.mark.parametrize("name", BOARDS)
def test_a_pico_is_not_clocked_faster_than_it_goes(name):
    platform = BOARDS[name].make_platform()
    assert platform.default_clk_frequency / BOARDS[name].divide <= 30e6


def test_the_same_board_gives_the_same_project():
    assert project("ulx3s-85f").files == project("ulx3s-85f").files


def test_a_board_that_is_too_small_is_told_with_every_resource_that_lacks():
    used = {"lut": 25000, "ff": 100, "dsp": 30, "bram": 56}
    check_size("ulx3s-85f", used)
    with pytest.raises(BoardError) as error:
        check_size("ulx3s-25f", used)
    assert str(error.value) == (
        "board 'ulx3s-25f' is too small, LFE5U-25F: lut: 25,000 of 24,288, 712 too many; "
        "dsp: 30 of 28, 2 too many"
    )


def test_a_board_that_is_too_small_is_not_placed(monkeypatch, tmp_path):
    def synthesise(script, folder):
        cells = {"LUT4": 80_000, "CCU2C": 2_000, "TRELLIS_DPR16X4": 10}
        sizes = {"design": {"num_cells_by_type": cells}}
        (folder / re.search(r"-o (\S+)", script)[1]).write_text("stat\n" + json.dumps(sizes))

    monkeypatch.setattr(build, "run_yosys", synthesise)
    monkeypatch.setattr(build, "_TOOLS", {"NEXTPNR_ECP5": None})
    with pytest.raises(BoardError, match=r"lut: 84,040 of 83,640, 400 too many"):
        build.build("ulx3s-85f", project("ulx3s-85f"), tmp_path)


def test_a_tool_that_is_missing_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    for run in (tools.run_nextpnr, tools.run_ecppack):
        with pytest.raises(ToolError, match=r"`pip install 'halfdome\[fpga\]'`"):
            run([], tmp_path)
