"""Descriptors for tests: a good body of every command (for `tiny`), and strategies around them."""

import random

from halfdome.hdl.commands import ElementFormat, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import EXTENSION, fields, offset, pack

TINY = PRESETS["tiny"]
_PAD = TINY.scratchpad_address(0)
_MOVE = {"rows": 3, "row_bytes": 47, "source_stride": 48, "destination_stride": 64}

_UNARY = {
    "y": _PAD, "a": 0x5000, "rows": 3, "columns": 11, "y_stride": 32, "a_stride": 48,
    "multiplier": 0x3F80_0000, "y_zero_point": 128, "a_zero_point": 5, "y_format": 2,
    "a_format": 3, "function": 4,
}  # fmt: skip
_WINDOWED = {
    "height": 5, "width": 4, "k": 11, "out_height": 3, "out_width": 2, "x_stride": 16,
    "y_stride": 32, "kernel_height": 3, "kernel_width": 2, "stride_height": 2, "stride_width": 3,
    "pad_top": 1, "pad_left": 1, "dilation_height": 1, "dilation_width": 2,
}  # fmt: skip
_LOOKUP = {
    "y": _PAD, "a": 0x5000, "rows": 3, "columns": 11, "y_stride": 32, "a_stride": 48,
    "table": 0x7000,
}  # fmt: skip
_SECOND = {"b": 0x6000, "b_stride": 16, "b_zero_point": 7, "b_format": 1}

_PAIR = {
    "y": _PAD, "a": 0x5000, "rows": 3, "columns": 11, "y_stride": 32, "a_stride": 48, "b": 0x6000,
    "b_stride": 16, "y_format": 0, "a_format": 1, "b_format": 0,
}  # fmt: skip

GOOD: dict[Opcode, dict[str, int]] = {
    Opcode.LOAD: _MOVE | {"source": 1 << 45, "destination": _PAD},
    Opcode.COPY: _MOVE | {"source": 0x400, "destination": _PAD + 0x100},
    Opcode.TRANSPOSE: {
        "source": 0x400, "destination": _PAD + 0x100, "rows": 9, "columns": 5, "batches": 3,
        "source_stride": 32, "destination_stride": 48, "source_batch_stride": 0x120,
        "destination_batch_stride": 0x100, "element_bytes": 4,
    },
    Opcode.STORE: _MOVE | {"source": _PAD + 0x40, "destination": 1 << 45},
    Opcode.SIGNAL: {"address": (1 << 45) + 4, "value": 77},
    Opcode.GATHER: {
        "table": 0x1003, "indices": 0x2000, "lengths": _PAD, "weights": 0x3000, "output": 0x4000,
        "rows": 10, "index_count": 21, "bags": 5, "row_stride": 40, "dim": 32,
        "output_stride": 128, "format": 0, "output_format": ElementFormat.FLOAT32,
        "multiplier": 0x3F80_0000, "zero_point": 3,
    },
    Opcode.MATMUL: {
        "x": _PAD + 0x100, "w": 0x8000, "params": 0x9000, "y": _PAD + 0x200, "m": 7, "k": 18,
        "n": 9, "x_stride": 32, "y_stride": 16, "y_zero_point": 3, "x_zero_point": 2,
        "w_zero_point": 1, "y_format": 0,
    },
    Opcode.BATCH_MATMUL: {
        "x": 0x6000, "w": 0x7000, "params": 0x7800, "y": _PAD + 0x20, "m": 9, "k": 18, "n": 9,
        "batches": 3, "x_stride": 32, "w_stride": 48, "y_stride": 16, "x_batch_stride": 0x200,
        "w_batch_stride": 0, "y_batch_stride": 0x90, "y_zero_point": 3, "x_zero_point": 2,
        "w_zero_point": 1, "y_format": 1,
    },
    Opcode.CONV2D: {
        "x": 0x6000, "w": 0x8000, "params": 0x7800, "y": _PAD + 0x20, "height": 5, "width": 7,
        "k": 18, "n": 9, "out_height": 3, "out_width": 4, "x_stride": 32, "y_stride": 48,
        "kernel_height": 3, "kernel_width": 2, "stride_height": 2, "stride_width": 1,
        "pad_top": 1, "pad_left": 0, "dilation_height": 1, "dilation_width": 2,
        "y_zero_point": 3, "x_zero_point": 2, "w_zero_point": 1, "y_format": 0,
    },
    Opcode.AFFINE: _UNARY | {"scale": 0x4000_0000, "shift": 0xBF80_0000},
    Opcode.ADD: _UNARY | {"scale": 0xBF80_0000} | _SECOND,
    Opcode.MULTIPLY: _UNARY | {"shift": 0x8000_0000} | _SECOND,
    Opcode.CLAMP: _UNARY | {"low": 0xFF80_0000, "high": 0x40C0_0000},
    Opcode.QUANTISE: {
        "y": _PAD, "a": 0x5000, "rows": 3, "columns": 11, "y_stride": 32, "a_stride": 48,
        "scale": 0x3DCC_CCCD, "y_zero_point": 128, "a_zero_point": 5, "y_format": 1, "a_format": 3,
    },
    Opcode.LOOKUP: _LOOKUP,
    Opcode.ADD_QUANTISED: _PAIR | {
        "a_ratio": 0x3F00_0000, "b_ratio": 0xC2C8_0000, "offset": 0x3A80_0000,
    },
    Opcode.MULTIPLY_QUANTISED: _PAIR | {
        "multiplier": 0x3B80_0000, "y_zero_point": 128, "a_zero_point": 5, "b_zero_point": 7,
    },
    Opcode.POOL: {"y": _PAD, "x": 0x5000, **_WINDOWED},
    Opcode.DEPTHWISE: {
        "y": _PAD, "x": 0x5000, **_WINDOWED, "w": 0x6000, "params": 0x7000, "y_zero_point": 3,
        "x_zero_point": 2, "w_zero_point": 1, "y_format": 1,
    },
    Opcode.AVERAGE: {
        "y": _PAD, "x": 0x5000, **_WINDOWED, "x_scale": 0x3D80_0001, "y_scale": 0x3D00_0000,
        "y_zero_point": 3, "x_zero_point": 2, "y_format": 1,
    },
}  # fmt: skip

