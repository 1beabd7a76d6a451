"""A Halfdome card as the runtime uses it: descriptors, rings and timeline counters."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, NO_COUNTER, offset
from halfdome.host.driver import kernels
from halfdome.host.driver.accelerator import CardState, Code, Issue, Place
from halfdome.host.driver.device import Device
from halfdome.host.driver.errors import CardError, DataLost
from halfdome.host.driver.layout import round_up
from halfdome.host.driver.memory import Allocator, Block, CardFull, of_core
from halfdome.host.driver.session import Session
from halfdome.host.driver.timeline import COUNTER_MASK, Event, Timeline, peer_counter

STAGING_BYTES = 1 << 20
"""Largest piece of an upload: bounds the host memory it needs."""
DOWNLOADS = 4
"""How often a result is stored in host memory at most."""

_WAIT_COUNTER, _SIGNAL_COUNTER, _WAIT_VALUE, _SIGNAL_VALUE = (
    offset(Opcode.LOAD, name)  # the header is the same in every command
    for name in ("wait_counter", "signal_counter", "wait_value", "signal_value")
)
_SECOND_COUNTER, _SECOND_VALUE = (
    offset(Opcode.LOAD, name) - DESCRIPTOR_BYTES
    for name in ("second_wait_counter", "second_wait_value")
)
_SIGNAL_ADDRESS, _SIGNAL_PAYLOAD = (offset(Opcode.SIGNAL, name) for name in ("address", "value"))


RUNS = 1024
"""Most ways to run a part, which commands for which slots, that are remembered."""


class _Patches(NamedTuple):
    """Little-endian fields of a width, in each slot of a program: what a number is added to."""

    places: np.ndarray
    """int64[n, width], where their bytes are among those of a slot."""
    bases: np.ndarray
    """uint64[slots, n], what they hold without."""
    numbers: np.ndarray
    """int64[n], which number is added."""

    def write(self, slots: np.ndarray, slot: int, numbers: np.ndarray) -> None:
        """Writes fields of slots[:, rows, 64], numbers added."""
        total = self.bases[slot] + numbers[self.numbers].astype(np.uint64)
        raw = total.astype("<u8").view(np.uint8).reshape(-1, 8)
        slots[slot].reshape(-1)[self.places] = raw[:, : self.places.shape[1]]


def _patches(
    slots: np.ndarray, row: np.ndarray, byte: np.ndarray, width: np.ndarray, numbers: np.ndarray
) -> list[_Patches]:
    """Of fields of slots[:, rows, 64], each `width` bytes long, those of every width."""
    found = []
    for size in np.unique(width):
        chosen = width == size
        start = row[chosen] * DESCRIPTOR_BYTES + byte[chosen]
        places = start[:, None] + np.arange(size)
        raw = np.zeros((len(slots), len(places), 8), np.uint8)
        raw[:, :, :size] = slots.reshape(len(slots), -1)[:, places]
        found.append(_Patches(places, raw.view("<u8")[:, :, 0], numbers[chosen]))
    return found


class _Run(NamedTuple):
    """Commands, each for a slot, as they go to a ring."""

    rows: np.ndarray
    """int64[n], their descriptors among those of all slots."""
    sizes: np.ndarray
    """int64[commands], how many each has."""
    firsts: np.ndarray
    """int64[commands], where each begins."""
    extended: np.ndarray
    """int64[n], the commands that have a second descriptor."""
    telling: np.ndarray
    """int64[n], the commands that tell a peer."""


class InstalledPart:
    """The descriptors of a part, patched for each slot."""

    def __init__(self, code: Code, place: Place, index: int):
        own = code.own
        self.sizes = own["sizes"].astype(np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        slots = np.repeat(own["descriptors"][None], len(place.addresses), axis=0)
        row, byte, width, segment, remote = own["addresses"].T
        bases = np.where(remote, place.bus_addresses[:, segment], place.addresses[:, segment])
        for patches in _patches(slots, row, byte, width, np.arange(len(row))):
            for slot in range(len(slots)):
                patches.write(slots, slot, bases[slot])
        counters = np.where(code.waits >= 0, place.counters[code.waits], NO_COUNTER)
        slots[:, self.starts, _WAIT_COUNTER] = counters[:, 0]
        extended = self.sizes > 1
        slots[:, self.starts[extended] + 1, _SECOND_COUNTER] = counters[extended, 1]
        slots[:, self.starts, _SIGNAL_COUNTER] = code.queue
        self._telling = code.peer >= 0
        devices: list[Device] = [place.peers[peer].device for peer in code.peer[self._telling]]  # type: ignore[attr-defined]
        addresses = [
            device.counter_address(peer_counter(device.config, index)) for device in devices
        ]
        for rows in slots:
            _set(rows, self.starts[self._telling], _SIGNAL_ADDRESS, np.array(addresses, "<u8"))
        self._patches = _patches(slots, *own["symbols"].T)
        self._slots = slots
        self._run = lru_cache(RUNS)(self._make_run)

    def set_symbols(self, slot: int, symbols: np.ndarray) -> None:
        """Adds the numbers of a request to the fields that have one."""
        for patches in self._patches:
            patches.write(self._slots, slot, symbols)

    def run(self, commands: np.ndarray, slots: np.ndarray) -> tuple[_Run, np.ndarray]:
        """Commands, each for a slot, and a copy of their descriptors, uint8[n, 64]."""
        run = self._run(commands.tobytes(), slots.tobytes())
        return run, self._slots.reshape(-1, DESCRIPTOR_BYTES)[run.rows]

    def _make_run(self, raw_commands: bytes, raw_slots: bytes) -> _Run:
        commands, slots = (np.frombuffer(raw, np.int64) for raw in (raw_commands, raw_slots))
        sizes = self.sizes[commands]
        firsts = np.cumsum(sizes) - sizes
        within = np.repeat(self.starts[commands] - firsts, sizes) + np.arange(int(sizes.sum()))
        rows = np.repeat(slots, sizes) * self._slots.shape[1] + within
        (extended,), (telling,) = np.nonzero(sizes > 1), np.nonzero(self._telling[commands])
        return _Run(rows, sizes, firsts, extended, telling)


def _set(rows: np.ndarray, which: np.ndarray, byte: int, values: np.ndarray) -> None:
    """Writes little-endian numbers into a field of some descriptors, as many bytes as they have."""
    end = byte + values.itemsize
    rows[which, byte:end] = values.view(np.uint8).reshape(len(which), values.itemsize)


def _counts(values: np.ndarray) -> np.ndarray:
    """What counters hold of these numbers."""
    return (values & COUNTER_MASK).astype("<u4")


class HalfdomeAccelerator:
    """One card behind its driver.

    Parameters
    ----------
    device : Device
    session : Session of the platform
    backdoor : function that returns the card's DRAM as a uint8 array, where the platform has one
    """

    target = "halfdome"
    shared = "dram"

    def __init__(
        self, device: Device, session: Session, backdoor: Callable[[], np.ndarray] | None = None
    ):
        config: CardConfig = device.config
        self.device = device
        self.session = session
        self.config = config
        self.index = device.index
        self.design = config.hash
        self.timeline = Timeline(device)
        self.issued, self.told = self.timeline.issued, self.timeline.told
        self.memories = {
            name: Allocator(
                f"card {self.index} {name}", config.scratchpad_address(core),
                config.scratchpad_bytes, config.line_bytes,
            )
            for core in range(config.cores)
            for name in [of_core("scratchpad", core)]
        }  # fmt: skip
        dram = Allocator(f"card {self.index} DRAM", 0, config.dram_bytes, config.line_bytes)
        self.memories[self.shared] = dram
        self.backdoor = backdoor

    @property
    def alarms(self) -> int:
        """See `Device.alarms`."""
        return self.device.alarms

    @property
    def traced(self) -> bool:
        """Whether a history of commands is kept."""
        return self.device.history is not None

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be submitted or to complete."""
        return self.device.rings.idle and not self.strayed

    @property
    def strayed(self) -> bool:
        """Whether it has completed what it was not told to do."""
        return bool(self.device.rings.stray)

    @property
    def answers(self) -> bool:
        """Whether its registers can be read now."""
        return self.device.state() is not CardState.SILENT

    # Memory

    def place(self, nbytes: int) -> Block:
        """A block in the scratchpad, or in DRAM if it does not fit there."""
        try:
            return self.memories["scratchpad"].allocate(nbytes)
        except CardFull:
            return self.memories["dram"].allocate(nbytes)

    def release(self, block: Block) -> None:
        """Gives a block back to the memory it came from."""
        self.memories["dram" if self.in_dram(block) else "scratchpad"].release(block)

    def owns(self, block: Block) -> bool:
        """Whether a block was given out here and not released."""
        return any(memory.owns(block) for memory in self.memories.values())

    def reclaim(self, block: Block) -> None:
        """Gives a block back unless that was done before."""
        if self.owns(block):
            self.release(block)

    def in_dram(self, block: Block) -> bool:
        """Whether a block lies in DRAM."""
        return block.address < self.config.scratchpad_base

    def bus_address(self, block: Block) -> int:
        """Where the card's window shows a block."""
        return self.device.bar2 + block.address

    def upload(self, block: Block, values: np.ndarray) -> None:
        """Copies uint8[n] into card memory over PCIe and waits."""
        staging = self.session.map(min(len(values), STAGING_BYTES))
        for start in range(0, len(values), STAGING_BYTES):
            piece = values[start : start + STAGING_BYTES]
            staging.array[: len(piece)] = piece
            self.move(
                Opcode.LOAD, staging.address, block.address + start, len(piece),
                core=self._core_of(block),
            )  # fmt: skip
            self.check()
        self.session.unmap(staging)

    def download(self, block: Block, nbytes: int, *after: Event) -> np.ndarray:
        """Brings a block's first bytes home after some events, as uint8[nbytes], and waits for
        everything issued, raising what failed first.

        Once more if there was an alarm: a write may have been refused. Raises `DataLost` if there
        is one each time.
        """
        landing = self.session.map(nbytes)
        for _ in range(DOWNLOADS):
            alarms = self.alarms
            self.move(Opcode.STORE, block.address, landing.address, nbytes, *after)
            self.check()
            if self.alarms == alarms:
                values = landing.array[:nbytes].copy()
                self.session.unmap(landing)
                return values
        raise DataLost(f"card {self.index}: its writes are refused, the result did not arrive")

    def load(self, copies: Sequence[tuple[int, Block, int]]) -> Event:
        """Prepares LOADs; the event that all are done."""
        for address, block, nbytes in copies:
            self.move(Opcode.LOAD, address, block.address, nbytes)
        return self.timeline.issue(Opcode.FENCE_LOAD)

    def pass_on(
        self, peer: "HalfdomeAccelerator", copies: Sequence[tuple[Block, Block, int]],
        after: Event,
    ) -> Event:  # fmt: skip
        """Prepares STOREs into a peer's window and a SIGNAL behind them."""
        for source, target, nbytes in copies:
            self.move(Opcode.STORE, source.address, peer.bus_address(target), nbytes, after)
        arrived = self.timeline.notify(peer.device)
        # Else nobody would know when the last bytes have arrived.
        peer.timeline.issue(Opcode.FENCE_STORE, after=(arrived,))
        return arrived

    def flush(self) -> Sequence[int]:
        """Submits what was issued with one doorbell."""
        return self.timeline.flush()

    def move(
        self, opcode: Opcode, source: int, target: int, nbytes: int, *after: Event, core: int = 0
    ) -> Event:
        """Issues a LOAD or STORE of bytes in one piece, of a core."""
        stride = round_up(nbytes, self.config.bus_bytes)
        work = kernels.move(opcode, source, stride, target, stride, 1, nbytes)
        return self.timeline.issue(opcode, after=after, core=core, **work.fields)

    def _core_of(self, block: Block) -> int:
        """A core that reaches a block."""
        if self.in_dram(block):
            return 0
        return (block.address - self.config.scratchpad_base) // self.config.scratchpad_bytes

    def check(self) -> np.ndarray:
        """Submits what was issued and waits for it; the completions."""
        return self.device.check(self.timeline.flush())

    def announce(self, block: Block) -> None:
        """Tells the card that DRAM in a block was changed behind its back, for its hot-row cache.

        Writes the first bytes of the block through the window, as they are.
        """
        if self.config.gather_cache_bytes and self.backdoor:
            first = self.backdoor()[block.address : block.address + 4].tobytes()
            self.device.bus.write(self.bus_address(block), first)

    # Programs

    def install(self, code: Code, place: Place) -> InstalledPart:
        """Patches the descriptors of a part with where everything lies."""
        return InstalledPart(code, place, self.index)

    def submit(self, installed: InstalledPart, issue: Issue, as_list: bool) -> Sequence[int]:
        """Copies descriptors to the ring with the values that they wait for and signal."""
        run, rows = installed.run(issue.commands, issue.slots)
        sizes, firsts, extended, telling = run.sizes, run.firsts, run.extended, run.telling
        _set(rows, firsts, _WAIT_VALUE, _counts(issue.waits[:, 0]))
        _set(rows, firsts, _SIGNAL_VALUE, _counts(issue.signals))
        _set(rows, firsts[telling], _SIGNAL_PAYLOAD, _counts(issue.notices[telling]))
        _set(rows, firsts[extended] + 1, _SECOND_VALUE, _counts(issue.waits[extended, 1]))
        first = self.device.rings.submitted
        if as_list:
            return self.device.submit(rows, issue.labels, sizes)
        for command, (start, size) in enumerate(zip(firsts, sizes, strict=True)):
            labels = issue.labels[command : command + 1]
            self.device.submit(rows[start : start + size], labels, sizes[command : command + 1])
        return range(first, self.device.rings.submitted)

    def wait(self, tickets: Iterable[int]) -> np.ndarray:
        """See `Device.check`."""
        return self.device.check(tickets)

    def done(self, tickets: np.ndarray) -> bool:
        """See `Accelerator.done`."""
        self.device.poll()
        return self.device.rings.done(tickets) or self.device.rings.lost(tickets)

    def sleep(self) -> None:
        """See `Device.sleep`."""
        self.device.sleep()

    def set_priority(self, cores: Sequence[int], priority: int) -> None:
        """See `Device.set_priority`."""
        for core in cores:
            self.device.set_priority(core, priority)

    # Health

    def state(self) -> CardState:
        """The card's state; a link that has gone down may come back soon."""
        device = self.device
        start = device.clock()
        while (state := device.state()) is CardState.SILENT:
            if device.clock() - start >= device.patience_cycles:
                break
            device.bus.wait(device.patience_cycles // 16)
        return state

    def drop(self) -> None:
        """Forgets what was issued and not submitted."""
        self.timeline.drop()

    def catch_up(self, peers: Sequence["HalfdomeAccelerator"]) -> None:
        """See `Timeline.catch_up`."""
        self.timeline.catch_up([peer.timeline for peer in peers])

    def drain(self) -> bool:
        """See `Device.drain`."""
        return self.device.drain()

    def restart(self, peers: Sequence["HalfdomeAccelerator"]) -> bool:
        """Resets the cores that have stopped, or the card if that does not bring it to rest, and
        sets counters to what they would have reached."""
        try:
            if not self._restart_cores(peers):
                self.device.reset()
                self.timeline.restore([peer.timeline for peer in peers])
        except (CardError, TimeoutError):
            return False
        return True

    def _restart_cores(self, peers: Sequence["HalfdomeAccelerator"]) -> bool:
        """Whether some cores had stopped, and all others end once those are reset."""
        stopped = self.device.stopped_cores()
        if not 0 < len(stopped) < self.config.cores:
            return False
        for core in stopped:
            self.device.reset_core(core)
            self.timeline.restore_core(core)
        self.catch_up(peers)
        return self.drain()

    def give_up(self) -> None:
        """See `Device.give_up`."""
        self.device.give_up()
