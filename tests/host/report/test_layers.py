"""The account of layers: nothing is lost in it, and its figures are those of hand-made layers."""

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import halfdome
from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import preset
from halfdome.host.compiler import costs
from halfdome.host.compiler.compile import compile
from halfdome.host.driver.kernels import Window
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from halfdome.host.report import layers, tables
from halfdome.host.report.layers import Layer
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.program import Program, ProgramError
from halfdome.host.serving.deploy import deploy
from tests.host.golden_platform import GoldenPlatform
from tests.host.networks import Network
from tests.host.recommenders import Recommender

DEFAULT = preset("default")
BYTE = ElementFormat.UINT8
RNG = np.random.default_rng(5)


def answered(graph, request, cards=1, config=DEFAULT, **how):
    """A program, as it is read from a file, and its response to a request."""
    with TemporaryDirectory() as folder:
        compile(graph, config, cards, **how).save(path := Path(folder) / "program")
        program = Program.load(path)
    platform = GoldenPlatform(config, cards)
    served = Deployment(platform.session, platform.accelerators, program, lambda: 0)
    [response] = served.run([request])
    return program, response


def taking(response, cycles):
    """The response as if each command had taken so long, one after the other."""
    spans = []
    for part in response.spans:
        starts = np.arange(len(part)) * cycles
        spans.append(np.where(part >= 0, np.stack([starts, starts + cycles], 1), -1))
    return replace(response, spans=tuple(spans))


def params(n):
    return {"b": np.zeros(n, np.int32), "m": np.full(n, 0.01, np.float32)}


def net(batch=4):
    """A convolution under another name than its output, and two nodes of one layer."""
    weight = RNG.integers(-9, 9, (32, 3, 3, 16), np.int8)
    return Graph(
        inputs=[Value("image", (batch, 8, 8, 16), BYTE)],
        outputs=["half"],
        nodes=[
            Node("conv2d", ("image", "w", "b", "m"), "made", {"pads": (1, 1, 1, 1), "label": "c"}),
            Node("affine", ("made",), "scaled", {"scale": 2.0, "label": "act", "format": BYTE}),
            Node("affine", ("scaled",), "half", {"scale": 0.5, "label": "act", "format": BYTE}),
        ],
        constants={"w": weight, **params(32)},
    )


IMAGES = {"image": RNG.integers(0, 256, (4, 8, 8, 16), np.uint8)}