_EDGES = (0, 1, 2, 15, 16, 17, 48, 64, 255, 256, 257, 65535, 65536, 2**31, 2**32 - 1)


def towards_an_edge(rng: random.Random, config, bits: int, value: int) -> int:
    """Another value of a field of so many bits, often at an edge of some rule."""
    edges = (
        *_EDGES,
        config.dram_bytes + rng.randint(-40, 4) * 16,
        config.scratchpad_address(config.cores) - rng.randint(-4, 40) * 16,
        config.scratchpad_address(rng.randrange(config.cores)),
        value + rng.randint(-16, 16),
        rng.getrandbits(bits),
    )
    return rng.choice(edges) & ((1 << bits) - 1)


def mutated(rng: random.Random, config=TINY) -> bytes:
    """A good descriptor with a few fields changed, many of them towards an edge of a rule."""
    opcode = rng.choice(list(Opcode))
    values = {"wait_counter": 0xFF, "signal_counter": 0xFF} | GOOD.get(opcode, {})
    table = fields(opcode)[1:]
    if rng.random() < 0.3:
        values |= {"extension": 1, "second_wait_counter": 0xFF}
        table += EXTENSION
    for field in rng.sample(table, rng.choice((0, 1, 1, 1, 2, 3))):
        before = values.get(field.name, 0)
        values[field.name] = towards_an_edge(rng, config, field.bits, before)
    if values.get("extension") != 1:
        for field in EXTENSION:
            values.pop(field.name, None)
    return pack(opcode, **values)


def noise(rng: random.Random) -> bytes:
    """Random bytes, half of them behind an opcode that exists; some with an extension."""
    raw = rng.randbytes(64)
    if rng.random() < 0.5:
        raw = bytes([rng.choice(list(Opcode))]) + raw[1:]
    place = offset(Opcode.LOAD, "extension")
    if rng.random() < 0.3:
        raw = raw[:place] + b"\1" + raw[place + 1 :]
    return raw + rng.randbytes(64) if raw[place] == 1 else raw


def slots(descriptors) -> list[bytes]:
    """Commands as the slots of a ring: 64 bytes each."""
    raw = b"".join(descriptors)
    return [raw[start : start + 64] for start in range(0, len(raw), 64)]
