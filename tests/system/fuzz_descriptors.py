"""Descriptors of every kind on the RTL and on the golden card: good, nearly good, overlapping.

`python -m tests.system.fuzz_descriptors --episodes 5000 --seed 1` runs seeds 1 to 5000 on one
`tiny` card and names those that the two cards see differently: in status, in detail, or in any byte
of card or host memory. An episode is one descriptor; its seed alone decides what it does. With
`--stuck` the card has a second core, whose queues are full of what waits for ever.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

import halfdome
from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS, CardConfig
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, HEADER, fields, pack, unpack, waits
from halfdome.sim.golden.card import GoldenCard
from halfdome.sim.golden.check import check
from tests.system.drawing import HOST_BYTES, draw

CONFIG = PRESETS["tiny"]
STUCK = CONFIG.replace(cores=2)
"""The second core's queues are full of commands that wait for a counter that nobody sets."""
NEVER = {"wait_counter": STUCK.counters - 1, "wait_value": 1}
MOST_STEPS = 20_000
"""Of a command that is run: about as many cycles."""


class HostMemory:
    """What the golden card sees over PCIe: the bytes from `base` on."""

    def __init__(self, base: int):
        self.base = base
        self.array = np.zeros(HOST_BYTES, np.uint8)

    def holds(self, address: int, nbytes: int) -> bool:
        return self.base <= address <= self.base + HOST_BYTES - nbytes

    def read(self, address: int, nbytes: int) -> bytes:
        start = address - self.base
        return self.array[start : start + nbytes].tobytes()

    def write(self, address: int, data: bytes) -> None:
        start = address - self.base
        self.array[start : start + len(data)] = np.frombuffer(data, np.uint8)


