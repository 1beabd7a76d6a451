"""The platform as a whole: its cards, its clock, its lifetime. What `halfdome.open` opens."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import MOST_CARDS, CardConfig, ConfigError, preset
from halfdome.host import arguments
from halfdome.host.driver.device import WAIT_CYCLES, Device
from halfdome.host.driver.halfdome import HalfdomeAccelerator
from halfdome.host.driver.pico import Board
from halfdome.host.driver.session import Session, whole
from halfdome.host.report import perfetto
from halfdome.host.report.recording import CardRecord, Recording
from halfdome.host.runtime.card import Card

if TYPE_CHECKING:
    from halfdome.sim.fabric.config import FabricConfig
    from halfdome.sim.golden.operators import Reference
    from halfdome.sim.platform import Platform, Waves

BOARD = "board"
"""The engine of a runtime whose card is real."""


class Runtime:
    """An open platform. A context manager; `close` gives everything back.

    Calls from any thread are answered one after the other. A call that fails, or is interrupted,
    leaves nothing behind.

    Attributes
    ----------
    cards : list of Card
    config : CardConfig
    engine : str
    session : Session
    reference : Reference, the golden functions with the names and parameters of a card's methods
    """

    def __init__(
        self, platform: "Platform | Board", config: CardConfig, engine: str, reference: "Reference",
        patience_cycles: int = WAIT_CYCLES,
    ):  # fmt: skip
        self.platform = platform
        self.config = config
        self.engine = engine
        self.reference = reference
        self.session = Session(platform.bus, platform.values)
        self._tracing: tuple[Path, int] | None = None
        self.accelerators = [
            HalfdomeAccelerator(
                Device(
                    platform.bus, config, index=index, bar0=bars.bar0, bar2=bars.bar2,
                    message=platform.message(index), clock=lambda: platform.cycles,
                    patience_cycles=patience_cycles,
                ),
                self.session,
                backdoor=(lambda index=index: platform.memory(index))
                if engine != BOARD else None,
            )
            for index, bars in enumerate(platform.bars)
        ]  # fmt: skip
        self.session.accelerators = list(self.accelerators)
        self.cards = [Card(accelerator) for accelerator in self.accelerators]

    @property
    def cycles(self) -> int:
        """Platform time in card clock cycles."""
        return self.session.call(lambda: self.platform.cycles)

    @contextmanager
    def trace(self, path: str | Path) -> Iterator[None]:
        """Writes a timeline of what happens inside to a file, for https://ui.perfetto.dev.

        Engines, queues, DMA, links and the host, on every card; also when something is raised
        inside. The results do not depend on it. Raises `ValueError` for a file that cannot be
        written and `RuntimeError` inside another `trace`.
        """
        self._begin_trace(path)
        try:
            yield
        finally:
            self._end_trace()

    @whole
    def _begin_trace(self, path: str | Path) -> None:
        self._need_simulation("trace")
        if self._tracing is not None:
            raise RuntimeError(f"trace: {path}: another is being recorded")
        self._tracing = perfetto.check_path(path), self.cycles
        self.platform.record_packets()
        self.platform.record_interrupts()
        for card in self.cards:
            card.device.history = []

    def _end_trace(self) -> None:
        """Does nothing if no timeline is being recorded, as after `close`."""
        if self._tracing is not None:
            self._write_trace(*self._tracing)

    @whole
    def _write_trace(self, path: Path, start: int) -> None:
        self._tracing = None
        records = []
        for card in self.cards:
            device = card.device
            history, device.history = device.history or [], None
            ring = device.rings.submission_address()
            records.append(CardRecord(device.bar0, device.bar2, ring, history))
        interrupts, links = self.platform.interrupts, self.platform.packets()
        self.platform.record_packets(False)
        self.platform.record_interrupts(False)
        perfetto.write(path, Recording(self.config, start, self.cycles, records, links, interrupts))

    @whole
    def write_waves(
        self, path: str | Path, *, card: int = 0, start: int = 0, stop: int | None = None
    ) -> tuple[int, int]:
        """Writes a VCD of what a card did from cycle `start` to before `stop`, and returns both.

        By default to where the card is; a negative `start` counts back from there. For a runtime
        opened with `keep_inputs=True`; raises what `halfdome.sim.platform.Platform.write_waves`
        raises.
        """
        from halfdome.sim.platform import Waves

        self._need_simulation("write_waves")
        now = self.platform.simulated(card)
        start = max(0, now + start) if start < 0 else start
        stop = max(now, start + 1) if stop is None else stop
        self.platform.write_waves(Waves(Path(path), card=card, start=start, stop=stop))
        return start, min(stop, now)

    @whole
    def inject(self, faults: Sequence[str]) -> None:
        """Lets things go wrong on the links from now on: `NAME[:card=N,at=US,...]` each.

        `halfdome.sim.fabric.faults.parse_fault` tells what there is; `at` counts from now. Raises
        `ValueError` for what it does not know or what does not fit the platform.
        """
        from halfdome.sim.platform import FaultPlan

        if isinstance(faults, str):
            raise ValueError(f"faults={faults!r}: must be a list of such, [{faults!r}]")
        self._need_simulation("inject")
        now = self.platform.time_ns
        planned = [self.platform.fault(text) for text in faults]
        late = [replace(fault, after_ns=fault.after_ns + now) for fault in planned]
        self.platform.inject(FaultPlan(tuple(late)))

    def _need_simulation(self, what: str) -> None:
        if self.engine == BOARD:
            raise RuntimeError(f"{what}: is for simulated platforms, this is a board")

    def close(self) -> None:
        """Ends the simulation and frees its memory; a `trace` ends there, too.

        Closing twice does nothing, nor does it in a process that was forked off.
        """

        def last() -> None:
            self._end_trace()
            self.platform.close()

        self.session.close(last)

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a runtime cannot be pickled: it is a simulation under way; open one in each process"
        )


def check(config: CardConfig, cards: int, engine: str, values: bool = True) -> None:
    """Raises the `ValueError` with which `open` would refuse these, and builds nothing."""
    from halfdome.sim.platform import check as check_platform

    cards = arguments.integer("cards", cards, 1, MOST_CARDS)
    check_platform(config, cards=cards, engine=engine, values=values)
    if config.counters < (needed := config.cores * len(Engine) + cards):
        raise ConfigError(
            f"counters={config.counters}: every engine and every card of a platform needs one, "
            f"{cards} cards at least {needed}"
        )


def check_options(options: Mapping[str, object]) -> None:
    """Raises `ValueError` for an option that `open` does not have, but cards, config and engine."""
    from halfdome.sim.platform import Platform

    own = {*signature(open).parameters, *signature(Platform).parameters}
    known = sorted(own - {"cards", "config", "engine", "board", "platform_options"})
    for name in options:
        if name not in known:
            raise ValueError(f"{name}: is no option; there are {', '.join(known)}")


def is_hardware(engine: str) -> bool:
    """Whether the cards of an engine are the RTL, which waveforms need."""
    from halfdome.sim.rtl.cards import HARDWARE

    return engine in HARDWARE


def compile_within(config: CardConfig, seconds: float) -> None:
    """Compiles a card for the engine "native", unless that was done before. Raises `ValueError` if
    it takes more than so many seconds."""
    from halfdome.sim.rtl.cards import compiled_within

    if not compiled_within(config, seconds):
        raise ValueError(f"its card is not compiled within {seconds:g} s")


def check_faults(faults: Sequence[str], cards: int) -> None:
    """Raises the `ValueError` with which `Runtime.inject` would refuse these."""
    from halfdome.sim.platform import Platform

    for text in faults:
        Platform.fault(text).check(cards)


def waves(path: Path, *, card: int, start: int, stop: int, cards: int) -> "Waves":
    """The option `waves` of `open`: a VCD of `card` in the cycles from `start` to before `stop`.

    Raises `ValueError` for a window without cycles and a card that a platform of `cards` lacks.
    """
    from halfdome.sim.platform import Waves, check_card

    chosen = Waves(path, card=card, start=start, stop=stop)
    check_card(card, cards)
    return chosen


@cache
def fingerprint() -> str:
    """Stands for the sources of the card, of what simulates it and of the host: what was measured
    of others is not of them."""
    from halfdome.sim.build.fingerprint import digest, fingerprint

    return digest(fingerprint(), Path(__file__).parent, ".py", ".cpp", ".csv", ".toml")


def fabric_defaults() -> dict[str, int | bool]:
    """What lies between host and cards, field by field, as `open` has it by default."""
    from halfdome.sim.fabric.config import FabricConfig

    return asdict(FabricConfig())


def fabric(**changes: int | bool) -> "FabricConfig":
    """The option `fabric` of `open`: the default with some fields changed.

    Raises `ConfigError` for a value out of bounds, and `TypeError` for an unknown field.
    """
    from halfdome.sim.fabric.config import FabricConfig

    return FabricConfig(**changes)


def cache_summary() -> dict[str, object]:
    """The cache of compiled models: path, entries, models, bytes and the bound on them."""
    from halfdome.sim.platform import cache_summary

    return cache_summary()


def open(
    cards: int = 6,
    config: str | CardConfig = "default",
    engine: str = "native",
    patience_cycles: int = WAIT_CYCLES,
    board: str | None = None,
    **platform_options: object,
) -> Runtime:
    """Opens a platform, or a board.

    Parameters
    ----------
    cards : int, 1 to 12
    config : name of a preset, or a `CardConfig`
    engine : "native" (compiled) or "pysim" (Amaranth's simulator); both give the same cycles.
        "timing" simulates no hardware, see docs/timing.md
    patience_cycles : int, how long to wait for a card that does nothing, see `Device`
    board : serial port of a board with a pico, which is one card of its own configuration; nothing
        is simulated then
    platform_options : passed to `halfdome.sim.platform.Platform`; of a board, to
        `halfdome.host.driver.pico.Board`

    Raises `CardError` if there is no board at that port, `ConfigError` for an unknown preset or too
    few timeline counters for the cards, and `ValueError` for an unknown engine, a number of cards
    that the platform does not hold, and an option that there is not.
    """
    # Imported here: a model can be trained or a configuration checked without a simulator.
    from halfdome.sim.golden.operators import Reference

    patience = arguments.integer("patience_cycles", patience_cycles, 1)
    if board is not None:
        device = Board(board, **platform_options)
        return _opened(device, device.config, BOARD, Reference(device.config), patience)
    from halfdome.sim.platform import Platform

    design = preset(config) if isinstance(config, str) else config
    if not isinstance(design, CardConfig):
        raise ConfigError(f"config={config!r}: must be the name of a preset or a CardConfig")
    check(design, cards, engine)
    check_options(platform_options)
    platform = Platform(design, cards=int(cards), engine=engine, **platform_options)
    return _opened(platform, design, engine, Reference(design), patience)


def _opened(
    platform: "Platform | Board", config: CardConfig, engine: str, reference: "Reference",
    patience_cycles: int,
) -> Runtime:  # fmt: skip
    """A runtime, or a closed platform."""
    try:
        return Runtime(platform, config, engine, reference, patience_cycles)
    except BaseException:
        platform.close()
        raise
