"""The golden checker on descriptors whose verdict is written out by hand."""

import pytest

from halfdome.hdl.commands import ElementFormat, Flag, Opcode, RowFormat, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import FLAGS, fields, offset, pack
from halfdome.sim.golden.check import check
from tests.hdl.command.descriptors import GOOD

TINY = PRESETS["tiny"]


@pytest.mark.parametrize("opcode", Opcode)
def test_good_descriptors_pass(opcode):
    assert check(pack(opcode, **GOOD.get(opcode, {})), TINY) == (Status.OK, 0)


TOP = TINY.dram_bytes
PAD = TINY.scratchpad_address(0)
INFINITY = 0x7F80_0000

CASES = [
    (Opcode.LOAD, {"core": 1}, Status.BAD_CORE, "core"),
    (Opcode.LOAD, {"flags": 1}, Status.BAD_FORMAT, "flags"),
    (Opcode.GATHER, {"flags": 128}, Status.BAD_FORMAT, "flags"),
    (Opcode.GATHER, {"flags": Flag.WARN | Flag.IGNORE}, Status.BAD_FORMAT, "flags"),
    (Opcode.FENCE_VECTOR, {"wait_counter": 16}, Status.BAD_COUNTER, "wait_counter"),
    (Opcode.FENCE_VECTOR, {"signal_counter": 0xFE}, Status.BAD_COUNTER, "signal_counter"),
    (Opcode.STORE, {"extension": 2}, Status.BAD_FORMAT, "extension"),
    (Opcode.STORE, {"second_wait_counter": 99}, Status.BAD_COUNTER, "second_wait_counter"),
    (Opcode.STORE, {"second_wait_value": 1, "reserved": 1}, Status.BAD_FORMAT, "reserved"),
    (Opcode.LOAD, {"rows": 0}, Status.BAD_DIMENSION, "rows"),
    (Opcode.LOAD, {"row_bytes": 0}, Status.BAD_DIMENSION, "row_bytes"),
    (Opcode.COPY, {"source_stride": 32}, Status.BAD_DIMENSION, "source_stride"),
    (Opcode.COPY, {"source_stride": 0, "rows": 1}, Status.OK, None),
    (Opcode.COPY, {"destination_stride": 72}, Status.BAD_ALIGNMENT, "destination_stride"),
    (Opcode.LOAD, {"source": 8}, Status.BAD_ALIGNMENT, "source"),
    (Opcode.LOAD, {"source": 2**64 - 16}, Status.OK, None),
    (Opcode.LOAD, {"destination": TOP - 160}, Status.BAD_RANGE, "destination"),
    (Opcode.LOAD, {"destination": TOP - 176}, Status.OK, None),
    (Opcode.LOAD, {"destination": 2**40}, Status.BAD_RANGE, "destination"),
    (Opcode.COPY, {"source": PAD + TINY.scratchpad_bytes}, Status.BAD_RANGE, "source"),
    (Opcode.STORE, {"rows": 2**32 - 1, "source_stride": 0xFFFF_FFF0}, Status.BAD_RANGE, "source"),
    (Opcode.STORE, {"destination": 4}, Status.BAD_ALIGNMENT, "destination"),
    (Opcode.SIGNAL, {"address": 2}, Status.BAD_ALIGNMENT, "address"),
    (Opcode.GATHER, {"format": 5}, Status.BAD_FORMAT, "format"),
    (Opcode.GATHER, {"output_format": ElementFormat.INT32}, Status.BAD_FORMAT, "output_format"),
    (Opcode.GATHER, {"multiplier": 0x7F80_0000}, Status.OK, None),
    (Opcode.GATHER, {"multiplier": 0x7F80_0000, "output_format": ElementFormat.INT8},
     Status.BAD_FORMAT, "multiplier"),
    (Opcode.GATHER, {"dim": 257}, Status.BAD_DIMENSION, "dim"),
    (Opcode.GATHER, {"bags": 0}, Status.BAD_DIMENSION, "bags"),
    (Opcode.GATHER, {"row_stride": 39}, Status.BAD_DIMENSION, "row_stride"),
    (Opcode.GATHER, {"row_stride": 20, "format": 1}, Status.OK, None),
    (Opcode.GATHER, {"row_stride": 19, "format": 1}, Status.BAD_DIMENSION, "row_stride"),
    (Opcode.GATHER, {"row_stride": 36, "format": RowFormat.INT8_HALF}, Status.OK, None),
    (Opcode.GATHER, {"row_stride": 35, "format": RowFormat.INT8_HALF},
     Status.BAD_DIMENSION, "row_stride"),
    (Opcode.GATHER, {"row_stride": 63, "format": RowFormat.FLOAT16},
     Status.BAD_DIMENSION, "row_stride"),
    (Opcode.GATHER, {"row_stride": 128, "format": RowFormat.FLOAT32}, Status.OK, None),
    (Opcode.GATHER, {"output_stride": 127}, Status.BAD_DIMENSION, "output_stride"),
    (Opcode.GATHER, {"output_stride": 33, "output_format": ElementFormat.UINT8,
                     "output": TOP - 4 * 33 - 32}, Status.OK, None),
    (Opcode.GATHER, {"output_stride": 64, "output_format": ElementFormat.FLOAT16,
                     "output": TOP - 4 * 64 - 63}, Status.BAD_RANGE, "output"),
    (Opcode.GATHER, {"table": TOP - 400}, Status.OK, None),
    (Opcode.GATHER, {"table": TOP - 399}, Status.BAD_RANGE, "table"),
    (Opcode.GATHER, {"index_count": 0, "indices": 2**39}, Status.OK, None),
    (Opcode.GATHER, {"indices": 2**39}, Status.BAD_RANGE, "indices"),
    (Opcode.GATHER, {"indices": TOP - 96}, Status.OK, None),
    (Opcode.GATHER, {"indices": TOP - 96, "flags": Flag.WIDE}, Status.BAD_RANGE, "indices"),
    (Opcode.GATHER, {"lengths": TOP - 32, "flags": Flag.WIDE}, Status.BAD_RANGE, "lengths"),
    (Opcode.GATHER, {"weights": 2**39 + 1}, Status.OK, None),
    (Opcode.GATHER, {"weights": 2**39 + 1, "flags": 1}, Status.BAD_ALIGNMENT, "weights"),
    (Opcode.GATHER, {"weights": 2**39, "flags": 1}, Status.BAD_RANGE, "weights"),
    (Opcode.MATMUL, {"k": 65536}, Status.BAD_DIMENSION, "k"),
    (Opcode.MATMUL, {"x_stride": 16}, Status.BAD_DIMENSION, "x_stride"),
    (Opcode.MATMUL, {"w": PAD + TINY.scratchpad_bytes - 16 * 5 * 3}, Status.OK, None),
    (Opcode.MATMUL, {"w": PAD + TINY.scratchpad_bytes - 16 * 14}, Status.BAD_RANGE, "w"),
    (Opcode.MATMUL, {"params": TOP - 64}, Status.BAD_RANGE, "params"),
    (Opcode.MATMUL, {"y_format": 3}, Status.BAD_FORMAT, "y_format"),
    (Opcode.MATMUL, {"y_format": 4, "y_stride": 32}, Status.BAD_DIMENSION, "y_stride"),
    (Opcode.MATMUL, {"y_format": 4, "y_stride": 48, "params": 1}, Status.OK, None),
    (Opcode.MATMUL, {"y_format": 4, "flags": 1}, Status.BAD_FORMAT, "y_format"),
    (Opcode.BATCH_MATMUL, {"batches": 0}, Status.BAD_DIMENSION, "batches"),
    (Opcode.BATCH_MATMUL, {"w_stride": 16, "flags": 8}, Status.BAD_DIMENSION, "w_stride"),
    (Opcode.BATCH_MATMUL, {"w_stride": 16}, Status.OK, None),
    (Opcode.BATCH_MATMUL, {"x_batch_stride": 8}, Status.BAD_ALIGNMENT, "x_batch_stride"),
    (Opcode.BATCH_MATMUL, {"x_batch_stride": 8, "batches": 1}, Status.OK, None),
    (Opcode.BATCH_MATMUL, {"x": TOP - 1024 - 8 * 32 - 32}, Status.OK, None),
    (Opcode.BATCH_MATMUL, {"x": TOP - 1024 - 8 * 32 - 16}, Status.BAD_RANGE, "x"),
    (Opcode.BATCH_MATMUL, {"flags": 16, "n": 8}, Status.BAD_DIMENSION, "n"),
    (Opcode.BATCH_MATMUL, {"flags": 16, "y_format": 4}, Status.BAD_FORMAT, "y_format"),
    (Opcode.BATCH_MATMUL, {"flags": 16, "y": TOP - 2 * 37 - 36, "y_batch_stride": 37}, Status.OK,
     None),
    (Opcode.BATCH_MATMUL, {"flags": 16, "y": TOP - 2 * 37 - 35, "y_batch_stride": 37},
     Status.BAD_RANGE, "y"),
    (Opcode.BATCH_MATMUL, {"flags": 16, "m": 1, "n": 1, "y": 2**39}, Status.OK, None),
    # A triangle of one row has no output, which overlaps nothing.
    (Opcode.BATCH_MATMUL, {"flags": 16, "m": 1, "n": 1, "y": 0x6001}, Status.OK, None),
    # Three rows of 47 bytes: the source's 48 apart, those of the destination 64.
    (Opcode.COPY, {"source": PAD + 0x100}, Status.BAD_OVERLAP, "source"),
    (Opcode.COPY, {"source": PAD + 0x100, "source_stride": 64}, Status.OK, None),
    (Opcode.COPY, {"source": PAD + 0x100, "rows": 1}, Status.OK, None),
    (Opcode.COPY, {"source": PAD + 0xF0, "rows": 1}, Status.BAD_OVERLAP, "source"),
    (Opcode.COPY, {"source": PAD + 0x100 - 144}, Status.OK, None),
    (Opcode.COPY, {"source": PAD + 0x100 - 128}, Status.BAD_OVERLAP, "source"),
    (Opcode.COPY, {"source": PAD + 0x100 + 128 + 48}, Status.OK, None),
    (Opcode.COPY, {"source": PAD + 0x110, "row_bytes": 16, "source_stride": 64}, Status.OK, None),
    (Opcode.COPY, {"source": 1 << 41, "destination": 1 << 41}, Status.BAD_RANGE, "destination"),
    # Three matrices of 9 rows of 20 bytes, 32 apart; 5 rows of 36 bytes, 48 apart.
    (Opcode.TRANSPOSE, {"element_bytes": 3}, Status.BAD_FORMAT, "element_bytes"),
    (Opcode.TRANSPOSE, {"element_bytes": 0}, Status.BAD_FORMAT, "element_bytes"),
    (Opcode.TRANSPOSE, {"flags": 1}, Status.BAD_FORMAT, "flags"),
    (Opcode.TRANSPOSE, {"batches": 0}, Status.BAD_DIMENSION, "batches"),
    (Opcode.TRANSPOSE, {"source_stride": 16}, Status.BAD_DIMENSION, "source_stride"),
    (Opcode.TRANSPOSE, {"source_stride": 16, "element_bytes": 2}, Status.OK, None),
    (Opcode.TRANSPOSE, {"destination_stride": 32}, Status.BAD_DIMENSION, "destination_stride"),
    (Opcode.TRANSPOSE, {"destination_stride": 3, "columns": 1}, Status.OK, None),
    (Opcode.TRANSPOSE, {"source": 8}, Status.BAD_ALIGNMENT, "source"),
    (Opcode.TRANSPOSE, {"destination_batch_stride": 8}, Status.BAD_ALIGNMENT,
     "destination_batch_stride"),
    (Opcode.TRANSPOSE, {"destination_batch_stride": 8, "batches": 1}, Status.OK, None),
    (Opcode.TRANSPOSE, {"source": TOP - 0x240 - 8 * 32 - 32}, Status.OK, None),
    (Opcode.TRANSPOSE, {"source": TOP - 0x240 - 8 * 32 - 16}, Status.BAD_RANGE, "source"),
    (Opcode.TRANSPOSE, {"source": 0, "batches": 1, "rows": 65535, "source_stride": 0xFF_FFF0,
                        "columns": 1, "element_bytes": 1, "destination": 0x8000},
     Status.BAD_RANGE, "source"),
    (Opcode.TRANSPOSE, {"source": PAD + 0x100}, Status.BAD_OVERLAP, "source"),
    (Opcode.TRANSPOSE, {"source": 0x400, "destination": 0x400 + 848}, Status.BAD_OVERLAP,
     "source"),
    (Opcode.TRANSPOSE, {"source": 0x400, "destination": 0x400 + 864}, Status.OK, None),
    (Opcode.QUANTISE, {"scale": 0}, Status.BAD_FORMAT, "scale"),
    (Opcode.QUANTISE, {"scale": 0xBF80_0000}, Status.BAD_FORMAT, "scale"),
    (Opcode.QUANTISE, {"scale": 0x007F_FFFF}, Status.BAD_FORMAT, "scale"),
    (Opcode.QUANTISE, {"scale": 0x0080_0000}, Status.OK, None),
    (Opcode.QUANTISE, {"scale": INFINITY}, Status.BAD_FORMAT, "scale"),
    (Opcode.QUANTISE, {"scale": INFINITY - 1}, Status.OK, None),
    (Opcode.QUANTISE, {"scale": INFINITY + 1}, Status.BAD_FORMAT, "scale"),
    (Opcode.QUANTISE, {"y_format": ElementFormat.FLOAT16}, Status.BAD_FORMAT, "y_format"),
    (Opcode.QUANTISE, {"flags": Flag.MAX}, Status.BAD_FORMAT, "flags"),
    (Opcode.QUANTISE, {"y": 0x5000, "y_stride": 48}, Status.OK, None),
    # Five bags of 128 bytes; a table of 10 rows of 40, 21 indices.
    (Opcode.GATHER, {"output": 0x1003}, Status.BAD_OVERLAP, "table"),
    (Opcode.GATHER, {"output": 0x1003 + 400}, Status.OK, None),
    (Opcode.GATHER, {"output": 0x1003 + 399}, Status.BAD_OVERLAP, "table"),
    (Opcode.GATHER, {"output": 0x1003 + 64, "row_stride": 192, "output_stride": 192}, Status.OK,
     None),
    (Opcode.GATHER, {"output": 0x2050}, Status.BAD_OVERLAP, "indices"),
    (Opcode.GATHER, {"output": 0x2050, "index_count": 20}, Status.OK, None),
    (Opcode.GATHER, {"output": 0x2000, "index_count": 0}, Status.OK, None),
    (Opcode.GATHER, {"output": PAD}, Status.BAD_OVERLAP, "lengths"),
    (Opcode.GATHER, {"output": 0x3000}, Status.OK, None),
    (Opcode.GATHER, {"output": 0x3000, "flags": 1}, Status.BAD_OVERLAP, "weights"),
    # x has rows of 18 bytes, y of 9, seven of them.
    (Opcode.MATMUL, {"y": PAD + 0x100}, Status.BAD_OVERLAP, "x"),
    (Opcode.MATMUL, {"y": PAD + 0x100 - 112}, Status.OK, None),
    (Opcode.MATMUL, {"y": PAD + 0x100 + 32, "x_stride": 48, "y_stride": 48}, Status.OK, None),
    (Opcode.MATMUL, {"y": PAD + 0x100 + 16, "x_stride": 48, "y_stride": 48}, Status.BAD_OVERLAP,
     "x"),
    (Opcode.MATMUL, {"y": 0x8010}, Status.BAD_OVERLAP, "w"),
    (Opcode.MATMUL, {"y": 0x9030}, Status.BAD_OVERLAP, "params"),
    (Opcode.MATMUL, {"y": 0x9030, "y_format": 4, "y_stride": 48}, Status.OK, None),
    (Opcode.BATCH_MATMUL, {"y": 0x6420}, Status.BAD_OVERLAP, "x"),
    (Opcode.CONV2D, {"y": 0x8000 - 32}, Status.BAD_OVERLAP, "w"),
    (Opcode.CONV2D, {"kernel_width": 0}, Status.BAD_DIMENSION, "kernel_width"),
    (Opcode.CONV2D, {"stride_height": 0}, Status.BAD_DIMENSION, "stride_height"),
    (Opcode.CONV2D, {"x_stride": 16}, Status.BAD_DIMENSION, "x_stride"),
    (Opcode.CONV2D, {"x": TOP - 34 * 32 - 32}, Status.OK, None),
    (Opcode.CONV2D, {"x": TOP - 34 * 32 - 16}, Status.BAD_RANGE, "x"),
    (Opcode.CONV2D, {"w": TOP - 6 * 5 * 3 * 16}, Status.OK, None),
    (Opcode.CONV2D, {"w": TOP - 6 * 5 * 3 * 16 + 16}, Status.BAD_RANGE, "w"),
    (Opcode.CONV2D, {"flags": 8}, Status.BAD_DIMENSION, "n"),
    (Opcode.CONV2D, {"flags": 8, "k": 9}, Status.OK, None),
    (Opcode.CONV2D, {"flags": 8, "k": 9, "w": TOP - 6 * 3 * 16}, Status.OK, None),
    (Opcode.CONV2D, {"flags": 8, "k": 9, "w": TOP - 6 * 3 * 16 + 16}, Status.BAD_RANGE, "w"),
    (Opcode.AFFINE, {"flags": 3}, Status.BAD_FORMAT, "flags"),
    (Opcode.AFFINE, {"flags": 4}, Status.BAD_FORMAT, "flags"),
    (Opcode.ADD, {"flags": 4}, Status.OK, None),
    (Opcode.AFFINE, {"multiplier": INFINITY}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.AFFINE, {"multiplier": 0xFFC0_0000}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.CLAMP, {"multiplier": 0x8000_0000}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.AFFINE, {"multiplier": 1}, Status.OK, None),
    (Opcode.AFFINE, {"scale": 0}, Status.BAD_FORMAT, "scale"),
    (Opcode.ADD, {"scale": INFINITY}, Status.BAD_FORMAT, "scale"),
    (Opcode.AFFINE, {"shift": INFINITY | 1}, Status.BAD_FORMAT, "shift"),
    (Opcode.MULTIPLY, {"shift": INFINITY}, Status.BAD_FORMAT, "shift"),
    (Opcode.CLAMP, {"low": INFINITY | 1}, Status.BAD_FORMAT, "low"),
    (Opcode.CLAMP, {"low": INFINITY, "high": INFINITY}, Status.OK, None),
    (Opcode.CLAMP, {"low": 0x40C0_0001}, Status.BAD_FORMAT, "high"),
    (Opcode.CLAMP, {"low": 0, "high": 0x8000_0000}, Status.BAD_FORMAT, "high"),
    (Opcode.CLAMP, {"low": 0xBF80_0000, "high": 0xBF80_0001}, Status.BAD_FORMAT, "high"),
    (Opcode.AFFINE, {"y_format": 4}, Status.BAD_FORMAT, "y_format"),
    (Opcode.AFFINE, {"a_format": 5}, Status.BAD_FORMAT, "a_format"),
    (Opcode.MULTIPLY, {"b_format": 4, "b_stride": 48}, Status.OK, None),
    (Opcode.MULTIPLY, {"b_format": 5}, Status.BAD_FORMAT, "b_format"),
    (Opcode.AFFINE, {"function": 8}, Status.BAD_FORMAT, "function"),
    (Opcode.AFFINE, {"columns": 0}, Status.BAD_DIMENSION, "columns"),
    (Opcode.AFFINE, {"columns": 13}, Status.BAD_DIMENSION, "a_stride"),
    (Opcode.AFFINE, {"columns": 17}, Status.BAD_DIMENSION, "y_stride"),
    (Opcode.AFFINE, {"columns": 12, "flags": 1, "y_stride": 16}, Status.OK, None),
    (Opcode.AFFINE, {"columns": 2**31, "rows": 1}, Status.BAD_RANGE, "y"),
    (Opcode.ADD, {"b_stride": 0}, Status.OK, None),
    (Opcode.ADD, {"b_format": 2}, Status.BAD_DIMENSION, "b_stride"),
    (Opcode.ADD, {"b_format": 2, "flags": 4}, Status.OK, None),
    (Opcode.ADD, {"b_stride": 24}, Status.BAD_ALIGNMENT, "b_stride"),
    (Opcode.ADD, {"b": TOP - 43}, Status.BAD_ALIGNMENT, "b"),
    (Opcode.ADD, {"b": TOP - 32}, Status.BAD_RANGE, "b"),
    (Opcode.LOOKUP, {"flags": 1}, Status.BAD_FORMAT, "flags"),
    (Opcode.LOOKUP, {"rows": 0}, Status.BAD_DIMENSION, "rows"),
    (Opcode.LOOKUP, {"columns": 33}, Status.BAD_DIMENSION, "y_stride"),
    (Opcode.LOOKUP, {"y_stride": 24}, Status.BAD_ALIGNMENT, "y_stride"),
    (Opcode.LOOKUP, {"table": 0x7008}, Status.BAD_ALIGNMENT, "table"),
    (Opcode.LOOKUP, {"table": TOP - 256}, Status.OK, None),
    (Opcode.LOOKUP, {"table": TOP - 240}, Status.BAD_RANGE, "table"),
    (Opcode.LOOKUP, {"y": 0x5000, "y_stride": 48}, Status.OK, None),
    (Opcode.LOOKUP, {"y": 0x5000}, Status.BAD_OVERLAP, "a"),
    (Opcode.LOOKUP, {"y": 0x70F0}, Status.BAD_OVERLAP, "table"),
    (Opcode.LOOKUP, {"y": 0x7000, "rows": 1}, Status.BAD_OVERLAP, "table"),
    (Opcode.LOOKUP, {"y": 0x7100}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"flags": 12}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"flags": 1}, Status.BAD_FORMAT, "flags"),
    (Opcode.MULTIPLY_QUANTISED, {"flags": 8}, Status.BAD_FORMAT, "flags"),
    (Opcode.ADD_QUANTISED, {"y_format": 3}, Status.BAD_FORMAT, "y_format"),
    (Opcode.ADD_QUANTISED, {"a_format": 2}, Status.BAD_FORMAT, "a_format"),
    (Opcode.MULTIPLY_QUANTISED, {"b_format": 4}, Status.BAD_FORMAT, "b_format"),
    *((Opcode.ADD_QUANTISED, {name: bits}, Status.BAD_FORMAT, name)
      for name in ("a_ratio", "b_ratio")
      for bits in (0, 0x8000_0000, 1, 0x377F_FFFF, 0x4380_0000, 0xC380_0000, 0x7F80_0000,
                   0xFF80_0000, 0x7FC0_0000)),
    (Opcode.ADD_QUANTISED, {"a_ratio": 0x3780_0000, "b_ratio": 0xC37F_FFFF}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"offset": 0xC7FF_FFFF}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"offset": 1}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"offset": 0}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"offset": 0x4800_0000}, Status.BAD_FORMAT, "offset"),
    (Opcode.ADD_QUANTISED, {"offset": 0x7FC0_0000}, Status.BAD_FORMAT, "offset"),
    (Opcode.MULTIPLY_QUANTISED, {"multiplier": 0xB780_0000}, Status.OK, None),
    (Opcode.MULTIPLY_QUANTISED, {"multiplier": 0x407F_FFFF}, Status.OK, None),
    (Opcode.MULTIPLY_QUANTISED, {"multiplier": 0x4080_0000}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.MULTIPLY_QUANTISED, {"multiplier": 0x377F_FFFF}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.MULTIPLY_QUANTISED, {"multiplier": 0x7FC0_0000}, Status.BAD_FORMAT, "multiplier"),
    (Opcode.ADD_QUANTISED, {"columns": 17}, Status.BAD_DIMENSION, "b_stride"),
    (Opcode.ADD_QUANTISED, {"columns": 17, "b_stride": 0}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"columns": 17, "flags": 4}, Status.OK, None),
    (Opcode.MULTIPLY_QUANTISED, {"b": 0x6008}, Status.BAD_ALIGNMENT, "b"),
    (Opcode.MULTIPLY_QUANTISED, {"b": TOP - 32}, Status.BAD_RANGE, "b"),
    (Opcode.ADD_QUANTISED, {"y": 0x6000, "y_stride": 16}, Status.OK, None),
    (Opcode.ADD_QUANTISED, {"y": 0x6000}, Status.BAD_OVERLAP, "b"),
    (Opcode.ADD_QUANTISED, {"y": 0x6000, "y_stride": 16, "flags": 4}, Status.BAD_OVERLAP, "b"),
    (Opcode.POOL, {"flags": 4}, Status.BAD_FORMAT, "flags"),
    (Opcode.POOL, {"flags": 2}, Status.OK, None),
    (Opcode.POOL, {"kernel_width": 0}, Status.BAD_DIMENSION, "kernel_width"),
    (Opcode.POOL, {"k": 17}, Status.BAD_DIMENSION, "x_stride"),
    (Opcode.POOL, {"k": 33, "x_stride": 48}, Status.BAD_DIMENSION, "y_stride"),
    # Three taps of height 5 or two, two apart, of width 4: a window has one inside.
    (Opcode.POOL, {"pad_top": 2}, Status.OK, None),
    (Opcode.POOL, {"pad_top": 3}, Status.BAD_DIMENSION, "pad_top"),
    (Opcode.POOL, {"pad_left": 2}, Status.OK, None),
    (Opcode.POOL, {"pad_left": 3}, Status.BAD_DIMENSION, "pad_left"),
    (Opcode.POOL, {"dilation_width": 4}, Status.OK, None),
    (Opcode.POOL, {"dilation_width": 5}, Status.BAD_DIMENSION, "dilation_width"),
    (Opcode.POOL, {"dilation_width": 5, "pad_left": 0}, Status.OK, None),
    (Opcode.POOL, {"stride_width": 4}, Status.OK, None),
    (Opcode.POOL, {"stride_width": 5}, Status.BAD_DIMENSION, "out_width"),
    (Opcode.POOL, {"out_height": 4}, Status.BAD_DIMENSION, "out_height"),
    (Opcode.POOL, {"x": 0x5008}, Status.BAD_ALIGNMENT, "x"),
    (Opcode.POOL, {"y_stride": 24}, Status.BAD_ALIGNMENT, "y_stride"),
    (Opcode.POOL, {"x": TOP - 320}, Status.OK, None),
    (Opcode.POOL, {"x": TOP - 304}, Status.BAD_RANGE, "x"),
    (Opcode.POOL, {"y": 0x5130}, Status.BAD_OVERLAP, "x"),
    (Opcode.POOL, {"y": 0x5000}, Status.BAD_OVERLAP, "x"),
    (Opcode.POOL, {"y": 0x5140}, Status.OK, None),
    (Opcode.DEPTHWISE, {"flags": 15}, Status.OK, None),
    (Opcode.DEPTHWISE, {"flags": 16}, Status.BAD_FORMAT, "flags"),
    (Opcode.DEPTHWISE, {"y_format": 4}, Status.BAD_FORMAT, "y_format"),
    (Opcode.DEPTHWISE, {"kernel_height": 32}, Status.OK, None),
    (Opcode.DEPTHWISE, {"kernel_height": 33}, Status.BAD_DIMENSION, "kernel_height"),
    (Opcode.DEPTHWISE, {"kernel_height": 255, "flags": 8}, Status.OK, None),
    (Opcode.DEPTHWISE, {"kernel_width": 0}, Status.BAD_DIMENSION, "kernel_width"),
    (Opcode.DEPTHWISE, {"k": 17}, Status.BAD_DIMENSION, "x_stride"),
    (Opcode.DEPTHWISE, {"pad_left": 3}, Status.BAD_DIMENSION, "pad_left"),
    (Opcode.DEPTHWISE, {"out_height": 4}, Status.BAD_DIMENSION, "out_height"),
    (Opcode.DEPTHWISE, {"w": 0x6008}, Status.BAD_ALIGNMENT, "w"),
    (Opcode.DEPTHWISE, {"w": 0x6008, "flags": 8}, Status.OK, None),
    (Opcode.DEPTHWISE, {"params": 0x7008}, Status.BAD_ALIGNMENT, "params"),
    # Six rows of eleven weights, a bus word each; eleven channels of eight bytes.
    (Opcode.DEPTHWISE, {"w": TOP - 96}, Status.OK, None),
    (Opcode.DEPTHWISE, {"w": TOP - 80}, Status.BAD_RANGE, "w"),
    (Opcode.DEPTHWISE, {"w": TOP - 80, "flags": 8}, Status.OK, None),
    (Opcode.AVERAGE, {"flags": 6}, Status.OK, None),
    (Opcode.AVERAGE, {"flags": 1}, Status.BAD_FORMAT, "flags"),
    (Opcode.AVERAGE, {"x_scale": 0x2B80_0000}, Status.OK, None),
    (Opcode.AVERAGE, {"x_scale": 0x2B7F_FFFF}, Status.BAD_FORMAT, "x_scale"),
    (Opcode.AVERAGE, {"x_scale": 0xBF80_0000}, Status.BAD_FORMAT, "x_scale"),
    (Opcode.AVERAGE, {"y_scale": 0x537F_FFFF}, Status.OK, None),
    (Opcode.AVERAGE, {"y_scale": 0x5380_0000}, Status.BAD_FORMAT, "y_scale"),
    (Opcode.AVERAGE, {"y_scale": 0x7FC0_0000}, Status.BAD_FORMAT, "y_scale"),
    (Opcode.AVERAGE, {"y_format": 2}, Status.BAD_FORMAT, "y_format"),
    (Opcode.AVERAGE, {"kernel_height": 127}, Status.OK, None),
    (Opcode.AVERAGE, {"kernel_height": 128}, Status.BAD_DIMENSION, "kernel_height"),
    (Opcode.AVERAGE, {"pad_left": 3}, Status.BAD_DIMENSION, "pad_left"),
    (Opcode.AVERAGE, {"out_height": 4}, Status.BAD_DIMENSION, "out_height"),
    (Opcode.AVERAGE, {"x": 0x5008}, Status.BAD_ALIGNMENT, "x"),
    (Opcode.AVERAGE, {"y": 0x5130}, Status.BAD_OVERLAP, "x"),
    (Opcode.DEPTHWISE, {"params": TOP - 96}, Status.OK, None),
    (Opcode.DEPTHWISE, {"params": TOP - 80}, Status.BAD_RANGE, "params"),
    (Opcode.DEPTHWISE, {"y": 0x5000}, Status.BAD_OVERLAP, "x"),
    (Opcode.DEPTHWISE, {"y": 0x6050}, Status.BAD_OVERLAP, "w"),
    (Opcode.DEPTHWISE, {"y": 0x6060}, Status.OK, None),
    (Opcode.DEPTHWISE, {"y": 0x6050, "flags": 8}, Status.OK, None),
    (Opcode.DEPTHWISE, {"y": 0x7050}, Status.BAD_OVERLAP, "params"),
    # y has rows of 22 bytes, a of 44, b of 11, three of them.
    (Opcode.AFFINE, {"y": 0x5000, "y_stride": 48}, Status.OK, None),
    (Opcode.AFFINE, {"y": 0x5000}, Status.BAD_OVERLAP, "a"),
    (Opcode.AFFINE, {"y": 0x5000, "rows": 1}, Status.OK, None),
    (Opcode.AFFINE, {"y": 0x5010, "rows": 1}, Status.BAD_OVERLAP, "a"),
    (Opcode.AFFINE, {"y": 0x5010, "y_stride": 48}, Status.BAD_OVERLAP, "a"),
    (Opcode.AFFINE, {"y": 0x5030, "y_stride": 80, "a_stride": 80}, Status.OK, None),
    (Opcode.AFFINE, {"y": 0x5030, "y_stride": 64, "a_stride": 64}, Status.BAD_OVERLAP, "a"),
    (Opcode.AFFINE, {"a": 0x5020, "y": 0x5000, "y_stride": 80, "a_stride": 80}, Status.OK, None),
    (Opcode.AFFINE, {"y": 0x5000 + 140}, Status.BAD_ALIGNMENT, "y"),
    (Opcode.AFFINE, {"y": 0x5090}, Status.OK, None),
    (Opcode.AFFINE, {"y": 0x5080}, Status.BAD_OVERLAP, "a"),
    (Opcode.ADD, {"y": 0x6000}, Status.BAD_OVERLAP, "b"),
    (Opcode.ADD, {"y": 0x6000, "b_stride": 32}, Status.BAD_OVERLAP, "b"),
    (Opcode.ADD, {"y": 0x6000, "b_stride": 32, "b_format": 2}, Status.OK, None),
]  # fmt: skip


