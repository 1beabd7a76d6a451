"""The simulated platform: a host's PCIe bus with cards on it."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.tlp import rx_beat, tx_beat
from halfdome.sim.build import cache as artefacts
from halfdome.sim.bus import SLICE_CYCLES, Bus
from halfdome.sim.dram import presets, replay
from halfdome.sim.fabric.config import (
    HOST_BASE,
    MESSAGE_BASE,
    Bars,
    FabricConfig,
    assign_bars,
    settings,
)
from halfdome.sim.fabric.faults import Fault, FaultCounts, FaultPlan, parse_fault
from halfdome.sim.fabric.host_memory import HostMemory, lazy_bytes
from halfdome.sim.fabric.packets import Link
from halfdome.sim.kernel.world import Interrupt, World, load_library
from halfdome.sim.rtl.cards import HARDWARE, CardFactory, maker
from halfdome.sim.timing import card as timing
from halfdome.sim.waves import Waves, check_card

ENGINES = (*HARDWARE, "timing")
"""What can simulate cards: `timing` without their hardware, by when what happens in it."""

cache_summary = artefacts.summary
"""What the cache of compiled models holds, for `halfdome info`."""

MOST_PACKETS = 1_000_000
"""Packets that a recording keeps of each direction of each link: 40 MB."""
LATEST_INTERRUPTS, MOST_INTERRUPTS = 256, 1_000_000
"""Interrupt messages that are kept at any time, and by a recording: 24 MB."""
MOST_INPUT_BYTES = 256 << 20
"""What `keep_inputs` may take of each card: a million cycles and more."""


class Platform:
    """Cards behind a switch and one host. A context manager; `close` gives everything back.

    Parameters
    ----------
    config : CardConfig
        All cards are built from it.
    cards : int
        1 to 32.
    engine : str
        One of `ENGINES`.
    threads : int or None
        Threads that step cards; by default one for each card, at most one for each processor. The
        results do not depend on it. The pysim engine always has one.
    fabric : FabricConfig
    card_factory : function of the configuration that returns the component to simulate, with ports
        `rx`, `tx` and `axi`; by default `halfdome.hdl.card.Card`
    window_cycles : int
        Longest run of a card between two synchronisations; 0, the default, for as long as is
        exact. The results do not depend on it.
    skip_idle : bool
        Cards that wait pass over cycles that repeat. The results do not depend on it.
    waves : Waves or None
        Waveforms to write; the file is whole when the window has ended or after `close`. The
        results do not depend on it.
    keep_inputs : bool
        Remember what the cards were driven with, so that `write_waves` works.
    faults : FaultPlan or None
        What goes wrong on the links from the beginning; see `inject`.
    values : bool
        Without, for the engine `timing` alone, commands take their time but compute nothing: what
        they would have written is as it was before. Cycles do not depend on it.

    Raises `ValueError` for a bad argument or an unknown DRAM preset, `halfdome.hdl.tools.ToolError`
    and `halfdome.sim.build.compiler.BuildError` if a tool is missing or fails.
    """

    def __init__(
        self,
        config: CardConfig,
        *,
        cards: int = 6,
        engine: str = "native",
        threads: int | None = None,
        fabric: FabricConfig | None = None,
        card_factory: CardFactory | None = None,
        window_cycles: int = 0,
        skip_idle: bool = True,
        waves: Waves | None = None,
        keep_inputs: bool = False,
        faults: FaultPlan | None = None,
        values: bool = True,
    ):
        check(config, cards=cards, engine=engine, values=values)
        _check_number("window_cycles", window_cycles, 0)
        _check_flags(skip_idle=skip_idle, keep_inputs=keep_inputs)
        for name, value, kind in (("fabric", fabric, FabricConfig), ("waves", waves, Waves),
                                  ("faults", faults, FaultPlan)):  # fmt: skip
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"{name}={value!r}: must be a {kind.__name__} or None")
        if waves is not None:
            check_card(waves.card, cards)
            waves.clear()
        threads = _thread_count(threads, cards, engine)
        _check_beats(config)
        fabric = fabric or FabricConfig()
        around = {"fabric": settings(fabric, config), "dram": presets.settings(config)}
        self.config = config
        self.engine = engine
        self.values = values
        self.fabric = fabric
        self.bars: list[Bars] = assign_bars(config, cards)
        hardware = engine in HARDWARE
        _check_hardware(
            engine,
            waves=waves and str(waves.path),
            keep_inputs=keep_inputs,
            card_factory=card_factory,
        )
        memory_bytes = config.dram_bytes if hardware else config.window_bytes
        self._memories = [lazy_bytes(memory_bytes) for _ in range(cards)]
        self._host_memory = HostMemory(HOST_BASE, self.fabric.host_memory_bytes)
        with ThreadPoolExecutor(1) as beside:
            # A first time compiles this while the cards are elaborated.
            library = beside.submit(load_library)
            if hardware:
                self._make = maker(engine, config, card_factory)
                self._models = self._make(cards, waves=waves)
            else:
                self._models = timing.models(config, self._memories, values)
            library.result()
            self.world = World(
                **around,
                host_memory=self._host_memory.array,
                bars=self.bars,
                models=self._models,
                memories=self._memories,
                threads=threads,
                window_cycles=window_cycles,
                skip_idle=skip_idle,
            )
            self.record_interrupts(False)
        if keep_inputs:
            for index in range(cards):
                self.world.keep_inputs(index, MOST_INPUT_BYTES)
        if faults is not None:
            self.inject(faults)
        self.bus = Bus(self.world, self._host_memory)

    def message(self, index: int) -> tuple[int, int]:
        """Address and data of the interrupt message of a card."""
        return MESSAGE_BASE + (index << 12), index

    def memory(self, index: int) -> np.ndarray:
        """The DRAM of a card, uint8[dram_bytes], for reading and writing behind its back.

        Cards may be a few cycles ahead of the host; look only at what the card is known to be done
        with.
        """
        return self._memories[index][: self.config.dram_bytes]

    @property
    def cycles(self) -> int:
        """Host time in card clock cycles."""
        return self.world.cycle

    @property
    def time_ns(self) -> float:
        """Host time in nanoseconds."""
        return self.world.time_ns

    @property
    def interrupts(self) -> list[Interrupt]:
        """The latest interrupt messages: `LATEST_INTERRUPTS`, or what `record_interrupts` keeps."""
        return self.world.interrupts()

    def run(self, cycles: int) -> None:
        """Lets time pass."""
        end = self.cycles + cycles
        while self.cycles < end:
            self.world.run(min(end, self.cycles + SLICE_CYCLES))

    def bare_cycles_per_second(self, cycles: int) -> float:
        """Speed of the compiled card alone: inputs tied to 0, a loop in C++, no DRAM and no link.

        What no simulation around this model can exceed. Steps a new instance for `cycles` cycles;
        the platform's own cards do not move. Raises `ValueError` for an engine that does not
        compile.
        """
        if self.engine != "native":
            raise ValueError(f"engine={self.engine!r}: only native compiles cards")
        if cycles < 1:
            raise ValueError(f"cycles={cycles}: must be 1 or more")
        [model] = self._make(1)
        try:
            start = time.perf_counter()
            model.run(cycles)
            return cycles / (time.perf_counter() - start)
        finally:
            model.close()

    @staticmethod
    def fault(text: str) -> Fault:
        """The fault that a text means, see `halfdome.sim.fabric.faults.parse_fault`."""
        return parse_fault(text)

    def inject(self, plan: FaultPlan) -> None:
        """Makes faults happen on the links, from now on and beside those planned before.

        Raises `ValueError` for a fault that does not fit the platform.
        """
        self.world.inject(plan.faults)

    def fault_strikes(self) -> list[tuple[Fault, int]]:
        """Every fault planned so far, and how many packets it hit; a link that went down hit 1."""
        return self.world.strikes()

    def fault_counts(self) -> dict[str, FaultCounts]:
        """What faults did to each direction of each link: "card 0 down" is towards card 0."""
        links = [*(f"card {index}" for index in range(len(self.bars))), "uplink"]
        return {
            f"{name} {'down' if down else 'up'}": self.world.faults(link, down)
            for link, name in enumerate(links)
            for down in (True, False)
        }

    def traffic(self) -> dict:
        """What crossed the links, the uplink and the DRAMs, in packets, bytes and accesses.

        `{"cards": [{...} for each card], "uplink": {...}}`. Payload bytes exclude headers, wire
        bytes include headers and framing.
        """
        cards = [self.world.card_traffic(index) for index in range(len(self.bars))]
        return {"cards": cards, "uplink": self.world.host_traffic()}

    def dram_cycles(self, addresses: np.ndarray, start_cycle: int = 0) -> int:
        """Cycles that a card's DRAM alone takes to read a line for each card address.

        All are on offer at once, in this order, from `start_cycle` on: see
        `halfdome.sim.dram.replay`.
        """
        return replay.cycles(self.config, addresses, start_cycle)

    def record_interrupts(self, on: bool = True) -> None:
        """Starts recording interrupt messages, the latest `MOST_INTERRUPTS`, or stops and forgets.

        The results do not depend on it.
        """
        self.world.keep_interrupts(MOST_INTERRUPTS if on else LATEST_INTERRUPTS)

    def record_packets(self, on: bool = True) -> None:
        """Starts recording what crosses every link, or stops and forgets.

        Up to `MOST_PACKETS` of each direction are kept. The results do not depend on it.
        """
        self.world.log_packets(MOST_PACKETS if on else 0)

    def packets(self) -> list[Link]:
        """What was recorded: both directions of the uplink, then of each card's link."""
        cards = len(self.bars)
        names = {self.world.card_id(index): f"card {index}" for index in range(cards)}
        return [
            Link(
                None if index == cards else index,
                down,
                *self.world.packets(index, down),
                device=lambda identifier: names.get(identifier, "host"),
                owner=self._owner,
            )
            for index in (cards, *range(cards))
            for down in (True, False)
        ]

    def _owner(self, address: int) -> str:
        for index, bars in enumerate(self.bars):
            if (
                bars.bar0 <= address < bars.bar0 + bars.bar0_bytes
                or bars.bar2 <= address < bars.bar2 + bars.bar2_bytes
            ):
                return f"card {index}"
        return "host"

    def simulated(self, card: int) -> int:
        """Cycles that a card has been simulated for: a few more or less than the host's.

        Raises `ValueError` for a card that the platform does not have.
        """
        check_card(card, len(self.bars))
        return self.world.card_cycle(card)

    def write_waves(self, waves: Waves) -> None:
        """Writes waveforms of what has happened: repeats the card, driven as it was, up to there.

        For a platform with `keep_inputs`, on the engine it runs on. A window that reaches beyond
        what the card has simulated ends there. Raises `ValueError` for a card without hardware, if
        the window has not begun by then or for another bad one, and `RuntimeError` if the inputs
        were not, or not all, kept.
        """
        _check_hardware(self.engine, waves=str(waves.path))
        simulated = self.simulated(waves.card)
        waves.clear()
        if waves.start >= simulated:
            raise ValueError(
                f"waves: start={waves.start}: card {waves.card} has simulated {simulated} cycles"
            )
        stop = min(waves.stop, simulated)
        [model] = self._make(1, waves=replace(waves, card=0, stop=stop))
        try:
            whole = self.world.repeat(waves.card, model, stop)
        finally:
            model.close()
        if not whole:
            raise RuntimeError(
                "waves: the inputs of the cards were not kept: open the platform with "
                f"keep_inputs=True; of each card {MOST_INPUT_BYTES} bytes are kept, a longer run "
                "needs `waves`"
            )

    def close(self) -> None:
        """Ends the simulation. Closing twice does nothing."""
        self.world.close()
        for model in self._models:
            model.close()

    def __enter__(self) -> "Platform":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def check(
    config: CardConfig, *, cards: int = 6, engine: str = "native", values: bool = True
) -> None:
    """Raises the `ValueError` with which `Platform` would refuse these, and builds nothing."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: unknown; known are {', '.join(ENGINES)}")
    if not 1 <= cards <= 32:
        raise ValueError(f"cards={cards}: must be 1 to 32")
    _check_flags(values=values)
    if engine in HARDWARE and not values:
        raise ValueError(
            f"values=False: a card of hardware computes what it is told to, engine={engine!r} has "
            "them; engine='timing' can leave values out"
        )
    presets.settings(config)
    settings(FabricConfig(), config)


def _check_hardware(engine: str, **needs: object) -> None:
    for name, value in needs.items():
        if value and engine not in HARDWARE:
            raise ValueError(
                f"{name}={value!r}: needs a card of hardware, engine={engine!r} has none"
            )


def _check_flags(**flags: object) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"{name}={flag!r}: must be True or False")


def _check_number(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r}: must be a whole number, {least} or more")


def _thread_count(threads: int | None, cards: int, engine: str) -> int:
    if threads is not None:
        _check_number("threads", threads, 1)
    if engine == "pysim":  # all in one interpreter
        return 1
    return min(cards, threads or len(os.sched_getaffinity(0)))


def _check_beats(config: CardConfig) -> None:
    """The endpoint model packs the flags of a beat right after its data."""
    bits = config.bus_bytes * 8
    rx, tx = rx_beat(config), tx_beat(config)
    if (rx["last"].offset, rx["bar"].offset, tx["last"].offset) != (bits, bits + 1, bits):
        raise ValueError("halfdome.hdl.pcie.tlp: beats must be data, last, bar, in this order")
