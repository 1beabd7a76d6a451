"""A Halfdome card as the runtime uses it: descriptors, rings and timeline counters."""

from collections.abc import Callable, Iterable, Sequence

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


class InstalledPart:
    """The descriptors of a part, patched for each slot."""

    def __init__(self, code: Code, place: Place, index: int):
        own = code.own
        self.sizes = own["sizes"].astype(np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self._symbols = own["symbols"]
        slots = np.repeat(own["descriptors"][None], len(place.addresses), axis=0)
        row, byte, width, segment, remote = own["addresses"].T
        bases = np.where(remote, place.bus_addresses[:, segment], place.addresses[:, segment])
        _add(slots, row, byte, width, bases)
        counters = np.where(code.waits >= 0, place.counters[code.waits], NO_COUNTER)
        slots[:, self.starts, _WAIT_COUNTER] = counters[:, 0]
        extended = self.sizes > 1
        slots[:, self.starts[extended] + 1, _SECOND_COUNTER] = counters[extended, 1]
        slots[:, self.starts, _SIGNAL_COUNTER] = code.queue
        self.telling = code.peer >= 0
        for command in np.flatnonzero(self.telling):
            peer = place.peers[code.peer[command]]
            device: Device = peer.device  # type: ignore[attr-defined]
            address = device.counter_address(peer_counter(device.config, index))
            _set(slots[:, self.starts[command]], _SIGNAL_ADDRESS, np.uint64(address))
        self._unpatched = slots
        self.slots = slots.copy()

    def set_symbols(self, slot: int, symbols: np.ndarray) -> None:
        """Adds the numbers of a request to the fields that have one."""
        row, byte, width, symbol = self._symbols.T
        self.slots[slot] = self._unpatched[slot]
        _add(self.slots[slot : slot + 1], row, byte, width, symbols[symbol][None])

    def rows(self, commands: np.ndarray) -> np.ndarray:
        """The descriptors of commands, one after the other."""
        sizes = self.sizes[commands]
        ends = np.cumsum(sizes)
        return np.arange(int(sizes.sum())) + np.repeat(
            self.starts[commands] - (ends - sizes), sizes
        )


def _add(
    slots: np.ndarray, row: np.ndarray, byte: np.ndarray, width: np.ndarray, values: np.ndarray
) -> None:
    """Adds values[slots, n] to little-endian fields, each `width` bytes long."""
    for size in np.unique(width):
        chosen = width == size
        places = byte[chosen, None] + np.arange(size)
        rows = row[chosen, None]
        raw = np.zeros((len(slots), int(chosen.sum()), 8), np.uint8)
        raw[:, :, :size] = slots[:, rows, places]
        total = raw.view("<u8")[:, :, 0] + values[:, chosen].astype(np.uint64)
        slots[:, rows, places] = total.astype("<u8")[:, :, None].view(np.uint8)[:, :, :size]


def _set(rows: np.ndarray, byte: int, values: np.ndarray) -> None:
    """Writes unsigned numbers into a field of descriptors, as many bytes as the numbers have."""
    raw = np.asarray(values)
    raw = raw.astype(raw.dtype.newbyteorder("<"))
    rows[..., byte : byte + raw.itemsize] = raw[..., None].view(np.uint8)


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
        sizes = installed.sizes[issue.commands]
        rows = installed.slots[np.repeat(issue.slots, sizes), installed.rows(issue.commands)]
        firsts = np.cumsum(sizes) - sizes
        heads = rows[firsts]
        _set(heads, _WAIT_VALUE, (issue.waits[:, 0] & COUNTER_MASK).astype(np.uint32))
        _set(heads, _SIGNAL_VALUE, (issue.signals & COUNTER_MASK).astype(np.uint32))
        telling = installed.telling[issue.commands]
        notices = heads[telling]
        _set(notices, _SIGNAL_PAYLOAD, (issue.notices[telling] & COUNTER_MASK).astype(np.uint32))
        heads[telling] = notices
        rows[firsts] = heads
        extended = sizes > 1
        extensions = rows[firsts[extended] + 1]
        seconds = (issue.waits[extended, 1] & COUNTER_MASK).astype(np.uint32)
        _set(extensions, _SECOND_VALUE, seconds)
        rows[firsts[extended] + 1] = extensions
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