def test_figures_of_a_convolution_are_those_of_its_closed_form():
    graph = net()
    program, response = answered(graph, IMAGES, cards=2)
    found = layers.of(program, DEFAULT, taking(response, 1000))
    load, conv, act, store = found.layers
    assert [each.name for each in found.layers] == ["image", "c", "act", "answers"]
    assert [each.operators for each in found.layers] == [
        ("load",), ("conv2d",), ("affine",), ("store",)
    ]  # fmt: skip
    assert (found.rows, found.cards) == (4, 2)
    assert (conv.commands, conv.busy_cycles) == (4, 2000)  # an image is a command
    macs = 8 * 8 * 32 * 3 * 3 * 16
    assert conv.macs == 4 * macs
    assert conv.mac_utilisation == macs / (16 * 16 * 1000)
    window = Window((8, 8), 16, 32, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    expected = costs.convolution(DEFAULT, window) - costs.START_CYCLES
    assert conv.bound == "compute"
    assert conv.bound_cycles["compute"] == 2 * expected
    assert conv.of_bound == 2000 / (2 * expected)
    pixels, made = 8 * 8 * 16, 8 * 8 * 32
    inside = (3 * 8 - 2) ** 2 * 16  # pixels of the padding are not read
    assert conv.moved_bytes["link"] == 0
    assert sum(conv.moved_bytes.values()) == 4 * (inside + 9 * 2 * 256 + 8 * 32 + made)
    assert conv.least_bytes == 4 * (pixels + made) + 2 * (9 * 16 * 32 + 8 * 32)
    assert act.bound == "vector"
    assert act.least_bytes == 4 * 2 * made  # what is between its nodes need not move
    assert sum(act.moved_bytes.values()) == 4 * 4 * made
    assert load.moved_bytes["link"] == 2 * 4 * pixels  # 16 channels in words of 32
    assert load.least_bytes == store.least_bytes / 2 == 2 * 4 * pixels
    assert load.bound == store.bound == "link"
    assert load.of_bound == 1000 * costs.link_bytes_per_cycle(DEFAULT) / (2 * 2 * pixels)
    assert load.seconds == 1000 / (DEFAULT.clock_mhz * 1e6)


def test_cycles_that_layers_share_are_told_and_count_once():
    program, response = answered(net(), IMAGES)
    ran = {
        "image": [(0, 1000)], "c": [(1000, 2000), (1500, 2500), (2500, 3000), (3500, 4000)],
        "act": [(1800, 2800), (2800, 3200)], "answers": [(5000, 5100)],
    }  # fmt: skip
    spans = np.array([ran[label].pop(0) for label in program.parts[0].labels])
    found = layers.of(program, DEFAULT, replace(response, spans=(spans,)))
    load, conv, act, store = found.layers
    assert (conv.ran_cycles, conv.shared_cycles) == (2000 + 500, 1200)
    assert (act.ran_cycles, act.shared_cycles) == (1400, 1200)
    assert (load.shared_cycles, store.shared_cycles) == (0, 0)
    assert (conv.busy_cycles, conv.span_cycles) == (3000, 3000)


@pytest.mark.parametrize(
    ("ran", "bound", "near"),
    [(22_000, 20_000.0, True), (22_001, 20_000.0, False), (1200, 1000.0, True),
     (1201, 1000.0, False), (200, 0.0, True)],
)  # fmt: skip
def test_a_layer_is_near_its_bound_by_a_share_or_by_what_it_takes_to_begin(ran, bound, near):
    layer = Layer("y", (), ran_cycles=ran, bound="dram", bound_cycles={"dram": bound})
    assert layer.is_near_bound is near
    assert layers.Layers((layer,), 1, 1, ran).beyond == ([] if near else ["y"])


def test_weights_are_read_for_each_block_of_rows_and_x_for_each_group_of_outputs():
    rows, k, n = 500, 128, 300  # of blocks of 128 rows, lines of 64 bytes, groups of 64 outputs
    graph = Graph(
        [Value("x", (rows, k), BYTE)], ["y"], [Node("linear", ("x", "w", "b", "m"), "y")],
        {"w": RNG.integers(-9, 9, (n, k), np.int8), **params(n)},
    )  # fmt: skip
    request = {"x": RNG.integers(0, 256, (rows, k), np.uint8)}
    program, response = answered(graph, request)
    [_, linear, _] = layers.of(program, DEFAULT, response).layers
    tiles = 8 * 19 * 256
    assert sum(linear.moved_bytes.values()) == 5 * rows * k + 4 * (tiles + 8 * n) + rows * n
    assert linear.least_bytes == rows * k + n * k + 8 * n + rows * n


@pytest.mark.parametrize("wide", [False, True])
def test_bytes_in_dram_are_those_that_a_card_counts(wide):
    graph, request = net(), IMAGES
    if wide:  # eleven groups of outputs, two blocks of rows
        graph = Graph(
            [Value("x", (9, 128), BYTE)], ["y"], [Node("linear", ("x", "w", "b", "m"), "y")],
            {"w": RNG.integers(-9, 9, (176, 128), np.int8), **params(176)},
        )  # fmt: skip
        request = {"x": RNG.integers(0, 256, (9, 128), np.uint8)}
    with halfdome.open(cards=1, config="tiny") as runtime:
        served, device = deploy(runtime, graph), runtime.accelerators[0].device
        before = device.counters()
        [response] = served.run([request])
        after = device.counters()
        found = layers.of(served.program, runtime.config, response)
    counted = sum(after[name] - before[name] for name in ("dram_read_bytes", "dram_write_bytes"))
    assert found.moved_bytes["dram"] == counted > 0
    product = found.layers[1]
    assert product.bound == "compute"
    assert 0.8 < (product.mac_utilisation or 0) < 1
    assert 0.9 < (product.of_bound or 0) < 1.25


def test_a_request_of_fewer_rows_counts_what_it_needs():
    graph = net()
    program, response = answered(graph, {"image": IMAGES["image"][:1]}, cards=2)
    found = layers.of(program, DEFAULT, response)
    load, conv, *_ = found.layers
    assert (found.rows, found.cards) == (1, 1)
    assert conv.macs == 8 * 8 * 32 * 3 * 3 * 16
    assert conv.commands == 2, "its card computes a second image of zeros"
    padded = 2 * 2 * 2 * 8 * 8 * 16  # two images, 16 channels in words of 32, from and to
    assert sum(load.moved_bytes.values()) == padded
    assert load.least_bytes == padded / 4


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(1, 3),
    parallelism=st.sampled_from(["data", "pipeline"]),
)  # fmt: skip
def test_every_command_of_any_network_is_in_one_layer(seed, cards, parallelism):
    made = Network(seed)
    request = made.request()
    try:
        program, response = answered(made.graph, request, cards, parallelism=parallelism)
    except GraphError as error:
        if not re.search("order of columns|does not become", str(error)):
            raise
        return
    check(program, response, len(request["x"]))


