"""Bad input: a clear error, and nothing else: the next good command still has the right bits."""

from contextlib import contextmanager

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import ConfigError, preset
from halfdome.hdl.descriptors import pack
from halfdome.host.driver.device import Device
from halfdome.host.driver.memory import Block
from halfdome.host.graph.fused_rows import fuse_8bit
from halfdome.sim.platform import Platform
from tests.system import programs

TINY = preset("tiny")
ROWS = 20
TABLE = fuse_8bit(np.random.default_rng(0).normal(size=(ROWS, 12)).astype(np.float32))
INDICES = np.array([3, 0, 19, 7, 7], np.int32)
OFFSETS = np.array([0, 2, 2], np.int32)
X = np.arange(30, dtype=np.uint8).reshape(5, 6)
WEIGHT = np.arange(-12, 12, dtype=np.int8).reshape(4, 6)


def answers(card):
    """What good calls give, as bytes; the reference has the methods of a card."""
    pooled = card.embedding_bag(TABLE, INDICES, OFFSETS)
    return pooled.tobytes(), card.linear(X, WEIGHT, 0.1, y_zero_point=7).tobytes()


@pytest.fixture(scope="module")
def expected(runtime):
    """The golden functions' answers to the same."""
    return answers(runtime.reference)


@pytest.fixture
def rejected(card, expected):
    """`with rejected(kind, message)`: raises so, gives memory back, and the card goes on."""

    @contextmanager
    def check(kind, message):
        free = card.dram.free_bytes, card.scratchpad.free_bytes
        with pytest.raises(kind, match=message) as caught:
            yield caught
        assert (card.dram.free_bytes, card.scratchpad.free_bytes) == free
        assert answers(card) == expected

    return check


