"""Random descriptors for whole cards: good, nearly good, and with operands on each other."""

import random

import numpy as np

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import EXTENSION, NO_COUNTER, fields, pack
from tests.hdl.command.descriptors import noise, towards_an_edge
from tests.system.programs import KINDS, SLOT, Task

HOST_BYTES = 1 << 16
"""Host memory that good transfers and signals reach."""

_STRIDES = {"table": "row_stride"}
_ADDRESSES = ("source", "destination", "table", "indices", "lengths", "weights", "output", "x", "w",
              "params", "y", "a", "b")  # fmt: skip


def _place(rng: random.Random, config: CardConfig) -> int:
    """A word of DRAM or of the scratchpad with a slot behind it."""
    room, start = rng.choice(
        [(config.dram_bytes, 0), (config.scratchpad_bytes, config.scratchpad_base)]
    )
    word = config.bus_bytes
    return start + rng.randrange((room - SLOT) // word + 1) * word


def _transfer(rng: random.Random, config: CardConfig, host: int) -> Task:
    """A LOAD, a STORE, a SIGNAL or a fence."""
    opcode = rng.choice(
        [Opcode.LOAD, Opcode.STORE, Opcode.SIGNAL, Opcode(rng.randrange(5) << 4 | 15)]
    )
    if opcode is Opcode.SIGNAL:
        address = host + rng.randrange(HOST_BYTES // 4) * 4
        return Task(opcode, {"address": address, "value": rng.getrandbits(32)})
    if opcode.is_fence:
        return Task(opcode, {})
    word = config.bus_bytes
    rows, row_bytes = rng.randint(1, 9), rng.randint(1, 200)
    least = -(-row_bytes // word)
    values = {"rows": rows, "row_bytes": row_bytes}
    for side in ("source", "destination"):
        values[f"{side}_stride"] = word * (least + rng.choice([0, 0, rng.randrange(4)]))
        values[side] = _place(rng, config)
    values["source" if opcode is Opcode.LOAD else "destination"] = (
        host + rng.randrange((HOST_BYTES - SLOT) // word) * word
    )
    return Task(opcode, values)


def _overlap(rng: random.Random, config: CardConfig, task: Task) -> None:
    """Moves one operand to where another is, or near; perhaps in step with it."""
    values = task.fields
    names = [name for name in _ADDRESSES if name in values]
    if len(names) < 2:
        return
    moved, fixed = rng.sample(names, 2)
    step = rng.choice([0, 1, config.bus_bytes, config.bus_bytes, rng.randint(1, 256)])
    values[moved] = max(0, values[fixed] + rng.randint(-6, 6) * step)
    strides = [_STRIDES.get(name, f"{name}_stride") for name in (moved, fixed)]
    if rng.random() < 0.4 and all(stride in values for stride in strides):
        common = max(values[stride] for stride in strides) * rng.choice([1, 1, 2])
        values |= dict.fromkeys(strides, common)


_SIZES = ("rows", "bags", "batches", "m", "k", "n", "dim", "columns", "row_bytes")


def _shrink(rng: random.Random, task: Task) -> None:
    """Leaves one of some of the things of which there may be many."""
    for name in _SIZES:
        if name in task.fields and rng.random() < 0.5:
            task.fields[name] = 1
    if "m" in task.fields and rng.random() < 0.5:
        task.fields["m"] = task.fields["n"]


def _grow(rng: random.Random, config: CardConfig, task: Task) -> None:
    """Makes more of one or two of them, with rows as far apart as need be."""
    names = [name for name in _SIZES if name in task.fields]
    for name in rng.sample(names, min(len(names), rng.choice([1, 2]))):
        task.fields[name] = rng.randint(1, 150)
    for name in task.fields:
        if name.endswith("_stride"):
            task.fields[name] = config.bus_bytes * rng.randint(8, 40)


def _restride(rng: random.Random, config: CardConfig, task: Task) -> None:
    """Rows, or whole matrices, nearer to each other or further apart."""
    strides = [name for name in task.fields if name.endswith("_stride")]
    if strides:
        task.fields[rng.choice(strides)] = rng.randint(0, 9) * rng.choice([1, config.bus_bytes])


def _damage(rng: random.Random, config: CardConfig, task: Task) -> None:
    for field in rng.sample(fields(task.opcode)[1:], rng.choice((1, 1, 2))):
        before = task.fields.get(field.name, 0)
        task.fields[field.name] = towards_an_edge(rng, config, field.bits, before)


def draw(rng: random.Random, config: CardConfig, host: int) -> tuple[bytes, list]:
    """A descriptor, and `(card address, bytes)` to place beforehand; host memory is at `host`."""
    if rng.random() < 0.05:
        return noise(rng), []
    if rng.random() < 0.2:
        task = _transfer(rng, config, host)
    else:
        values = np.random.default_rng(rng.getrandbits(32))
        task = rng.choice(KINDS)(values, config, _place(rng, config), _place(rng, config))
    if rng.random() < 0.2:
        _shrink(rng, task)
    if rng.random() < 0.15:
        _grow(rng, config, task)
    if rng.random() < 0.15:
        _restride(rng, config, task)
    if rng.random() < 0.5:
        _overlap(rng, config, task)
    if rng.random() < 0.25:
        _damage(rng, config, task)
    widths = {field.name: field.bits for field in fields(task.opcode)}
    values = {name: int(v) & (1 << widths[name]) - 1 for name, v in task.fields.items()}
    if rng.random() < 0.2:
        values |= {"second_wait_counter": NO_COUNTER, "extension": 1}
        for field in EXTENSION:
            if rng.random() < 0.2:
                values[field.name] = rng.choice([0, 1, rng.getrandbits(field.bits)])
    return pack(task.opcode, **values), task.contents
