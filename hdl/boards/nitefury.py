"""NiteFury II, an M.2 card with an Artix-7 and DDR3, as a project for Vivado: a whole card.

AMD's Integrated Block for PCI Express and Memory Interface Generator, which Vivado brings, stand at
the card's two ends. Sources: AMD PG054 and UG586, and for the board's pins and memory the vendor's
sample project (RHSResearchLLC/NiteFury-and-LiteFury, Project-0). `amaranth-boards` has the board,
with PERST# as an output and an I/O standard on the reference clock's pins, which have none.
"""

from collections.abc import Iterator

from amaranth import C, Cat, ClockDomain, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.build import Attrs, Clock, DiffPairs, Pins, PinsN, Resource, Subsignal
from amaranth.build.res import PortGroup
from amaranth.build.run import BuildPlan
from amaranth.hdl import Elaboratable, IOPort
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out
from amaranth.vendor import XilinxPlatform

from halfdome.hdl import registers, verilog_top
from halfdome.hdl.boards.crossing import AxiCrossing, PcieCrossing
from halfdome.hdl.boards.ddr3 import controller_project
from halfdome.hdl.config import NITEFURY
from halfdome.hdl.mends import mended
from halfdome.hdl.rtlil import rtlil_to_verilog
from halfdome.hdl.verilog import TOP as CARD
from halfdome.hdl.verilog import card_verilog

BOARD = "nitefury"
TOP = f"halfdome_{BOARD}"
PCIE, DRAM = "halfdome_pcie", "halfdome_dram"
"""Modules that Vivado makes."""
_LANES = 4
_USER_MHZ = 125
"""Clock of the block's streams: four lanes of 2.5 GT/s are 8 bytes at this clock."""
_VCO_MULTIPLE = 6
"""MMCME2_BASE may run at 600 to 1,440 MHz (AMD DS181, table 38)."""

PCIE_SETTINGS = {
    "Bar0_Scale": "Kilobytes",
    "Bar0_Size": registers.BAR0_BYTES >> 10,
    "Bar2_Enabled": "true",
    "Bar2_Type": "Memory",
    "Bar2_64bit": "true",
    "Bar2_Prefetchable": "true",
    "Bar2_Scale": "Gigabytes",
    "Bar2_Size": NITEFURY.window_bytes >> 30,
    "Interface_Width": "64_bit",
    "IntX_Generation": "false",
    "Legacy_Interrupt": "NONE",
    "Link_Speed": "2.5_GT/s",
    "MSI_Enabled": "false",
    "MSIx_Enabled": "true",
    "MSIx_PBA_BIR": "BAR_0",
    "MSIx_PBA_Offset": f"{registers.MSIX_PENDING_BITS >> 3:x}",
    "MSIx_Table_BIR": "BAR_0",
    "MSIx_Table_Offset": f"{registers.MSIX_TABLE >> 3:x}",
    "MSIx_Table_Size": len(registers.MSIX_VECTORS),
    "Max_Payload_Size": f"{NITEFURY.max_payload_bytes}_bytes",
    "Maximum_Link_Width": f"X{_LANES}",
    "PCIe_Debug_Ports": "false",
    "Ref_Clk_Freq": "100_MHz",
    "User_Clk_Freq": _USER_MHZ,
    "cfg_ctl_if": "true",
    "cfg_fc_if": "false",
    "cfg_mgmt_if": "false",
    "cfg_status_if": "true",
    "en_ext_clk": "false",
    "en_ext_gt_common": "false",
    "err_reporting_if": "false",
    "mode_selection": "Advanced",
    "pl_interface": "false",
    "rcv_msg_if": "false",
    "shared_logic_in_core": "false",
}
"""Of the block. The last ones give it the ports that `NiteFuryTop` connects, and no others that
would have to be."""

_TRANSCEIVER = "gtp_channel.gtpe2_channel_i"
_LANE_SITES = (6, 4, 5, 7)
"""Where the board has the transceiver of each lane: GTPE2_CHANNEL_X0Y..."""