def _steps(opcode: Opcode, v: dict[str, int], config: CardConfig) -> int:
    """About the cycles that a good command takes."""
    tiles = -(-v.get("k", 0) // config.array_rows) * -(-v.get("n", 0) // config.array_columns)
    match opcode:
        case Opcode.LOAD | Opcode.STORE | Opcode.COPY:
            return v["rows"] * (8 + v["row_bytes"] // config.bus_bytes)
        case Opcode.TRANSPOSE:
            return v["batches"] * (v["rows"] + 8) * (v["columns"] + 8)
        case Opcode.GATHER:
            return (v["index_count"] + v["bags"]) * (4 + v["dim"] // config.lanes)
        case Opcode.MATMUL:
            return v["m"] * tiles
        case Opcode.BATCH_MATMUL:
            return v["batches"] * v["m"] * tiles
        case Opcode.CONV2D:
            taps = v["kernel_height"] * v["kernel_width"]
            return v["out_height"] * v["out_width"] * taps * tiles
        case Opcode.AFFINE | Opcode.ADD | Opcode.MULTIPLY | Opcode.CLAMP | Opcode.QUANTISE:
            return v["rows"] * (4 + v["columns"] // 4)
        case Opcode.LOOKUP:
            return 64 + v["rows"] * (4 + v["columns"] // config.byte_lanes)
        case Opcode.ADD_QUANTISED | Opcode.MULTIPLY_QUANTISED:
            return v["rows"] * (4 + v["columns"] // config.byte_lanes)
        case Opcode.POOL | Opcode.DEPTHWISE | Opcode.AVERAGE:
            taps = v["kernel_height"] * v["kernel_width"]
            taps = max(2 * taps, 1 if opcode is Opcode.POOL else 8)
            return v["out_height"] * v["out_width"] * taps * -(-v["k"] // config.byte_lanes)
    return 0


class Judge:
    """A real card and a golden one, given the same commands. A context manager."""

    def __init__(self, config: CardConfig = CONFIG):
        self.config = config
        self.seen: Counter[tuple[str, str]] = Counter()
        """(opcode, status) of the episodes run."""
        self.stuck: Sequence[int] = ()
        """Tickets of what waits for ever."""
        self._open()

    def _open(self) -> None:
        self._runtime = halfdome.open(cards=1, config=self.config, engine="native")
        self._bus, self._card = self._runtime.platform.bus, self._runtime.cards[0]
        self._buffer = self._bus.map(HOST_BYTES)
        self._host = HostMemory(self._buffer.address)
        self._golden = GoldenCard(self.config, self._host)
        full = 2 * self.config.queue_depth
        for core in range(1, self.config.cores):
            fences = [opcode for opcode in Opcode if opcode.is_fence]
            raw = [pack(opcode, core=core, **NEVER) for opcode in fences for _ in range(full)]
            self.stuck = self._card.device.submit(raw)

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_) -> None:
        self._runtime.close()

    def _ends(self, descriptor: bytes) -> bool:
        """Whether the command ends soon, and reaches no other memory than is compared."""
        for counter, value in waits(descriptor):
            if counter < self.config.counters and -value % 2**32 >= 2**31:  # every counter is 0
                return False
        signalled = unpack(HEADER, descriptor)["signal_counter"]
        if self.stuck and signalled == NEVER["wait_counter"]:
            return False
        if check(descriptor, self.config)[0] is not Status.OK:
            return True
        opcode = Opcode(descriptor[0])
        v = unpack(fields(opcode), descriptor)
        match opcode:
            case Opcode.LOAD | Opcode.STORE:
                side = "source" if opcode is Opcode.LOAD else "destination"
                extent = (v["rows"] - 1) * v[f"{side}_stride"] + v["row_bytes"]
                if not self._host.holds(v[side], extent):
                    return False
            case Opcode.SIGNAL if not self._host.holds(v["address"], 4):
                return False
        return _steps(opcode, v, self.config) <= MOST_STEPS

    def _prepare(self, seed: int) -> bytes:
        """Fills all memory of both cards; returns the descriptor."""
        rng = random.Random(seed)
        descriptor, contents = draw(rng, self.config, self._host.base)
        while not self._ends(descriptor):
            descriptor, contents = draw(rng, self.config, self._host.base)
        memory, config = self._golden.memory, self.config
        memory[:] = np.frombuffer(rng.randbytes(memory.size), np.uint8)
        for address, values in contents:
            memory[address : address + values.size] = values
        self._host.array[:] = np.frombuffer(rng.randbytes(HOST_BYTES), np.uint8)
        self._buffer.array[:] = self._host.array
        self._runtime.platform.memory(0)[:] = memory[: config.dram_bytes]
        pad = config.scratchpad_base
        self._bus.write(self._card.device.bar2 + pad, memory[pad : self._end].tobytes())
        return descriptor

    @property
    def _end(self) -> int:
        return self.config.scratchpad_address(1)

    def episode(self, seed: int) -> str:
        """Runs the descriptor of a seed on both cards; returns what they see differently."""
        descriptor = self._prepare(seed)
        device = self._card.device
        try:
            sizes = np.array([len(descriptor) // DESCRIPTOR_BYTES])
            [completion] = device.wait(device.submit([descriptor], sizes=sizes))
        except TimeoutError as error:
            self._runtime.close()
            self._open()
            return f"{_told(descriptor)}\n  never ends: {error}"
        status, detail = self._golden.execute(descriptor)
        opcode = "" if status is Status.BAD_OPCODE else Opcode(descriptor[0]).name
        self.seen[opcode, status.name] += 1
        signalled = unpack(HEADER, descriptor)["signal_counter"]
        if signalled < self.config.counters:
            device.set_counter(signalled, 0)
        found = [*self._differences(completion, status, detail)]
        return "\n  ".join([_told(descriptor), *found]) if found else ""

    def is_free(self) -> bool:
        """Whether any of what waits for ever has ended."""
        device = self._card.device
        device.poll()
        return any(device.rings.done(np.array([ticket])) for ticket in self.stuck)

    def _differences(self, completion, status: Status, detail: int) -> Iterator[str]:
        found = completion.status, completion.detail
        if found != (status, detail):
            yield f"ends with {Status(found[0]).name}, {found[1]}; golden: {status.name}, {detail}"
        dram, pad = self.config.dram_bytes, self.config.scratchpad_base
        scratchpad = self._bus.read(self._card.device.bar2 + pad, self._end - pad)
        memories = {
            "DRAM": (self._runtime.platform.memory(0), self._golden.memory[:dram]),
            "scratchpad": (
                np.frombuffer(scratchpad, np.uint8),
                self._golden.memory[pad : self._end],
            ),
            "host memory": (self._buffer.array, self._host.array),
        }
        for name, (real, golden) in memories.items():
            places = np.flatnonzero(real != golden)
            if places.size:
                first = int(places[0])
                yield (
                    f"{name}: {places.size} bytes differ, the first at {first:#x}: "
                    f"{real[first]:#04x}; golden: {golden[first]:#04x}"
                )


def _told(descriptor: bytes) -> str:
    if descriptor[0] not in set(Opcode):
        return descriptor.hex()
    opcode = Opcode(descriptor[0])
    values = unpack(fields(opcode), descriptor)
    told = (f"{name}={value:#x}" for name, value in values.items() if name != "opcode")
    return f"{opcode.name} {' '.join(told)}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first episode")
    parser.add_argument("--stuck", action="store_true", help="beside a core that never goes on")
    options = parser.parse_args()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    failed, started = 0, time.monotonic()
    seeds = range(options.seed, options.seed + options.episodes)
    with Judge(STUCK if options.stuck else CONFIG) as judge:
        for seed in track(seeds, f"episodes from seed {options.seed}", console=console):
            if told := judge.episode(seed):
                failed += 1
                console.print(f"seed {seed}: {told}")
    an_hour = 3600 * options.episodes / (time.monotonic() - started)
    for (opcode, status), count in sorted(judge.seen.items()):
        console.print(f"{count:6} {opcode:14} {status}")
    console.print(
        f"{options.episodes} episodes from seed {options.seed}, {an_hour:.0f} an hour: "
        f"{failed} seen differently"
    )
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
