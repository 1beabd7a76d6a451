"""Values that the timing card computes itself are those of the golden model, bit for bit."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Flag, Function, Opcode, RowFormat, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import fields, unpack
from halfdome.sim.build.compiler import library
from halfdome.sim.golden.card import GoldenCard
from halfdome.sim.golden.matmul import PARAM
from halfdome.sim.timing.card import VALUES
from halfdome.sim.timing.header import header, parameter_array
from tests.bench import Memory
from tests.hdl.gather.harness import lay, plain
from tests.hdl.gather.test_engine import gathers
from tests.hdl.matmul.jobs import CardMemory, conv2d
from tests.hdl.matmul.test_engine import commands as products
from tests.hdl.matmul.test_engine import formats
from tests.hdl.vector.jobs import random_job
from tests.system.fuzz_descriptors import HostMemory

TINY = PRESETS["tiny"]
SPECIAL = np.array(
    [0, -0.0, 1e-45, -3e-39, 1.2e-38, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 65520, 65519.996],
    np.float32,
)

ELEMENT_WISE = [
    Opcode.AFFINE, Opcode.ADD, Opcode.MULTIPLY, Opcode.CLAMP, Opcode.QUANTISE, Opcode.LOOKUP,
    Opcode.ADD_QUANTISED, Opcode.MULTIPLY_QUANTISED,
]  # fmt: skip

seeds = st.integers(0, 2**16)


@cache
def _library():
    source = Path(__file__).with_name("values.cpp")
    lib = ctypes.CDLL(
        str(library(source, "values", flags=VALUES, generated={"card.hpp": header()}))
    )
    lib.compute.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    lib.compute.restype = ctypes.c_uint64
    lib.leave_out.argtypes = lib.compute.argtypes
    lib.leave_out.restype = None
    return lib


def check(config, descriptor, memory):
    """Both do the same to `memory`, which is as it was afterwards, and what they write is what
    would be left out; returns status and detail."""
    ours, golden = memory.copy(), memory.copy()
    packed = _library().compute(parameter_array(config), descriptor, ours.ctypes.data)
    status, detail = GoldenCard(config, HostMemory(0), golden).perform(descriptor)
    assert (Status(packed & 0xFF), packed >> 8) == (status, detail)
    np.testing.assert_array_equal(ours, golden)
    if Opcode(descriptor[0]) not in (Opcode.COPY, Opcode.TRANSPOSE):
        left_out = np.zeros(len(memory), np.uint8)
        _library().leave_out(parameter_array(config), descriptor, left_out.ctypes.data)
        assert left_out[ours != memory].all()
        # Of noise, a byte in 256 is what is written.
        written = np.count_nonzero(ours != memory)
        assert status is not Status.OK or written > left_out.sum() / 2 - 8
    return status, detail


def noise(size):
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


@settings(max_examples=200)
@given(command=gathers(), special=st.booleans(), seed=seeds)
def test_bags(command, special, seed):
    rng = np.random.default_rng(seed)
    if special and command.weights is not None:
        odd = rng.choice(SPECIAL, command.weights.shape)
        command.weights = np.where(rng.random(odd.shape) < 0.3, odd, command.weights)
    memory = noise(1 << 16)
    check(TINY, lay(command, memory, 0, TINY.bus_bytes).descriptor, memory)


@pytest.mark.parametrize("output_format", [ElementFormat.FLOAT32, ElementFormat.FLOAT16])
def test_counts_that_no_half_holds_divide_sums(output_format):
    lengths = (2049, 0, 4097)
    command = plain(dim=16, lengths=lengths, mean=True, output_format=output_format)
    memory = noise(1 << 17)
    check(TINY, lay(command, memory, 0, TINY.bus_bytes).descriptor, memory)


INT64 = [-1, -(2**31), 2**31 - 1, -(2**63), 2**63 - 1, -(2**40), 2**40, 2**32]


@settings(max_examples=200)
@given(command=gathers(), array=st.sampled_from(["lengths", "indices", "offsets", "count"]),
       value=st.sampled_from([0, 1, 2, 5, *INT64]), seed=seeds)  # fmt: skip
def test_faults_of_bags(command, array, value, seed):
    changes = {"index_count": len(command.indices) + 1} if array == "count" else {}
    held = None if array == "count" else getattr(command, array)
    if held is not None and len(held):
        value = value if command.wide else int(np.clip(value, -(2**31), 2**31 - 1))
        held = np.array(held, np.int64)
        held[seed % len(held)] = value
        setattr(command, array, held)
    memory = noise(1 << 16)
    check(TINY, lay(command, memory, 0, TINY.bus_bytes, **changes).descriptor, memory)


@pytest.mark.parametrize("output_format", [ElementFormat.FLOAT32, ElementFormat.FLOAT16])
def test_every_half_is_read(output_format):
    table = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 64).view(np.uint8)
    bags(table, 64, RowFormat.FLOAT16, output_format)


@given(seed=seeds)
def test_halves_are_rounded_to_even(seed):
    rng = np.random.default_rng(seed)
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[rng.integers(0, 1 << 16, 64 * 64)]
    bits = half.astype(np.float32).view(np.uint32)
    bits = bits + rng.choice([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], bits.size).astype(np.uint32)
    bags(bits.reshape(-1, 64).view(np.uint8), 64, RowFormat.FLOAT32, ElementFormat.FLOAT16)


@given(multiplier=st.floats(width=32, allow_nan=False, allow_infinity=False), seed=seeds,
       output_format=st.sampled_from([ElementFormat.UINT8, ElementFormat.INT8]),
       zero_point=st.integers(0, 255))  # fmt: skip
def test_bytes_are_saturated(multiplier, seed, output_format, zero_point):
    rng = np.random.default_rng(seed)
    table = np.where(
        rng.random((16, 64)) < 0.2,
        rng.choice(SPECIAL, (16, 64)),
        rng.integers(-600, 600, (16, 64)) / (2 * (multiplier or 1)),
    )
    with np.errstate(over="ignore"):
        table = table.astype(np.float32)
    bags(
        table.view(np.uint8), 64, RowFormat.FLOAT32, output_format,
        multiplier=multiplier, zero_point=zero_point,
    )  # fmt: skip


def bags(table, dim, row_format, output_format, **changes):
    """A bag for each row of the table."""
    command = plain(
        dim=dim, lengths=(1,) * len(table), rows=len(table), table=table, weights=None,
        indices=np.arange(len(table)), row_format=row_format, output_format=output_format, **changes
    )  # fmt: skip
    memory = noise(1 << 20)
    assert check(TINY, lay(command, memory, 0, TINY.bus_bytes).descriptor, memory)[0] is Status.OK


@settings(max_examples=300)
@given(
    product=st.tuples(products, formats), seed=seeds, bad=st.booleans(),
    array=st.sampled_from([(2, 2, 16), (4, 4, 16), (4, 2, 16), (8, 4, 32), (2, 16, 16)]),
)  # fmt: skip
def test_products(product, array, seed, bad):
    rows, columns, bus_bytes = array
    config = TINY.replace(array_rows=rows, array_columns=columns, bus_bytes=bus_bytes)
    memory = CardMemory(config, 1 << 16, seed=seed)
    (make, sizes), how = product
    job = make(memory, *sizes, **how)
    if bad:
        params = job.values["params"]
        pairs = memory.data[params : params + 8 * job.values["n"]].view(PARAM)
        pairs["multiplier"][seed % len(pairs)] = SPECIAL[seed % len(SPECIAL)]
    check(config, job.descriptor, memory.data)


@settings(max_examples=400)
@given(opcode=st.sampled_from(ELEMENT_WISE), rows=st.integers(1, 5), columns=st.integers(1, 70),
       function=st.sampled_from([Function.IDENTITY, Function.RELU]), broadcast=st.booleans(),
       seed=seeds)  # fmt: skip
def test_elements(opcode, rows, columns, function, broadcast, seed):
    fixed = {}
    if opcode in (Opcode.AFFINE, Opcode.ADD, Opcode.MULTIPLY, Opcode.CLAMP):
        fixed = {"function": function, "flags": 0}
    if broadcast and opcode in (Opcode.ADD, Opcode.MULTIPLY):
        fixed["flags"] = int(Flag.BROADCAST)
    memory = Memory(TINY, 1 << 14)
    rng = np.random.default_rng(seed)
    job = random_job(memory, TINY, 0, rng, opcode, rows, columns, **fixed)
    check(TINY, job.descriptor.to_bytes(64, "little"), memory.data)


@pytest.mark.parametrize("low", [0.0, -0.0, -np.inf])
@pytest.mark.parametrize("function", [Function.IDENTITY, Function.RELU])
def test_numbers_that_are_none_and_zeros_are_clamped_bit_for_bit(low, function):
    memory, floats = Memory(TINY, 1 << 12), ElementFormat.FLOAT32
    job = random_job(
        memory, TINY, 0, np.random.default_rng(0), Opcode.CLAMP, 1, len(SPECIAL), function=function,
        flags=0, a_format=floats, y_format=floats, low=int(np.float32(low).view(np.uint32)),
        multiplier=int(np.float32(1).view(np.uint32)),
    )  # fmt: skip
    raw = job.descriptor.to_bytes(64, "little")
    start = unpack(fields(Opcode.CLAMP), raw)["a"]
    memory.data[start : start + SPECIAL.nbytes] = SPECIAL.view(np.uint8)
    check(TINY, raw, memory.data)


@given(size=st.integers(1, 40), how=formats, seed=seeds)
def test_convolutions_of_diagonal_tiles(size, how, seed):
    memory = CardMemory(TINY, 1 << 16, seed=seed)
    how["flags"] |= Flag.DIAGONAL
    job = conv2d(memory, [5, 4], size, size, kernel=[3, 2], pad=[1, 1], **how)
    assert job.opcode is Opcode.CONV2D
    check(TINY, job.descriptor, memory.data)