class NiteFury(XilinxPlatform):
    """The board's pins, as far as a card takes them, and what is particular of its project."""

    device = "xc7a200t"
    package = "fbg484"
    speed = "2"
    resources = (
        Resource("clk200", 0, DiffPairs("J19", "H19", dir="i"), Clock(200e6),
                 Attrs(IOSTANDARD="DIFF_SSTL15")),
        Resource("pcie", 0,
            Subsignal("clkreq", PinsN("G1", dir="o"), Attrs(IOSTANDARD="LVCMOS33")),
            Subsignal("rst", PinsN("J1", dir="i"), Attrs(IOSTANDARD="LVCMOS33", PULLUP="TRUE")),
            Subsignal("clk", DiffPairs("F6", "E6", dir="i"), Clock(100e6)),
            Subsignal("rx", DiffPairs("B10 B8 D11 D9", "A10 A8 C11 C9", dir="i")),
            Subsignal("tx", DiffPairs("B6 B4 D5 D7", "A6 A4 C5 C7", dir="o")),
        ),
        Resource("ddr3", 0,
            Subsignal("reset_n", Pins("K16", dir="o"), Attrs(IOSTANDARD="LVCMOS15")),
            Subsignal("ck", DiffPairs("K17", "J17", dir="o"), Attrs(IOSTANDARD="DIFF_SSTL15")),
            Subsignal("cke", Pins("H22", dir="o")),
            Subsignal("we_n", Pins("L16", dir="o")),
            Subsignal("ras_n", Pins("H20", dir="o")),
            Subsignal("cas_n", Pins("K18", dir="o")),
            Subsignal("addr", Pins("M15 L21 M16 L18 K21 M18 M21 N20 M20 N19 J21 M22 K22 N18 N22 "
                                   "J22", dir="o")),
            Subsignal("ba", Pins("L19 J20 L20", dir="o")),
            Subsignal("dqs", DiffPairs("F18 B21", "E18 A21", dir="io"),
                      Attrs(IOSTANDARD="DIFF_SSTL15")),
            Subsignal("dq", Pins("D19 B20 E19 A20 F19 C19 F20 C18 E22 G21 D20 E21 C22 D21 B22 D22",
                                 dir="io")),
            Subsignal("dm", Pins("A19 G22", dir="o")),
            Subsignal("odt", Pins("K19", dir="o")),
            Attrs(IOSTANDARD="SSTL15"),
        ),
    )  # fmt: skip
    connectors = ()

    @property
    def file_templates(self):
        templates = dict(super().file_templates)
        del templates["{{name}}.debug.v"]
        del templates["{{name}}.v"]
        return templates | {"{{name}}.il": "{{emit_rtlil()}}"}

    def toolchain_prepare(self, fragment, name, **options):
        return super().toolchain_prepare(
            fragment, name, script_after_read=_ip_script(), script_after_synth=_lane_script(),
            add_constraints=_CONFIGURATION, script_before_bitstream=_BITSTREAM, **options,
        )  # fmt: skip


def _ip_script() -> str:
    """Tcl that makes PCIe block and DRAM controller, and fails where a setting was not taken."""
    lines = [f"create_ip -name pcie_7x -vendor xilinx.com -library ip -module_name {PCIE}"]
    lines += ["set_property -dict [list \\"]
    lines += [f"    CONFIG.{name} {{{value}}} \\" for name, value in PCIE_SETTINGS.items()]
    lines += [
        f"] [get_ips {PCIE}]",
        f"create_ip -name mig_7series -vendor xilinx.com -library ip -module_name {DRAM}",
        f"set_property CONFIG.XML_INPUT_FILE [file normalize {DRAM}.prj] [get_ips {DRAM}]",
        "generate_target all [get_ips]",
        "synth_ip [get_ips]",
    ]
    return "\n".join(lines)


def _lane_script() -> str:
    """Tcl that moves the block's transceivers from where the block wants them to the board's."""

    def cells(of: str) -> str:
        return f"[get_cells -hierarchical -filter {{NAME =~ pcie/*{of}{_TRANSCEIVER}}}]"

    lines = [f"reset_property LOC {cells('')}"]
    lines += [
        f"set_property LOC GTPE2_CHANNEL_X0Y{site} {cells(f'pipe_lane[{lane}].gt_wrapper_i/')}"
        for lane, site in enumerate(_LANE_SITES)
    ]
    return "\n".join(lines)


_CONFIGURATION = """
set_property CFGBVS VCCO [current_design]
set_property CONFIG_VOLTAGE 3.3 [current_design]
"""
_BITSTREAM = """
set_property BITSTREAM.CONFIG.SPI_BUSWIDTH 4 [current_design]
set_property BITSTREAM.CONFIG.SPI_FALL_EDGE YES [current_design]
set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]
"""


