"""The boards that a pico has been fitted to, and what is built for them.

Pins and devices are those of `amaranth-boards`, or of `gowin`, which mends and adds some; what
they do not say stands here: where the serial line is, and how often the clock is divided. There is
nothing in the place of DRAM: a pico has its scratchpad, in block RAM.
"""

import importlib
from dataclasses import dataclass
from difflib import get_close_matches

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.build import Attrs, Platform
from amaranth.build.run import BuildPlan
from amaranth.hdl import Elaboratable
from amaranth.lib import io
from amaranth_boards.resources import UARTResource

from halfdome.hdl.boards import nitefury
from halfdome.hdl.boards.serial_pico import SerialPico
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import PICO
from halfdome.hdl.fpga import ECP5, GW2A, Family
from halfdome.hdl.mends import mended
from halfdome.hdl.serial import BAUD

TOP = "halfdome_pico"
_LINES = ("rx", "tx", "rts", "dtr")
_RESET_CYCLES = 255
"""Cycles that a divided clock runs before what it clocks leaves reset."""


class BoardError(ValueError):
    """A board is unknown or too small. The message says what fits."""


@dataclass(frozen=True)
class Board:
    """A board that holds a pico.

    Attributes
    ----------
    module, platform : str, the class that describes it
    serial : str, how a host reaches the serial line
    rx, tx : str, pins of the connector `connector` for boards without a serial port of their own
    divide : int, the board's clock counts so often for one of the pico's: 1 or a power of two
    family : Family, of its FPGA
    package : str, where `module` is
    """

    module: str
    platform: str
    serial: str
    connector: tuple[str, int] | None = None
    rx: str = ""
    tx: str = ""
    divide: int = 1
    family: Family = ECP5
    package: str = "amaranth_boards"

    def make_platform(self) -> Platform:
        """The platform of Amaranth, with a serial port."""
        module = importlib.import_module(f"{self.package}.{self.module}")
        platform = getattr(module, self.platform)()
        if self.connector:
            platform.add_resources([
                UARTResource(
                    0, rx=self.rx, tx=self.tx, conn=self.connector,
                    attrs=Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP"),
                )
            ])  # fmt: skip
        return platform


_BL616 = "the USB port of the board: a BL616 chip"
_BL702 = "the USB port of the dock: a BL702 chip"
_FTDI = "the USB port of the board: an FTDI chip"
_PINS = "a USB adapter with 3.3 V levels at pins {} (from it) and {} (to it) of connector {}"

BOARDS: dict[str, Board] = {
    "ulx3s-85f": Board("ulx3s", "ULX3S_85F_Platform", _FTDI),
    "ulx3s-45f": Board("ulx3s", "ULX3S_45F_Platform", _FTDI),
    "ulx3s-25f": Board("ulx3s", "ULX3S_25F_Platform", _FTDI),
    "ecpix5-85f": Board("ecpix5", "ECPIX585Platform", _FTDI, divide=4),
    "ecpix5-45f": Board("ecpix5", "ECPIX545Platform", _FTDI, divide=4),
    "versa-ecp5": Board("versa_ecp5", "VersaECP5Platform", _FTDI, divide=4),
    "versa-ecp5-5g": Board("versa_ecp5_5g", "VersaECP55GPlatform", _FTDI, divide=4),
    "orangecrab-85f": Board(
        "orangecrab_r0_2", "OrangeCrabR0_2_85FPlatform", _PINS.format(0, 1, "io 0"),
        connector=("io", 0), rx="0", tx="1", divide=2,
    ),
    "butterstick": Board(
        "butterstick", "ButterStickPlatform", _PINS.format("S0", "S1", "syzygy 0"),
        connector=("syzygy", 0), rx="S0", tx="S1",
    ),
    "tang-primer-20k": Board(
        "gowin", "TangPrimer20k", _BL702, family=GW2A, package="halfdome.hdl.boards",
    ),
    "tang-nano-20k": Board(
        "gowin", "TangNano20k", _BL616, family=GW2A, package="halfdome.hdl.boards",
    ),
}  # fmt: skip


def board(name: str) -> Board:
    """The board of a pico called `name`. Raises `BoardError` with the nearest names of all."""
    if name in BOARDS:
        return BOARDS[name]
    known = (*BOARDS, nitefury.BOARD)
    near = get_close_matches(name, known, cutoff=0.4)
    which = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    raise BoardError(f"board {name!r} is unknown; {which}")


def check_size(name: str, used: dict[str, int]) -> None:
    """Raises `BoardError` if a design does not fit a board, with every resource that lacks."""
    chosen = board(name)
    device = getattr(chosen.make_platform(), chosen.family.device)  # LFE5UM5G-85F
    lacking = [
        f"{resource}: {used[resource]:,} of {room:,}, {used[resource] - room:,} too many"
        for resource, room in chosen.family.capacity(device).items()
        if used[resource] > room
    ]
    if lacking:
        raise BoardError(f"board {name!r} is too small, {device}: {'; '.join(lacking)}")


class BoardTop(Elaboratable):
    """A pico on a board's pins and clock."""

    def __init__(self, divide: int, engine: Engine):
        self._divide = divide
        self._engine = engine

    def elaborate(self, platform):
        m = Module()
        frequency = platform.default_clk_frequency / self._divide
        if self._divide > 1:
            self._divide_clock(m, platform, frequency)
        m.submodules.pico = pico = SerialPico(PICO, self._engine, round(frequency / BAUD))
        uart = platform.request("uart", dir=dict.fromkeys(_LINES, "-"))
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [pico.rx.eq(rx.i), tx.o.eq(pico.tx)]
        return m

    def _divide_clock(self, m, platform, frequency):
        """`sync` from the board's clock, in reset for a while."""
        m.domains.board = ClockDomain(reset_less=True)
        m.domains.sync = sync = ClockDomain()
        count = Signal(range(self._divide))
        started = Signal(range(_RESET_CYCLES + 1))
        port = platform.request(platform.default_clk, dir="-")
        m.submodules.clock = clock = io.Buffer("i", port)
        m.d.comb += [
            ClockSignal("board").eq(clock.i),
            ClockSignal("sync").eq(count[-1]),
            ResetSignal("sync").eq(started != _RESET_CYCLES),
        ]
        m.d.board += count.eq(count + 1)
        with m.If(started != _RESET_CYCLES):
            m.d.board += started.eq(started + 1)
        platform.add_clock_constraint(sync.clk, frequency)


def project(name: str, engine: Engine = Engine.MATMUL) -> BuildPlan:
    """Everything that Yosys, nextpnr and what packs bitstreams need for a pico on a board."""
    chosen = board(name)
    platform, top = chosen.make_platform(), BoardTop(chosen.divide, engine)
    with mended():
        return platform.prepare(top, TOP, synth_opts=chosen.family.synthesis)
