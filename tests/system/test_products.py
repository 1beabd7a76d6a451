"""Matrix products of every kind through the public operators: the bits of the golden functions."""

import numpy as np
import pytest

from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from halfdome.host.driver.errors import CommandError
from halfdome.host.driver.layout import pack_params, pack_weights
from halfdome.host.runtime.products import groups_per_tile
from halfdome.sim.golden.matmul import matmul, product, requantise, triangle
from halfdome.sim.golden.products import convolution
from halfdome.sim.golden.sums import depthwise


def some(rng, shape, dtype):
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
@pytest.mark.parametrize("w_type", [np.uint8, np.int8])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_linear_takes_and_gives_every_format(card, x_type, w_type, dtype):
    rng = np.random.default_rng(1)
    x, w = some(rng, (9, 37), x_type), some(rng, (11, 37), w_type)
    zeros = {"x_zero_point": int(some(rng, (), x_type))}
    w_zero = int(some(rng, (), w_type))
    if dtype is np.int32:
        y = card.linear(x, w, weight_zero_point=w_zero, dtype=dtype, **zeros)
        np.testing.assert_array_equal(y, product(x, w.T, w_zero_point=w_zero, **zeros))
        return
    multiplier = rng.uniform(1e-4, 1e-3, 11).astype(np.float32)
    bias = rng.integers(-9999, 9999, 11).astype(np.int32)
    y = card.linear(
        x, w, multiplier, bias, y_zero_point=3, relu=True, weight_zero_point=w_zero, dtype=dtype,
        **zeros,
    )  # fmt: skip
    golden = matmul(x, w.T, bias, multiplier, 3, True, w_zero_point=w_zero, dtype=dtype, **zeros)
    np.testing.assert_array_equal(y, golden)


def test_batches_of_two_activations(card):
    rng = np.random.default_rng(2)
    x, w = some(rng, (3, 9, 20), np.uint8), some(rng, (3, 20, 7), np.int8)
    total = product(x, w, 100, -5)
    zeros = {"x_zero_point": 100, "w_zero_point": -5}
    np.testing.assert_array_equal(card.matmul(x, w, dtype=np.int32, **zeros), total)
    golden = requantise(total, np.zeros(7, np.int32), np.full(7, 1e-3, np.float32), 128)
    turned = np.ascontiguousarray(w.swapaxes(1, 2))
    for operand, transposed in ((w, False), (turned, True)):
        y = card.matmul(x, operand, 1e-3, y_zero_point=128, transposed=transposed, **zeros)
        np.testing.assert_array_equal(y, golden)