class NiteFuryTop(Elaboratable):
    """A card of `NITEFURY` between PCIe block and DRAM controller.

    Clock domains: `pcie` of the block's streams, `dram` of the controller's user side, `sync` of
    the card at `NITEFURY.clock_mhz`. The card is in reset while the link is, and until the memory
    has been calibrated.
    """

    def elaborate(self, platform):
        m = Module()
        m.domains.pcie, m.domains.dram, m.domains.sync = (
            ClockDomain(name) for name in ("pcie", "dram", "sync")
        )
        ports = {port.name: Signal(port.width, name=port.name) for port in _card_ports()}
        m.submodules.card = Instance(
            verilog_top.NAME, i_clk=ClockSignal(), i_rst=ResetSignal(),
            **{f"{port.direction[0]}_{port.name}": ports[port.name] for port in _card_ports()},
        )  # fmt: skip
        calibrated = Signal()
        self._add_clocks(m, calibrated)
        self._add_pcie(m, platform, ports)
        self._add_dram(m, platform, ports, calibrated)
        return m

    def _add_clocks(self, m, calibrated):
        """The card's clock is made of the block's."""
        feedback, unbuffered, locked = Signal(), Signal(), Signal()
        vco = _USER_MHZ * _VCO_MULTIPLE
        m.submodules.mmcm = Instance(
            "MMCME2_BASE",
            p_CLKIN1_PERIOD=1000 / _USER_MHZ, p_CLKFBOUT_MULT_F=float(_VCO_MULTIPLE),
            p_CLKOUT0_DIVIDE_F=vco / NITEFURY.clock_mhz,
            i_CLKIN1=ClockSignal("pcie"), i_RST=ResetSignal("pcie"), i_PWRDWN=C(0, 1),
            i_CLKFBIN=feedback, o_CLKFBOUT=feedback, o_CLKOUT0=unbuffered, o_LOCKED=locked,
        )  # fmt: skip
        m.submodules.clock = Instance("BUFG", i_I=unbuffered, o_O=ClockSignal())
        m.submodules.reset = ResetSynchronizer(ResetSignal("pcie") | ~locked | ~calibrated)

    def _add_pcie(self, m, platform, ports):
        pins = platform.request("pcie", dir="-")
        m.submodules.pcie_crossing = crossing = PcieCrossing(NITEFURY)
        rx, tx, hit = crossing.block_rx, crossing.block_tx, Signal(22)
        bus, device, function = Signal(8), Signal(5), Signal(3)
        reference, off = Signal(), Signal()
        m.d.comb += [
            rx.p.bar_hit.eq(hit[2:10]),
            crossing.id.eq(Cat(function, device, bus)),
            crossing.rx.ready.eq(ports["rx_ready"]),
            ports["rx_valid"].eq(crossing.rx.valid),
            *(ports[f"rx_{name}"].eq(crossing.rx.p[name]) for name in ("data", "last", "bar")),
            crossing.rx_np_ok.eq(ports["rx_np_ok"]),
            crossing.tx.valid.eq(ports["tx_valid"]),
            ports["tx_ready"].eq(crossing.tx.ready),
            *(crossing.tx.p[name].eq(ports[f"tx_{name}"]) for name in ("data", "last")),
        ]
        m.submodules.reference = Instance(
            "IBUFDS_GTE2", i_I=pins.clk.p, i_IB=pins.clk.n, i_CEB=C(0, 1), o_O=reference
        )
        m.submodules.clkreq = Instance("OBUF", i_I=C(0, 1), o_O=pins.clkreq.io)
        m.submodules.pcie = Instance(
            PCIE,
            i_sys_clk=reference, i_sys_rst_n=pins.rst.io,
            i_pci_exp_rxp=pins.rx.p, i_pci_exp_rxn=pins.rx.n,
            o_pci_exp_txp=pins.tx.p, o_pci_exp_txn=pins.tx.n,
            o_user_clk_out=ClockSignal("pcie"), o_user_reset_out=ResetSignal("pcie"),
            o_m_axis_rx_tdata=rx.p.data, o_m_axis_rx_tkeep=rx.p.keep, o_m_axis_rx_tlast=rx.p.last,
            o_m_axis_rx_tuser=hit, o_m_axis_rx_tvalid=rx.valid, i_m_axis_rx_tready=rx.ready,
            i_s_axis_tx_tdata=tx.p.data, i_s_axis_tx_tkeep=tx.p.keep, i_s_axis_tx_tlast=tx.p.last,
            i_s_axis_tx_tuser=C(0, 4), i_s_axis_tx_tvalid=tx.valid, o_s_axis_tx_tready=tx.ready,
            i_rx_np_ok=crossing.block_np_ok, i_rx_np_req=C(1, 1), i_tx_cfg_gnt=C(1, 1),
            o_cfg_bus_number=bus, o_cfg_device_number=device, o_cfg_function_number=function,
            o_cfg_to_turnoff=off, i_cfg_turnoff_ok=off,
            # Interrupts are memory writes of the card; power management and errors are the block's.
            i_cfg_interrupt=C(0, 1), i_cfg_interrupt_assert=C(0, 1), i_cfg_interrupt_di=C(0, 8),
            i_cfg_interrupt_stat=C(0, 1), i_cfg_pciecap_interrupt_msgnum=C(0, 5),
            i_cfg_trn_pending=C(0, 1), i_cfg_dsn=C(0, 64),
            i_cfg_pm_halt_aspm_l0s=C(0, 1), i_cfg_pm_halt_aspm_l1=C(0, 1),
            i_cfg_pm_force_state_en=C(0, 1), i_cfg_pm_force_state=C(0, 2),
            i_cfg_pm_wake=C(0, 1), i_cfg_pm_send_pme_to=C(0, 1),
            i_cfg_ds_bus_number=C(0, 8), i_cfg_ds_device_number=C(0, 5),
            i_cfg_ds_function_number=C(0, 3),
        )  # fmt: skip

    def _add_dram(self, m, platform, ports, calibrated):
        pins, clock = platform.request("ddr3", dir="-"), platform.request("clk200", dir="-")
        m.submodules.axi_crossing = crossing = AxiCrossing(NITEFURY, len(ports["m_axi_arid"]))
        for name, member in crossing.card.signature.members.items():
            outer, inner = ports[f"m_axi_{name}"], getattr(crossing.card, name)
            m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        address_bits = (NITEFURY.dram_bytes - 1).bit_length()
        axi = {
            f"{'i' if member.flow == Out else 'o'}_s_axi_{name}": (
                getattr(crossing.dram, name)[:address_bits]
                if name in ("awaddr", "araddr")
                else getattr(crossing.dram, name)
            )
            for name, member in crossing.dram.signature.members.items()
        }
        user_reset = Signal()
        m.submodules.dram_reset = ResetSynchronizer(user_reset | ResetSignal("pcie"), domain="dram")
        m.submodules.dram = Instance(
            DRAM,
            i_sys_clk_p=clock.p, i_sys_clk_n=clock.n, i_sys_rst=C(1, 1),
            o_ui_clk=ClockSignal("dram"), o_ui_clk_sync_rst=user_reset,
            o_init_calib_complete=calibrated, i_aresetn=~ResetSignal("dram"),
            **{
                f"{'io' if name in ('ddr3_dq', 'ddr3_dqs_p', 'ddr3_dqs_n') else 'o'}_{name}": port
                for name, port in ddr3_ports(pins)
            },
            **axi,
            **{
                f"i_s_axi_{channel}{name}": C(0, bits)
                for channel in ("aw", "ar")
                for name, bits in (("lock", 1), ("cache", 4), ("prot", 3), ("qos", 4))
            },
            i_app_sr_req=C(0, 1), i_app_ref_req=C(0, 1), i_app_zq_req=C(0, 1),
        )  # fmt: skip