@pytest.mark.parametrize(("opcode", "change", "status", "field"), CASES)
def test_first_broken_rule_is_named(opcode, change, status, field):
    detail = 0 if field is None else offset(opcode, field)
    descriptor = pack(opcode, **GOOD.get(opcode, {}) | change)
    assert check(descriptor, TINY) == (status, detail)


@pytest.mark.parametrize("opcode", [0x00, 0x04, 0x1E, 0x50, 0xFF])
def test_unknown_opcode_is_reported_before_anything_else(opcode):
    assert check(bytes([opcode]) + b"\xff" * 63, TINY) == (Status.BAD_OPCODE, opcode)


def test_earlier_rules_win():
    descriptor = pack(Opcode.COPY, rows=0, source=1, source_stride=7, extension=3)
    assert check(descriptor, TINY) == (Status.BAD_FORMAT, offset(Opcode.COPY, "extension"))
    descriptor = pack(Opcode.COPY, rows=0, source=1, source_stride=7)
    assert check(descriptor, TINY) == (Status.BAD_DIMENSION, offset(Opcode.COPY, "rows"))


def test_every_flag_of_a_command_is_accepted():
    for opcode, flags in FLAGS.items():
        for flag in (1 << bit for bit in range(8) if flags >> bit & 1):
            body = GOOD[opcode] | {"flags": flag}
            if opcode is Opcode.CONV2D and flag == Flag.DIAGONAL:
                body["n"] = body["k"]
            assert check(pack(opcode, **body), TINY)[0] == Status.OK


def test_another_cores_scratchpad_is_out_of_range():
    config = TINY.replace(cores=2)
    body = GOOD[Opcode.STORE] | {"source": config.scratchpad_address(1)}
    assert check(pack(Opcode.STORE, **body, core=1), config, 1) == (Status.OK, 0)
    assert check(pack(Opcode.STORE, **body, core=0), config, 0)[0] == Status.BAD_RANGE


@pytest.mark.parametrize(("core", "ring"), [(0, 1), (1, 0), (2, 0), (255, 1)])
def test_a_command_in_the_ring_of_another_core_is_refused(core, ring):
    raw = pack(Opcode.FENCE_LOAD, core=core)
    assert check(raw, TINY.replace(cores=2), ring) == (Status.BAD_CORE, 4)


def test_good_descriptors_name_every_body_field():
    for opcode, body in GOOD.items():
        assert set(body) == {f.name for f in fields(opcode)[9:]}
