"""The project file from which AMD's Memory Interface Generator makes a DDR3 controller.

Source: AMD UG586, and the file that the generator wrote for the vendor's sample project.
"""

from collections.abc import Iterable
from xml.etree import ElementTree

from amaranth.hdl import IOPort

from halfdome.hdl.config import CardConfig

_PARAMETERS = {
    "MemoryDevice": "DDR3_SDRAM/Components/MT41K256M16XX-125",
    "TimePeriod": 2500,  # ps of the memory's clock; four to one of the user's
    "VccAuxIO": "1.8V",
    "PHYRatio": "4:1",
    "InputClkFreq": 200,
    "UIExtraClocks": 0,
    "MMCM_VCO": 800,
    "DataWidth": 16,
    "DeepMemory": 1,
    "DataMask": 1,
    "ECC": "Disabled",
    "Ordering": "Strict",
    "BankMachineCnt": 4,
    # The board's part is twice as large as the one that the generator knows.
    "CustomPart": "TRUE",
    "NewPartName": "MT41K512M16XX-125",
    "RowAddress": 16,
    "ColAddress": 10,
    "BankAddress": 3,
    "MemoryVoltage": "1.5V",
    "UserMemoryAddressMap": "BANK_ROW_COLUMN",
}
_TIMES_NS = {
    "tcke": 5, "tfaw": 40, "tras": 35, "trcd": 13.75, "trefi": 7.8, "trfc": 260, "trp": 13.75,
    "trrd": 7.5, "trtp": 7.5, "twtr": 7.5,
}  # fmt: skip
"""Of the part; `trefi` in microseconds."""
_MODES = {
    "mrBurstLength": ("Burst Length", "8 - Fixed"),
    "mrBurstType": ("Read Burst Type and Length", "Sequential"),
    "mrCasLatency": ("CAS Latency", 6),
    "mrMode": ("Mode", "Normal"),
    "mrDllReset": ("DLL Reset", "No"),
    "mrPdMode": ("DLL control for precharge PD", "Slow Exit"),
    "emrDllEnable": ("DLL Enable", "Enable"),
    "emrOutputDriveStrength": ("Output Driver Impedance Control", "RZQ/7"),
    "emrMirrorSelection": ("Address Mirroring", "Disable"),
    "emrCSSelection": ("Controller Chip Select Pin", "Disable"),
    "emrRTT": ("RTT (nominal) - On Die Termination (ODT)", "RZQ/4"),
    "emrPosted": ("Additive Latency (AL)", 0),
    "emrOCD": ("Write Leveling Enable", "Disabled"),
    "emrDQS": ("TDQS enable", "Enabled"),
    "emrRDQS": ("Qoff", "Output Buffer Enabled"),
    "mr2PartialArraySelfRefresh": ("Partial-Array Self Refresh", "Full Array"),
    "mr2CasWriteLatency": ("CAS write latency", 5),
    "mr2AutoSelfRefresh": ("Auto Self Refresh", "Enabled"),
    "mr2SelfRefreshTempRange": ("High Temparature Self Refresh Rate", "Normal"),  # its spelling
    "mr2RTTWR": ("RTT_WR - Dynamic On Die Termination (ODT)", "Dynamic ODT off"),
}
"""Mode registers, as the generator calls their fields and values."""


def controller_project(
    module: str, part: str, ports: Iterable[tuple[str, IOPort]], config: CardConfig, id_bits: int
) -> str:
    """XML for the module `module` in the FPGA `part`, with an AXI4 port as the card's.

    `ports` are the controller's ports to the memory and their pins, whose attributes say the I/O
    standard; `id_bits` is the width of the port's IDs.
    """
    project = ElementTree.Element("Project", NoOfControllers="1")
    general = {
        "ModuleName": module, "dci_inouts_inputs": 1, "dci_inputs": 1, "Debug_En": "OFF",
        "DataDepth_En": 1024, "LowPower_En": "ON", "XADC_En": "Enabled", "TargetFPGA": part,
        "Version": 4.2, "SystemClock": "Differential", "ReferenceClock": "Use System Clock",
        "SysResetPolarity": "ACTIVE LOW", "BankSelectionFlag": "FALSE", "InternalVref": 0,
        "dci_hr_inouts_inputs": "50 Ohms", "dci_cascade": 0,
    }  # fmt: skip
    _add(project, general)
    controller = ElementTree.SubElement(project, "Controller", number="0")
    _add(controller, _PARAMETERS | {"C0_MEM_SIZE": config.dram_bytes})
    selection = ElementTree.SubElement(controller, "PinSelection")
    for name, port in ports:
        alone = len(port) == 1 and name.endswith("_n") and not name.endswith(("dqs_n", "ck_n"))
        for bit, pin in enumerate(port.metadata):
            ElementTree.SubElement(
                selection, "Pin", IN_TERM="", IOSTANDARD=pin.attrs["IOSTANDARD"], PADName=pin.name,
                SLEW="", VCCAUX_IO="", name=name if alone else f"{name}[{bit}]",
            )  # fmt: skip
    times = ElementTree.SubElement(controller, "TimingParameters")
    ElementTree.SubElement(times, "Parameters", {name: str(ns) for name, ns in _TIMES_NS.items()})
    for tag, (name, value) in _MODES.items():
        ElementTree.SubElement(controller, tag, name=name).text = str(value)
    _add(controller, {"PortInterface": "AXI"})
    axi = {
        "C0_C_RD_WR_ARB_ALGORITHM": "RD_PRI_REG",
        "C0_S_AXI_ADDR_WIDTH": (config.dram_bytes - 1).bit_length(),
        "C0_S_AXI_DATA_WIDTH": 8 * config.bus_bytes,
        "C0_S_AXI_ID_WIDTH": id_bits,
        "C0_S_AXI_SUPPORTS_NARROW_BURST": 0,
    }
    _add(ElementTree.SubElement(controller, "AXIParameters"), axi)
    ElementTree.indent(project)
    return ElementTree.tostring(project, "unicode", xml_declaration=True) + "\n"


def _add(parent: ElementTree.Element, values: dict[str, object]) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)