def ddr3_ports(pins: PortGroup) -> Iterator[tuple[str, IOPort]]:
    """Ports of the DRAM controller and the pins that they go to, as its generator names them."""
    for name in ("dq", "dm", "addr", "ba", "ras_n", "cas_n", "we_n", "reset_n", "cke", "odt"):
        yield f"ddr3_{name}", getattr(pins, name).io
    for name in ("dqs", "ck"):
        yield f"ddr3_{name}_p", getattr(pins, name).p
        yield f"ddr3_{name}_n", getattr(pins, name).n


def _card_ports() -> list[verilog_top.Port]:
    return verilog_top.ports(NITEFURY)


def project() -> BuildPlan:
    """Everything that Vivado needs for a card on the board."""
    platform = NiteFury()
    platform.add_file(f"{CARD}.v", card_verilog(NITEFURY))
    platform.add_file(f"{verilog_top.NAME}.v", verilog_top.top_verilog(NITEFURY, CARD))
    with mended():
        plan = platform.prepare(NiteFuryTop(), TOP, emit_src=False)
    plan.files[f"{TOP}.v"] = rtlil_to_verilog(
        plan.files.pop(f"{TOP}.il"), passes="proc -norom", attributes=True
    )
    pins = NiteFury().request("ddr3", dir="-")
    [id_bits] = [port.width for port in _card_ports() if port.name == "m_axi_arid"]
    part = f"{platform.device}-{platform.package}/-{platform.speed}"
    plan.add_file(
        f"{DRAM}.prj", controller_project(DRAM, part, ddr3_ports(pins), NITEFURY, id_bits)
    )
    return plan
