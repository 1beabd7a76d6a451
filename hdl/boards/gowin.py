"""Boards with a Gowin GW2A-18, as platforms that today's open tools build.

Amaranth 0.5 calls `nextpnr-gowin`, which nextpnr has given up for `nextpnr-himbaechel-gowin`.
"""

from amaranth.build import Attrs, Clock, Pins, Resource
from amaranth.vendor import GowinPlatform
from amaranth_boards.resources import UARTResource
from amaranth_boards.tang_primer_20k import TangPrimer20kDockPlatform

_CHIP = "GW2A-18C"
"""What nextpnr and gowin_pack call the die of a GW2A-18 and, with memory beside it, a GW2AR-18."""


_PLACE = f"""
{{{{invoke_tool("nextpnr-himbaechel-gowin")}}}}
    {{{{quiet("--quiet")}}}}
    {{{{get_override("nextpnr_opts")|options}}}}
    --log {{{{name}}}}.tim
    --device {{{{platform.part}}}}
    --vopt family={_CHIP}
    --vopt cst={{{{name}}}}.cst
    --freq {{{{platform.default_clk_frequency / 1e6}}}}
    --json {{{{name}}}}.syn.json
    --write {{{{name}}}}.pnr.json
"""
_PACK = f"""
{{{{invoke_tool("gowin_pack")}}}}
    -d {_CHIP}
    -o {{{{name}}}}.fs
    {{{{get_override("gowin_pack_opts")|options}}}}
    {{{{name}}}}.pnr.json
"""


class _Himbaechel(GowinPlatform):
    """A platform of Amaranth with the commands of today's nextpnr."""

    @property
    def required_tools(self):
        return ["yosys", "nextpnr-himbaechel-gowin", "gowin_pack"]

    @property
    def command_templates(self):
        synthesise, *_ = super().command_templates
        return [synthesise, _PLACE, _PACK]


class TangPrimer20k(_Himbaechel, TangPrimer20kDockPlatform):
    """Sipeed Tang Primer 20K in its dock."""


class TangNano20k(_Himbaechel):
    """Sipeed Tang Nano 20K, which `amaranth-boards` lacks.

    Source: its schematic, Tang_Nano_20K_3921, Sipeed. The serial line ends at the USB bridge.
    """

    part = "GW2AR-LV18QN88C8/I7"
    family = "GW2AR-18C"
    default_clk = "clk27"
    resources = (
        Resource("clk27", 0, Pins("4", dir="i"), Clock(27e6), Attrs(IO_TYPE="LVCMOS33")),
        UARTResource(0, rx="70", tx="69", attrs=Attrs(PULL_MODE="UP", IO_TYPE="LVCMOS33")),
    )
    connectors = ()