@pytest.mark.parametrize("index", [ROWS, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("position", [0, 4])
def test_an_index_outside_the_table(card, rejected, index, position):
    indices = INDICES.copy()
    indices[position] = index
    message = f"card 0: GATHER failed with BAD_INDEX: the index at position {position} is outside"
    with rejected(halfdome.CommandError, message) as caught:
        card.embedding_bag(TABLE, indices, OFFSETS)
    error = caught.value
    assert (error.status, error.detail, error.card) == (Status.BAD_INDEX, position, 0)


def raw(card, kind, lengths=None, **changes):
    """Runs one command of a program, operands at the start of DRAM, where all is free."""
    task = kind(np.random.default_rng(1), TINY, 0, programs.SLOT, **changes)
    for address, values in task.contents:
        if lengths is not None and address == task.fields["lengths"]:
            values = np.asarray(lengths, np.int32).view(np.uint8)
        card.accelerator.upload(Block(address, values.size), values)
    card.device.check(card.device.submit([task.descriptor]))


def test_a_negative_length(card, rejected):
    with rejected(halfdome.CommandError, "BAD_LENGTH: bag 1 has a negative length") as caught:
        raw(card, programs.gather, lengths=[2, -1, 2], bags=3, index_count=3, flags=0)
    assert (caught.value.status, caught.value.detail) == (Status.BAD_LENGTH, 1)


@pytest.mark.parametrize(("lengths", "bag"), [([1, 3, 1], 1), ([1, 1, 0], 3), ([9, 0, 0], 0)])
def test_lengths_that_do_not_sum_to_the_index_count(card, rejected, lengths, bag):
    message = f"LENGTH_MISMATCH: the lengths do not sum to index_count, seen at bag {bag}"
    with rejected(halfdome.CommandError, message) as caught:
        raw(card, programs.gather, lengths=lengths, bags=3, index_count=3, flags=0)
    assert caught.value.status is Status.LENGTH_MISMATCH


@pytest.mark.parametrize(
    ("kind", "changes", "status", "message"),
    [
        (programs.gather, {"table": TINY.dram_bytes - 8}, Status.BAD_RANGE, "table=0xffff8"),
        (programs.gather, {"rows": 1 << 31}, Status.BAD_RANGE, "table=0x0: the operand leaves"),
        (programs.matmul, {"w": TINY.dram_bytes - 16}, Status.BAD_RANGE, "w=0xffff0"),
        (programs.matmul, {"y": 1 << 39}, Status.BAD_RANGE, "y=0x8000000000"),
        (programs.copy, {"destination": TINY.dram_bytes - 16}, Status.BAD_RANGE, "destination="),
        (programs.gather, {"indices": 8}, Status.BAD_ALIGNMENT, "indices=0x8: not a multiple"),
        (programs.matmul, {"x": 8}, Status.BAD_ALIGNMENT, "x=0x8: not a multiple of the bus word"),
        (programs.vector, {"a": 4}, Status.BAD_ALIGNMENT, "a=0x4"),
        (programs.gather, {"bags": 0}, Status.BAD_DIMENSION, "bags=0x0: zero"),
        (programs.gather, {"dim": 0}, Status.BAD_DIMENSION, "dim=0x0: zero"),
        (programs.matmul, {"k": 0}, Status.BAD_DIMENSION, "k=0x0: zero"),
        (programs.copy, {"row_bytes": 0}, Status.BAD_DIMENSION, "row_bytes=0x0: zero"),
        (programs.lookup, {"columns": 0}, Status.BAD_DIMENSION, "columns=0x0: zero"),
        (programs.lookup, {"table": 8}, Status.BAD_ALIGNMENT, "table=0x8: not a multiple"),
        (programs.lookup, {"table": TINY.dram_bytes - 240}, Status.BAD_RANGE, "table=0xfff10"),
        (programs.lookup, {"flags": 1}, Status.BAD_FORMAT, "flags=0x1"),
        (
            programs.lookup,
            {"y": 0, "rows": 1},
            Status.BAD_OVERLAP,
            "table=0x0: the output overlaps the operand",
        ),
        (programs.pair, {"a_ratio": 0x7FC0_0000}, Status.BAD_FORMAT, "a_ratio=0x7fc00000: must be"),
        (programs.pair, {"offset": 0x4800_0000}, Status.BAD_FORMAT, "offset=0x48000000: must be"),
        (programs.pair, {"multiplier": 0}, Status.BAD_FORMAT, r"from 2\^-16 to below 2\^2"),
        (programs.pair, {"b_format": 3}, Status.BAD_FORMAT, "b_format=0x3: no such"),
        (
            programs.pair,
            {"y": 2048, "b_stride": 0, "flags": 0, "rows": 2},
            Status.BAD_OVERLAP,
            "b=0x800: the output overlaps the operand",
        ),
        (programs.pool, {"k": 0}, Status.BAD_DIMENSION, "k=0x0: zero"),
        (programs.pool, {"pad_left": 255}, Status.BAD_DIMENSION, "pad_left=0xff"),
        (programs.pool, {"out_height": 65535}, Status.BAD_DIMENSION, "out_height=0xffff"),
        (programs.pool, {"x": 8}, Status.BAD_ALIGNMENT, "x=0x8: not a multiple"),
        (programs.pool, {"y": 0}, Status.BAD_OVERLAP, "x=0x0: the output overlaps the operand"),
        (programs.transpose, {"batches": 0}, Status.BAD_DIMENSION, "batches=0x0: zero"),
        (programs.transpose, {"element_bytes": 3}, Status.BAD_FORMAT, "element_bytes=0x3"),
        (programs.transpose, {"destination": 4}, Status.BAD_ALIGNMENT, "destination=0x4"),
        (programs.transpose, {"destination": 0}, Status.BAD_OVERLAP, "source=0x0: the output"),
        (programs.vector, {"rows": 0}, Status.BAD_DIMENSION, "rows=0x0: zero"),
        (programs.gather, {"dim": TINY.max_dim + 1}, Status.BAD_DIMENSION, "dim=0x101"),
        (programs.gather, {"format": 7}, Status.BAD_FORMAT, "format=0x7: no such"),
        (programs.vector, {"multiplier": 0x7F80_0000}, Status.BAD_FORMAT, "multiplier="),
        (programs.vector, {"multiplier": 0x8000_0000}, Status.BAD_FORMAT, "must be finite and not"),
        (
            programs.vector,
            {"flags": 0, "b_stride": 0, "b": programs.SLOT},
            Status.BAD_OVERLAP,
            "b=0x1000: the output overlaps the operand",
        ),
        (programs.matmul, {"core": 1}, Status.BAD_CORE, "core=0x1: not the core of the ring"),
        (programs.copy, {"wait_counter": TINY.counters}, Status.BAD_COUNTER, "wait_counter=0x10"),
    ],
)
def test_a_descriptor_that_breaks_a_rule(card, rejected, kind, changes, status, message):
    with rejected(halfdome.CommandError, message) as caught:
        raw(card, kind, **changes)
    assert caught.value.status is status


@pytest.mark.parametrize("opcode", [0x00, 0x04, 0x2E, 0x50, 0xFF])
def test_an_unknown_opcode(card, rejected, opcode):
    descriptor = bytes([opcode]) + pack(Opcode.FENCE_LOAD)[1:]
    with rejected(
        halfdome.CommandError, f"card 0: opcode {opcode:#04x} is unknown; known are 0x01"
    ):
        card.device.check(card.device.submit([descriptor]))


def test_a_rejected_command_still_signals_those_who_wait_for_it(card, rejected):
    bad = pack(Opcode.COPY, signal_counter=9, signal_value=1)
    waiting = pack(Opcode.FENCE_STORE, wait_counter=9, wait_value=1)
    identifiers = card.device.submit([waiting, bad])
    with rejected(halfdome.CommandError, "COPY failed with BAD_DIMENSION"):
        card.device.check(identifiers)


def test_bad_commands_among_good_ones_fail_alone(card, rejected):
    good = pack(Opcode.FENCE_GATHER)
    identifiers = card.device.submit([good, bytes(64), good, pack(Opcode.MATMUL), good])
    statuses = [completion.status for completion in card.device.wait(identifiers)]
    assert statuses == [
        Status.OK, Status.BAD_OPCODE, Status.OK, Status.BAD_DIMENSION, Status.OK,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": TABLE.astype(np.int8)}, r"table: is int8\[20, 20\], must be uint8 with 2 dim"),
        ({"table": TABLE[0]}, r"table: is uint8\[20\], must be uint8 with 2 dimensions"),
        ({"table": TABLE[:, :8]}, "has 20 rows of 0 elements"),
        ({"table": TABLE[:0]}, "has 0 rows of 12 elements"),
        ({"table": np.zeros((2, 300), np.uint8)}, "rows of 292 elements, must .* max_dim=256"),
        (
            {"indices": INDICES.astype(np.float32)},
            r"indices: is float32\[5\], must be integers with 1 dim",
        ),
        ({"indices": INDICES[None]}, r"indices: is int32\[1, 5\], must be integers with 1 dim"),
        ({"indices": INDICES.astype(np.uint64) + 2**63}, "indices: a value does not fit int64"),
        ({"indices": [[1], [2, 3]]}, "indices: is no array, its rows differ in length"),
        ({"offsets": [[0], [2, 3]]}, "offsets: is no array, its rows differ in length"),
        ({"table": [[0], [2, 3]]}, "table: is no array, its rows differ in length"),
        ({"mode": "max"}, "mode='max': must be 'sum' or 'mean'"),
        ({"dtype": np.int16}, "dtype=int16: must be float32 or float16 or uint8 or int8"),
        ({"dtype": np.uint8, "multiplier": np.inf}, "multiplier=inf: must be a finite number"),
        (
            {"dtype": np.int8, "zero_point": 128},
            "zero_point=128: must be an integer from -128 to 127",
        ),
        ({"include_last_offset": True}, "offsets: the last is .*, must be the 5 indices"),
        ({"offsets": np.zeros(0, np.int32)}, "offsets: empty"),
        ({"offsets": np.array([1, 2])}, "offsets: must start at 0"),
        ({"offsets": np.array([0, 3, 2])}, "offsets: must .* not decrease"),
        ({"offsets": np.array([0, 6])}, "offsets: must .* within 5 indices"),
        ({"bits": 2}, "bits=2: must be 8 or 4"),
        ({"per_sample_weights": np.ones(5)}, r"per_sample_weights: is float64\[5\], must be fl"),
        ({"per_sample_weights": np.ones(4, np.float32)}, "4 values for 5 indices"),
    ],
)
def test_embedding_bag_refuses(card, rejected, changes, message):
    operands = {"table": TABLE, "indices": INDICES, "offsets": OFFSETS} | changes
    with rejected(ValueError, message):
        card.embedding_bag(**operands)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": X.astype(np.int32)}, r"x: is int32\[5, 6\], must be uint8 or int8 with 2 dim"),
        ({"x": X[0]}, r"x: is uint8\[6\], must be uint8 or int8 with 2 dimensions"),
        ({"x": X[:0]}, r"x: uint8\[0, 6\], weight: int8\[4, 6\]: no dimension may be zero"),
        ({"weight": WEIGHT.astype(float)}, r"weight: is float64\[4, 6\], must be uint8 or int8"),
        ({"weight": WEIGHT[:, :5]}, r"weight: int8\[4, 5\] does not fit x: uint8\[5, 6\]"),
        ({"x": np.zeros((1, 70000), np.uint8), "weight": np.zeros((1, 70000), np.int8)},
         "k=70000: must be from 1 to 65535"),
        ({"multiplier": np.ones(3)}, r"multiplier: is float64\[3\], must be .* each of 4 output"),
        ({"multiplier": [[1.0], [2.0, 3.0]]}, "multiplier: is no array, its rows differ in length"),
        ({"bias": np.zeros(3, np.int32)}, "bias: 3 values for 4 output channels"),
        ({"bias": np.zeros(4, np.float32)}, r"bias: is float32\[4\], must be int32"),
        ({"x_zero_point": 256}, "x_zero_point=256: must be an integer from 0 to 255"),
        ({"y_zero_point": -1}, "y_zero_point=-1: must be an integer from 0 to 255"),
        ({"y_zero_point": 0.5}, "y_zero_point=0.5: must be an integer from 0 to 255"),
    ],
)  # fmt: skip
def test_linear_refuses(card, rejected, changes, message):
    operands = {"x": X, "weight": WEIGHT, "multiplier": 0.1} | changes
    with rejected(ValueError, message):
        card.linear(**operands)