@given(seed=st.integers(0, 1 << 30), cards=st.integers(1, 3))
def test_every_command_of_any_recommender_is_in_one_layer(seed, cards):
    made = Recommender(seed)
    request = made.request()
    program, response = answered(made.graph, request, cards, preset("tiny"))
    rows = len(next(iter(response.outputs.values())))
    check(program, response, rows, preset("tiny"))


def check(program, response, rows, config=DEFAULT):
    found = layers.of(program, config, response)
    ran = [spans[spans[:, 0] >= 0] for spans in response.spans]
    assert sum(layer.commands for layer in found.layers) == sum(map(len, ran))
    assert (found.rows, found.latency_cycles) == (rows, response.latency_cycles)
    names = Counter(layer.name for layer in found.layers)
    assert max(names.values()) == 1
    for layer in found.layers:
        assert layer.span_cycles >= layer.ran_cycles >= layer.shared_cycles >= 0
        assert layer.ran_cycles >= 3
        assert sum(layer.moved_bytes.values()) >= 0
        assert layer.mac_utilisation is None or layer.mac_utilisation >= 0
        if layer.bound:
            assert layer.bound_cycles[layer.bound] == max(layer.bound_cycles.values())
    moved = found.moved_bytes
    assert moved["link"] <= sum(moved.values()) - moved["link"], "and is in memory, too"
    told = json.loads(json.dumps(found.as_dict()))
    assert told["moved_bytes"] == moved
    assert len(told["layers"]) == len(found.layers)


def test_a_pipeline_holds_weights_once_and_sends_what_its_sections_hand_on():
    rows, size = 32, 256
    graph = Graph(
        [Value("x", (rows, size), BYTE)], ["z"],
        [Node("linear", ("x", "v", "b", "m"), "y"), Node("linear", ("y", "w", "b", "m"), "z")],
        {name: RNG.integers(-9, 9, (size, size), np.int8) for name in "vw"} | params(size),
    )  # fmt: skip
    request = {"x": RNG.integers(0, 256, (rows, size), np.uint8)}
    program, response = answered(graph, request, 2, parallelism="pipeline")
    found = layers.of(program, DEFAULT, response)
    products = [layer for layer in found.layers if layer.operators == ("linear",)]
    assert {layer.name for layer in products} == {"y", "z"}
    for layer in products:
        assert layer.commands == 1
        assert layer.least_bytes == 2 * rows * size + size * size + 8 * size
    assert found.cards == 2
    assert found.moved_bytes["link"] == 3 * rows * size  # in, on, and out


def test_a_pooling_moves_the_rows_that_were_asked_for():
    rows, dim = 40, 8
    graph = Graph(
        inputs=[
            Value("indices", (12,), ElementFormat.INT32, ragged=True),
            Value("lengths", (4,), ElementFormat.INT32),
        ],
        outputs=["pooled"],
        nodes=[Node("embedding_bag", ("table", "indices", "lengths"), "pooled", {
            "row_format": 4, "format": ElementFormat.FLOAT32, "mean_length": 1.0,
        })],
        constants={"table": RNG.normal(size=(rows, dim)).astype(np.float32)},
    )  # fmt: skip
    request = {
        "indices": np.array([1, 2, 3, 4, 5], np.int32),
        "lengths": np.array([2, 0, 3, 0], np.int32),
    }
    program, response = answered(graph, request)
    found = {each.name: each for each in layers.of(program, DEFAULT, response).layers}
    pooled = found["pooled"]
    moved = 5 * dim * 4 + 4 * (5 + 4) + 4 * dim * 4
    assert sum(pooled.moved_bytes.values()) == pooled.least_bytes == moved
    assert pooled.bound == "gather"
    assert found["indices"].least_bytes == sum(found["indices"].moved_bytes.values())


def test_what_does_not_belong_together_is_refused():
    graph = net()
    program, response = answered(graph, IMAGES)
    with pytest.raises(ProgramError, match="the configuration is halfdome"):
        layers.of(program, preset("tiny"), response)
    with pytest.raises(ValueError, match="not of this program's commands"):
        layers.of(program, DEFAULT, replace(response, spans=response.spans * 2))


def test_layers_of_cards_and_host_are_printed_in_80_columns():
    graph = net()
    program, response = answered(graph, IMAGES, cards=2)
    found = layers.of(program, DEFAULT, taking(response, 123_456))
    host = Layer("soft", ("Softmax",), where="host", reason="no command", seconds=0.0021)
    file = io.StringIO()
    console = Console(file=file, width=80)
    tables.print_layers(replace(found, layers=(*found.layers, host)), console)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for layer in found.layers:
        assert f"{layer.ran_cycles:,}" in text
        assert f"{layer.bound} {layer.of_bound:.2f}" in text
    for words in (
        "Layers of 4 samples on 2 cards",
        "Softmax",
        "2.1",
        "no command",
        "the least possible",
    ):
        assert words in text
