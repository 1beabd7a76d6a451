"""Long commands in bands: with the bits of the whole, and engines that work at the same time."""

import re
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Engine, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler import bands, costs
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.operands import decoded
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from tests.host.networks import Network, convolution, residual
from tests.host.recommenders import check_served

TINY, DEFAULT = PRESETS["tiny"], PRESETS["default"]
U8 = ElementFormat.UINT8


class Whole(HalfdomeTarget):
    """Cards whose commands are not cut."""

    def in_bands(self, commands):
        return list(commands)


class Unstaged(HalfdomeTarget):
    """Cards whose products read everything where it lies."""

    def strip_height(self, window, blocks, row_bytes, slots, alone=False):
        return 0


def in_bands(most):
    """However short commands are, they come in so many bands."""
    shares = dict.fromkeys(bands.START_SHARE, 1e3)
    return patch.multiple(bands, START_SHARE=shares, STARTS=1e6, MOST=most, MOST_ALONE=most)


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(1, 2), most=st.integers(2, 5),
    config=st.sampled_from([TINY.replace(scratchpad_bytes=4096, activation_rows=2), TINY]),
)  # fmt: skip
def test_any_network_has_its_bits_in_bands(seed, cards, most, config):
    made = Network(seed)
    try:
        with in_bands(most), patch.object(bands, "LEAST_BLOCK", 1e-3):
            check_served(made.graph, [made.request()], config, cards=cards, seed=seed)
    except MemoryError:
        assert config is not DEFAULT
    except GraphError as error:
        if not re.search("order of columns|does not become", str(error)):
            raise


def test_a_row_of_an_image_that_a_tap_leaps_over_is_no_band():
    """A window's first tap lies above it, the second in it: such an image is refused."""
    window = {"kernel": (2, 1), "dilation": (3, 1), "pads": (3, 0, 0, 0), "stride": (1, 1)}
    graph = Graph(
        [Value("x", (1, 12, 2, 16), U8)], ["y"], [Node("max_pool", ("x",), "y", window)], {}
    )  # fmt: skip
    request = {"x": np.random.default_rng(2).integers(0, 256, (1, 12, 2, 16)).astype(np.uint8)}
    for most, count in ((12, 1), (3, 3)):
        with in_bands(most):
            program = check_served(graph, [request], TINY)
        assert commands(program)[Opcode.POOL] == count


def commands(program):
    part = program.parts[0]
    return Counter(Opcode(raw[0]) for raw in part.code["descriptors"][: len(part)].tolist())


def test_sums_run_under_products():
    """A sum begins with the first band of a product, and the next product with that of the sum."""
    graph = residual(112, 64, 3)
    whole, cut = (
        compile(graph, target, values=False).about
        for target in (Whole(DEFAULT), HalfdomeTarget(DEFAULT))
    )
    array = whole["busy_cycles"][0][str(int(Engine.MATMUL))]
    assert whole["latency_cycles"] > 1.35 * array
    assert cut["latency_cycles"] < 1.25 * array
    assert cut["busy_cycles"][0][str(int(Engine.MATMUL))] < 1.01 * array


def test_what_is_short_stays_whole():
    found = commands(compile(residual(4, 32, 1), DEFAULT, values=False))
    assert found[Opcode.MATMUL] == found[Opcode.ADD_QUANTISED] == 1


def rows_of_bands(image, kernel, channels=256):
    """Of a product with each pixel, or a convolution."""
    program = compile(residual(image, channels, 1, kernel), Unstaged(DEFAULT), values=False)
    opcode = Opcode.MATMUL if kernel == 1 else Opcode.CONV2D
    made = [each.values for each in decoded(program.parts[0]) if each.opcode is opcode]
    return [each["m"] if kernel == 1 else each["out_height"] * each["out_width"] for each in made]


@pytest.mark.parametrize(
    ("image", "kernel", "count"), [(14, 1, 4), (14, 3, 4), (7, 3, 2), (7, 1, 1), (4, 3, 1)]
)
def test_a_small_image_comes_in_bands_that_leave_dram_to_others(image, kernel, count):
    """What reads them need not wait for a block of the array's rows."""
    rows = rows_of_bands(image, kernel)
    assert sum(rows) == image * image
    assert len(rows) == count
    weights = DEFAULT.weight_tile_bytes / costs.dram_bytes_per_cycle(DEFAULT)
    if count > 1:
        assert weights / max(rows) <= bands.WEIGHTS_SHARE


@pytest.mark.parametrize(("channels", "count"), [(144, 1), (176, 3)])
def test_a_band_of_a_short_product_has_time_to_begin(channels, count):
    assert len(rows_of_bands(14, 1, channels)) == count


@pytest.mark.parametrize(("image", "channels", "count"), [(7, 1152, 2), (14, 480, 14)])
def test_short_depthwise_convolutions_have_few_bands_and_long_ones_a_row_each(
    image, channels, count
):
    found = commands(compile(convolution(image, channels, channels, channels), DEFAULT))
    assert found[Opcode.DEPTHWISE] == count


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("image", [28, 56, 112])
def test_bands_of_products_fetch_few_weights_more(image, kernel):
    """Each block of the array's rows fetches all of them, and so does what is left of one."""
    rows = rows_of_bands(image, kernel)
    assert sum(rows) == image * image
    assert 1 < len(rows) <= bands.MOST
    fewest = -(-image * image // DEFAULT.activation_rows)
    assert sum(-(-each // DEFAULT.activation_rows) for each in rows) <= 1.15 * fewest