def test_dot_products_of_all_pairs_of_features(card):
    z = some(np.random.default_rng(3), (5, 7, 16), np.uint8)
    y = card.matmul(
        z, z, 1e-3, x_zero_point=128, w_zero_point=128, y_zero_point=99, transposed=True,
        triangle=True,
    )  # fmt: skip
    total = product(z, z.swapaxes(1, 2), 128, 128)
    golden = requantise(total, np.zeros(7, np.int32), np.full(7, 1e-3, np.float32), 99)
    np.testing.assert_array_equal(y, triangle(golden))
    assert y.shape == (5, 21)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolution_with_groups(card, groups):
    rng = np.random.default_rng(groups)
    x, w = some(rng, (7, 6, 6), np.uint8), some(rng, (12, 3, 2, 6 // groups), np.int8)
    options = {"stride": (2, 1), "dilation": (1, 2)}
    y = card.conv2d(
        x, w, 2e-3, x_zero_point=77, y_zero_point=20, weight_zero_point=4, groups=groups,
        pads=(1, 2, 1, 0), **options,
    )  # fmt: skip
    k, n = 6 // groups, 12 // groups
    sums = [
        convolution(
            x[:, :, g * k : (g + 1) * k], w[g * n : (g + 1) * n].transpose(1, 2, 3, 0),
            out=y.shape[:2], pad=(1, 2), x_zero_point=77, w_zero_point=4, **options,
        )
        for g in range(groups)
    ]  # fmt: skip
    multiplier, bias = np.full(12, 2e-3, np.float32), np.zeros(12, np.int32)
    np.testing.assert_array_equal(y, requantise(np.concatenate(sums, axis=2), bias, multiplier, 20))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_convolution_of_channels_by_themselves(card, dtype):
    rng = np.random.default_rng(3)
    x, w = some(rng, (7, 6, 70), np.int8), some(rng, (70, 3, 2, 1), np.uint8)
    bias, multiplier = some(rng, 70, np.int8).astype(np.int32), np.full(70, 2e-3, np.float32)
    window = {"stride": (2, 1), "dilation": (1, 2)}
    call = window | {
        "bias": bias, "relu": True, "x_zero_point": -7, "y_zero_point": 20, "dtype": dtype,
        "weight_zero_point": 4, "groups": 70, "pads": (1, 2, 1, 0),
    }  # fmt: skip
    y = card.conv2d(x, w, multiplier, **call)
    kernel = w[..., 0].transpose(1, 2, 0)
    total = depthwise(
        x, kernel, out=y.shape[:2], pad=(1, 2), x_zero_point=-7, w_zero_point=4, **window
    )
    np.testing.assert_array_equal(y, requantise(total, bias, multiplier, 20, True, dtype))
    with card.tensor(x) as placed, card.conv2d(placed, w, multiplier, **call) as made:
        np.testing.assert_array_equal(made.numpy(), y)


@pytest.mark.parametrize("each", [1, 2, 4])
def test_groups_that_divide_a_tile_are_one_command_also_of_a_tensor(card, each):
    rng, channels = np.random.default_rng(each), 28
    x, w = some(rng, (5, 4, channels), np.uint8), some(rng, (channels, 3, 2, each), np.uint8)
    zeros = {"x_zero_point": 7, "weight_zero_point": 130, "dtype": np.int32}
    groups = channels // each
    y = card.conv2d(x, w, groups=groups, pads=(1, 0), **zeros)
    slices = [slice(group * each, (group + 1) * each) for group in range(groups)]
    sums = [
        convolution(x[:, :, own], w[own].transpose(1, 2, 3, 0), out=y.shape[:2], pad=(1, 0),
                    x_zero_point=7, w_zero_point=130)
        for own in slices
    ]  # fmt: skip
    np.testing.assert_array_equal(y, np.concatenate(sums, axis=2))
    with card.tensor(x) as held, card.conv2d(held, w, groups=groups, pads=(1, 0), **zeros) as there:
        np.testing.assert_array_equal(there.numpy(), y)


@pytest.mark.parametrize("place", ["scratchpad", "dram"])
def test_weight_bytes_are_counted_by_the_memory_they_come_from(card, place):
    config = card.config
    weight = np.ones((8, 20), np.int8)
    memory = getattr(card, place)
    values = [
        np.zeros((3, 32), np.uint8).reshape(-1),
        pack_weights(weight, config),
        pack_params(weight, np.ones(8, np.float32), np.zeros(8, np.int32), 0),
    ]
    blocks = [memory.allocate(value.size) for value in values] + [memory.allocate(3 * 16)]
    for block, value in zip(blocks, values, strict=False):
        card.accelerator.upload(block, value)
    x, w, params, y = (block.address for block in blocks)
    command = pack(Opcode.MATMUL, x=x, w=w, params=params, y=y, m=3, k=20, n=8, x_stride=32,
                   y_stride=16)  # fmt: skip
    before = card.counters()
    card.device.check(card.device.submit([command, command]))
    spent = {name: count - before[name] for name, count in card.counters().items()}
    for block in blocks:
        card.release(block)
    expected = dict.fromkeys(("weight_dram_bytes", "weight_scratchpad_bytes"), 0)
    expected[f"weight_{place}_bytes"] = 2 * len(values[1])
    assert {name: spent[name] for name in expected} == expected


def test_small_groups_share_weight_tiles():
    default = PRESETS["default"]
    assert groups_per_tile(default, 1, 1, 64) == 16
    assert groups_per_tile(default, 3, 2, 6) == 3  # 5 would fit, but 6 groups are no multiple
    assert groups_per_tile(default, 32, 32, 4) == 1


@pytest.mark.parametrize("multiplier", [0.0, np.nan, np.inf, 1e-50, -1e50])
def test_a_bad_multiplier_is_refused_and_its_channel_named(card, multiplier):
    x, w = np.ones((2, 3), np.uint8), np.ones((5, 3), np.int8)
    before = card.counters()
    with pytest.raises(ValueError, match=r"output channel 2 has .*, must be finite and not zero"):
        card.linear(x, w, np.array([1, 1, multiplier, 1, 1]))
    after = card.counters()
    work = [name for name in after if name.endswith(("_busy_cycles", "_bytes"))]
    assert [after[name] for name in work] == [before[name] for name in work]
    assert card.linear(x, w, 1.0).tolist() == [[3] * 5] * 2


@pytest.mark.parametrize("multiplier", [0.0, np.nan, np.inf])
def test_the_card_refuses_a_bad_multiplier_too_and_names_its_channel(card, multiplier):
    scales = np.array([1, 1, multiplier, 1, 1], np.float32)
    params = pack_params(np.zeros((5, 1), np.int8), scales, np.zeros(5, np.int32), 0)
    block = card.dram.allocate(1024)
    card.accelerator.upload(block, params)
    command = pack(Opcode.MATMUL, x=block.address + 256, w=block.address + 512,
                   params=block.address, y=block.address + 768, m=2, k=3, n=5, x_stride=16,
                   y_stride=16)  # fmt: skip
    with pytest.raises(CommandError, match="multiplier of output channel 2 is zero, inf") as error:
        card.device.check(card.device.submit([command]))
    assert error.value.status is Status.BAD_MULTIPLIER
    card.release(block)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": np.float32}, "dtype=float32: must be uint8 or int8 or int32"),
        ({"multiplier": None}, "multiplier: missing, uint8 outputs need one"),
        ({"dtype": np.int32}, "dtype=int32: sums of products as they are take no multiplier"),
        ({"weight_zero_point": 128}, "weight_zero_point=128: must be an integer from -128 to 127"),
        ({"x_zero_point": -1}, "x_zero_point=-1: must be an integer from 0 to 255"),
    ],
)
def test_linear_refuses_in_words(card, change, message):
    operands = {"x": np.ones((2, 3), np.uint8), "weight": np.ones((5, 3), np.int8)}
    with pytest.raises(ValueError, match=message):
        card.linear(**operands | {"multiplier": 1.0} | change)


def test_convolution_and_batches_refuse_what_does_not_fit(card):
    x, w = np.ones((4, 4, 6), np.uint8), np.ones((4, 3, 3, 3), np.int8)
    with pytest.raises(ValueError, match=r"with groups=3 does not fit x: \[4, 4, 6\]"):
        card.conv2d(x, w, 1.0, groups=3)
    with pytest.raises(ValueError, match=r"kernel height 3 .* the height of x with its pads is 2"):
        card.conv2d(x[:2], w, 1.0, groups=2)
    with pytest.raises(ValueError, match=r"w: \[4, 4, 6\] does not fit x: \[4, 4, 6\]"):
        card.matmul(x, x, 1.0)
    with pytest.raises(ValueError, match="triangle: needs as many rows as columns"):
        card.matmul(x, np.ones((4, 6, 5), np.uint8), 1.0, triangle=True)