def test_a_table_of_another_card(runtime, card, rejected):
    placed = runtime.cards[1].table(TABLE)
    with rejected(ValueError, "table: is on card 1, not on card 0"):
        card.embedding_bag(placed, INDICES, OFFSETS)
    with rejected(ValueError, "card 0 DRAM: the block of 448 bytes at 0x.* is not allocated"):
        card.release(placed)
    runtime.cards[1].release(placed)


def test_a_table_that_was_released(card, rejected):
    placed = card.table(TABLE)
    card.release(placed)
    with rejected(ValueError, "table: was released"):
        card.embedding_bag(placed, INDICES, OFFSETS)
    for again in (placed, placed.block):
        with rejected(ValueError, "was released before"):
            card.release(again)
    with rejected(ValueError, "table: is a ndarray, must be a Table or its block"):
        card.release(TABLE)


def test_a_table_larger_than_the_memory(card, rejected):
    table = np.zeros((TINY.dram_bytes // 16 + 1, 16), np.uint8)
    with rejected(MemoryError, "card 0 DRAM: no 1048640 bytes in one piece, .* of 1048576 are"):
        card.embedding_bag(table, INDICES, OFFSETS)


def test_memory_that_runs_out_comes_back_when_released(card, expected):
    table = np.zeros((20_000, 16), np.uint8)
    placed = [card.table(table, preload=True) for _ in range(TINY.dram_bytes // table.nbytes)]
    with pytest.raises(MemoryError, match="card 0 DRAM: no 320000 bytes in one piece, 88576 of"):
        card.table(table)
    for each in placed:
        card.release(each)
    assert answers(card) == expected


def test_host_memory_that_runs_out(runtime, rejected):
    with rejected(MemoryError, "host"):
        runtime.platform.bus.map(1 << 40)


def test_a_driver_for_another_configuration():
    other = TINY.replace(queue_depth=8)
    with Platform(TINY, cards=1) as platform:
        place = {
            "index": 0, "bar0": platform.bars[0].bar0, "bar2": platform.bars[0].bar2,
            "message": platform.message(0),
        }  # fmt: skip
        message = f"built from configuration {TINY.hash}, expected {other.hash}; open the platform"
        with pytest.raises(halfdome.CardError, match=message):
            Device(platform.bus, other, **place)
        assert Device(platform.bus, TINY, **place).read("STATUS") & 1


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"config": "huge"},
            ConfigError,
            "preset 'huge' is unknown; known are tiny, default, quad, m2",
        ),
        ({"engine": "fpga"}, ValueError, "engine='fpga': unknown; known are native, pysim"),
        ({"cards": 0}, ValueError, "cards=0: must be an integer from 1 to 12"),
        (
            {"config": "default", "cards": 13},
            ValueError,
            "cards=13: must be an integer from 1 to 12",
        ),
        ({"threads": 0}, ValueError, "threads=0: must be a whole number, 1 or more"),
        ({"config": TINY.replace(counters=8)}, ConfigError, "counters=8: .* 6 cards at least 11"),
    ],
)
def test_open_refuses(options, kind, message):
    with pytest.raises(kind, match=message):
        halfdome.open(**{"config": "tiny"} | options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"array_rows": 3}, "array_rows=3: must be a power of two"),
        ({"array_columns": 64}, "array_columns=64: one bus word must hold a row of the array"),
        ({"lanes": 64}, "lanes=64: one bus word of 4-bit elements"),
        ({"clock_mhz": 0}, "clock_mhz=0: must be 1 to 2000"),
        ({"cores": 1.5}, "cores=1.5: must be"),
        ({"sparkle": 1}, "sparkle: no such field; known are"),
    ],
)
def test_a_configuration_that_breaks_a_rule(changes, message):
    with pytest.raises(ConfigError, match=message):
        TINY.replace(**changes)
