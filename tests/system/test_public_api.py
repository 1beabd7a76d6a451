"""What a user calls, on real cards: bits of the golden functions, of PyTorch and ONNX Runtime."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Engine, Opcode
from halfdome.hdl.config import preset
from halfdome.hdl.descriptors import pack
from halfdome.hdl.registers import ACTIVITIES
from tests.oracles.gather_vectors import random_case as gather_case
from tests.oracles.gather_vectors import torch_embedding_bag
from tests.oracles.matmul_vectors import qlinear_matmul
from tests.oracles.matmul_vectors import random_case as matmul_case

TINY = preset("tiny")


def bits(values):
    """The bits of float32 values: NaN and the sign of zero count."""
    return np.ascontiguousarray(values).view(np.uint32).tolist()


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)


def bag_case(seed, dim, row_bits, weighted, bags=None):
    """`random_case` of the oracle, or `bags` bags with several hundred indices."""
    rng = np.random.default_rng(seed)
    table, indices, lengths, weights = gather_case(rng, dim, row_bits, weighted, special=False)
    if bags:
        lengths = rng.integers(0, 30, bags)
        lengths[0] = lengths[-1] = 0
        indices = rng.integers(0, len(table), lengths.sum()).astype(np.int32)
        weights = rng.standard_normal(len(indices)).astype(np.float32) if weighted else None
    return table, indices, lengths, weights


BAGS = [
    (dim, row_bits, weighted, bags)
    for row_bits, dims in ((8, (1, 7, 33)), (4, (2, 6, 34)))
    for dim in dims
    for weighted in (False, True)
    for bags in (None, 40)
]


@pytest.mark.parametrize(("dim", "row_bits", "weighted", "bags"), BAGS)
def test_embedding_bag_has_the_bits_of_the_golden_function(
    runtime, card, dim, row_bits, weighted, bags
):
    table, indices, lengths, weights = bag_case(dim, dim, row_bits, weighted, bags)
    pooled = card.embedding_bag(
        table, indices, offsets_of(lengths), bits=row_bits, per_sample_weights=weights
    )
    golden = runtime.reference.embedding_bag(table, indices, offsets_of(lengths), row_bits, weights)
    assert pooled.dtype == np.float32
    assert pooled.shape == (len(lengths), dim)
    assert bits(pooled) == bits(golden)


@pytest.mark.parametrize(("dim", "row_bits", "weighted", "bags"), BAGS)
def test_embedding_bag_has_the_bits_of_torch(card, dim, row_bits, weighted, bags):
    pytest.importorskip("torch")
    table, indices, lengths, weights = bag_case(dim, dim, row_bits, weighted, bags)
    pooled = card.embedding_bag(
        table, indices, offsets_of(lengths), bits=row_bits, per_sample_weights=weights
    )
    assert bits(pooled) == bits(torch_embedding_bag(table, indices, lengths, row_bits, weights))


def test_only_empty_bags_pool_to_zeros(card):
    table, *_ = bag_case(0, 5, 8, False)
    pooled = card.embedding_bag(table, np.zeros(0, np.int64), np.zeros(3, np.int64))
    assert bits(pooled) == [[0] * 5] * 3


def test_one_row_of_one_element(runtime, card):
    table, *_ = bag_case(0, 1, 8, False)
    pooled = card.embedding_bag(table[:1], np.array([0]), np.array([0]))
    golden = runtime.reference.embedding_bag(table[:1], np.array([0]), np.array([0]))
    assert bits(pooled) == bits(golden)


def test_a_table_stays_on_the_card_for_many_calls(card):
    table, indices, lengths, _ = bag_case(3, 12, 8, False)
    expected = card.embedding_bag(table, indices, offsets_of(lengths))
    free = card.dram.free_bytes
    placed = card.table(table)
    assert not placed.preloaded
    for _ in range(2):
        assert bits(card.embedding_bag(placed, indices, offsets_of(lengths))) == bits(expected)
    card.release(placed)
    assert card.dram.free_bytes == free


def test_a_preloaded_table_takes_no_time_and_says_so(runtime, card):
    table, indices, lengths, _ = bag_case(4, 16, 4, False)
    expected = card.embedding_bag(table, indices, offsets_of(lengths), bits=4)
    before = runtime.cycles
    placed = card.table(table, bits=4, preload=True)
    assert placed.preloaded
    assert runtime.cycles == before
    assert bits(card.embedding_bag(placed, indices, offsets_of(lengths))) == bits(expected)
    card.release(placed)


def test_tensors_stay_on_the_card_between_calls(runtime, card):
    """What travels is what goes in and comes out, not what lies between."""
    rng = np.random.default_rng(5)
    x, bias = rng.integers(0, 256, (40, 64), np.uint8), rng.normal(size=(1, 64)).astype(np.float32)
    weight = rng.integers(-9, 9, (64, 64)).astype(np.int8)
    with card.tensor(x) as placed:
        before = card.counters()
        with card.linear(placed, weight, 0.01, y_zero_point=128) as y:
            with card.add(y, bias, a_zero_point=128, function="tanh") as z, card.copy(z) as again:
                after = card.counters()
                found = again.numpy()
    golden = runtime.reference.linear(x, weight, 0.01, y_zero_point=128)
    golden = runtime.reference.add(golden, bias, a_zero_point=128, function="tanh")
    assert bits(found) == bits(golden)
    read = after["pcie_read_bytes"] - before["pcie_read_bytes"]
    written = after["pcie_write_bytes"] - before["pcie_write_bytes"]
    assert read < weight.nbytes + bias.nbytes + 64 * 8 + 20 * 64  # and parameters, descriptors
    assert written < 20 * 16  # completions


@pytest.mark.parametrize("kinds", [(np.uint8, np.int8), (np.int8, np.uint8)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (7, 37), (40, 300)])
def test_lookup_has_the_bits_of_the_golden_function(runtime, card, kinds, shape):
    rng = np.random.default_rng(shape[1])
    a = rng.integers(0, 256, shape, np.uint8).view(kinds[0])
    table = rng.integers(0, 256, 256, np.uint8).view(kinds[1])
    found = card.lookup(a, table)
    assert found.dtype == kinds[1]
    assert found.tolist() == runtime.reference.lookup(a, table).tolist()
    with card.tensor(a) as placed, card.tensor(table) as entries:
        with card.lookup(placed, entries) as once, card.lookup(once, table[::-1].copy()) as twice:
            assert once.numpy().tolist() == found.tolist()
            again = runtime.reference.lookup(found, table[::-1])
            assert twice.numpy().tolist() == again.tolist()


@pytest.mark.parametrize("kinds", [(np.uint8, np.int8, np.uint8), (np.int8, np.uint8, np.int8)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (7, 37), (40, 300)])
@pytest.mark.parametrize("spread", [None, "row", "column"])
def test_quantised_pairs_have_the_bits_of_the_golden_functions(runtime, card, kinds, shape, spread):
    rng = np.random.default_rng(shape[1])
    own = {None: shape, "row": (1, shape[1]), "column": (shape[0], 1)}[spread]
    a, b = (
        rng.integers(0, 256, size, np.uint8).view(kind)
        for size, kind in zip((shape, own), kinds[:2], strict=True)
    )
    add = {"a_ratio": 0.37, "b_ratio": -0.5, "offset": 60.25, "dtype": kinds[2]}
    multiply = {"multiplier": 0.011, "dtype": kinds[2], "b_zero_point": 9, "y_zero_point": 100}
    for name, options in (
        ("add_quantised", add), ("add_quantised", add | {"inner": "a"}),
        ("multiply_quantised", multiply),
    ):  # fmt: skip
        found = getattr(card, name)(a, b, **options)
        assert found.dtype == kinds[2]
        assert found.tolist() == getattr(runtime.reference, name)(a, b, **options).tolist()
    with card.tensor(a) as left, card.tensor(b) as right:
        with card.add_quantised(left, right, **add) as made:
            expected = runtime.reference.add_quantised(a, b, **add)
            assert made.numpy().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("add_quantised", {"a_ratio": 0.0, "b_ratio": 1.0}, "a_ratio=0.0: must be finite and not"),
        (
            "add_quantised",
            {"a_ratio": 1.0, "b_ratio": 256.0},
            "b_ratio=256.0: must be from",
        ),
        ("add_quantised", {"a_ratio": 1.0, "b_ratio": 1.0, "offset": 131072.0}, "offset=131072.0"),
        ("add_quantised", {"a_ratio": 1.0, "b_ratio": 1.0, "inner": "c"}, "inner='c': must be"),
        ("multiply_quantised", {"multiplier": -4.0}, r"multiplier=-4.0: .* to below 2\^2"),
        ("multiply_quantised", {"multiplier": 1.0, "b_zero_point": 256}, "b_zero_point=256"),
        ("multiply_quantised", {"multiplier": 1.0, "dtype": np.float32}, "dtype"),
    ],
)
def test_quantised_pairs_refuse_what_no_command_takes(card, name, options, message):
    a = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        getattr(card, name)(a, a, **options)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("scale", [0.1, 3.0e-38, 7.0])
def test_quantise_linear_is_onnx_runtimes(runtime, card, onnx_quantise, kind, scale):
    rng, point = np.random.default_rng(3), 9
    scale = np.float32(scale)
    x = (rng.integers(-600, 600, (9, 37)).astype(np.float32) / 2 * scale).astype(np.float32)
    x[0, :4] = np.nan, np.inf, -np.inf, -0.0
    found = card.quantise_linear(x, scale, point, kind)
    assert found.dtype == kind
    assert found.tolist() == runtime.reference.quantise_linear(x, scale, point, kind).tolist()
    assert found.tolist() == onnx_quantise(x, scale, point, kind).tolist()


@pytest.fixture(scope="module")
def onnx_quantise():
    """QuantizeLinear by ONNX Runtime."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

    def run(x, scale, zero_point, kind):
        inputs = {"x": x, "s": np.asarray(scale), "z": np.asarray(zero_point, kind)}
        types = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
        known = [
            onnx.helper.make_tensor_value_info(n, types[n], a.shape) for n, a in inputs.items()
        ]
        made = onnx.helper.make_tensor_value_info("y", types["z"], x.shape)
        node = onnx.helper.make_node("QuantizeLinear", list(inputs), ["y"])
        graph = onnx.helper.make_graph([node], "g", known, [made])
        opsets = [onnx.helper.make_opsetid("", 19)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return runtime.InferenceSession(model.SerializeToString()).run(None, inputs)[0]

    return run


@pytest.mark.parametrize("scale", [0, -1.0, 1e-39, np.inf])
def test_quantise_linear_refuses_scales_that_are_not_positive_and_normal(card, scale):
    with pytest.raises(ValueError, match=r"scale=.*: must be"):
        card.quantise_linear(np.zeros((1, 1), np.float32), scale)


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (65, 7), (3, 17, 33), (2, 2, 3, 1)])
def test_transpose_exchanges_the_last_axes(runtime, card, shape, kind):
    x = np.random.default_rng(shape[-1]).integers(0, 256, shape).astype(kind)
    found = card.transpose(x)
    assert found.dtype == kind
    assert found.tolist() == runtime.reference.transpose(x).tolist() == x.swapaxes(-1, -2).tolist()
    with card.tensor(x) as placed, card.transpose(placed) as once, card.transpose(once) as twice:
        assert twice.numpy().tolist() == x.tolist()


@pytest.mark.parametrize("shape", [(5,), (0, 5), (1, 65536)])
def test_transpose_refuses_what_has_no_rows_or_too_long_ones(card, shape):
    with pytest.raises(ValueError, match=r"x: .*(must have two dimensions|from 1 to 65535)"):
        card.transpose(np.zeros(shape, np.uint8))


POOLS = [
    {"kernel": 1}, {"kernel": 2, "stride": 2}, {"kernel": 3, "stride": (2, 1), "pads": 1},
    {"kernel": (1, 3), "pads": (0, 2, 0, 1), "dilation": 2}, {"kernel": (6, 7)},
]  # fmt: skip


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("k", [1, 16, 67])
@pytest.mark.parametrize("call", POOLS)
def test_max_pool_has_the_bits_of_the_golden_function(runtime, card, call, k, kind):
    x = np.random.default_rng(k).integers(0, 256, (6, 7, k), np.uint8).view(kind)
    found, expected = card.max_pool(x, **call), runtime.reference.max_pool(x, **call)
    assert found.dtype == kind
    assert found.tolist() == expected.tolist()
    with card.tensor(x) as placed, card.max_pool(placed, **call) as made:
        assert made.numpy().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"kernel": 0}, "kernel=0: must be an integer"),
        ({"kernel": 8}, r"kernel=\(8, 8\): larger than the padded height 6"),
        ({"kernel": 2, "pads": 2}, r"pads=\(2, 2, 2, 2\): a window lies outside of the height 6"),
        ({"kernel": 2, "stride": (1, 256)}, r"stride\[1\]=256: must be an integer from 1 to 255"),
    ],
)
def test_max_pool_refuses_windows_that_see_nothing(card, call, message):
    with pytest.raises(ValueError, match=message):
        card.max_pool(np.zeros((6, 7, 3), np.uint8), **call)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("k", [1, 67])
@pytest.mark.parametrize("call", POOLS)
def test_average_pool_has_the_bits_of_the_golden_function(runtime, card, call, k, kind):
    x = np.random.default_rng(k).integers(0, 256, (6, 7, k), np.uint8).view(kind)
    zero_point = 0 if kind is np.int8 else 128
    call = call | {
        "x_scale": 0.03, "y_scale": 0.02, "x_zero_point": 7, "y_zero_point": zero_point,
        "dtype": kind, "include_pads": k == 67,
    }  # fmt: skip
    found, expected = card.average_pool(x, **call), runtime.reference.average_pool(x, **call)
    assert found.dtype == kind
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"kernel": (64, 4)}, r"kernel=\(64, 4\): must have 255 elements or fewer"),
        ({"kernel": 2, "pads": 2}, r"pads=\(2, 2, 2, 2\): a window lies outside of the height 6"),
        ({"kernel": 2, "y_scale": -1.0}, r"y_scale=-1.0: must be from 2\^-40 to below 2\^40"),
        ({"kernel": 2, "x_scale": 0}, "x_scale=0: must be finite and not zero"),
        ({"kernel": 2, "y_zero_point": 256}, "y_zero_point=256: must be an integer from 0 to 255"),
        ({"kernel": 2, "dtype": np.float32}, "dtype=.*: must be uint8 or int8"),
    ],
)
def test_average_pool_refuses_what_has_no_mean(card, call, message):
    height = 64 if call["kernel"] == (64, 4) else 6
    with pytest.raises(ValueError, match=message):
        card.average_pool(
            np.zeros((height, 7, 3), np.uint8), **{"x_scale": 1.0, "y_scale": 1.0} | call
        )


LINEAR = [(1, 1, 1), (3, 5, 7), (8, 16, 4), (33, 17, 9), (40, 65, 21)]


@pytest.mark.parametrize("shape", LINEAR)
@pytest.mark.parametrize("relu", [False, True])
def test_linear_has_the_bits_of_the_golden_function(runtime, card, shape, relu):
    m, k, n = shape
    rng = np.random.default_rng(m)
    operands = {
        "x": rng.integers(0, 256, (m, k)).astype(np.uint8),
        "weight": rng.integers(-128, 128, (n, k)).astype(np.int8),
        "multiplier": rng.uniform(1e-4, 1e-2, n).astype(np.float32),
        "bias": rng.integers(-5000, 5000, n).astype(np.int32),
        "x_zero_point": 113,
        "y_zero_point": 100,
        "relu": relu,
    }
    product = card.linear(**operands)
    assert product.dtype == np.uint8
    assert product.shape == (m, n)
    assert product.tolist() == runtime.reference.linear(**operands).tolist()
    if m * n > 1:
        assert len(np.unique(product)) > 1
    assert not relu or product.min() >= 100


@pytest.mark.parametrize("shape", LINEAR)
@pytest.mark.parametrize("extreme", [False, True])
def test_linear_has_the_bits_of_onnx_runtime(card, shape, extreme):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    case = matmul_case(np.random.default_rng(shape[1]), *shape, extreme)
    multiplier = case["x_scale"] * case["w_scale"] / case["y_scale"]
    product = card.linear(
        case["x"],
        np.ascontiguousarray(case["w"].T),
        multiplier,
        x_zero_point=int(case["x_zero_point"]),
        y_zero_point=int(case["y_zero_point"]),
    )
    assert product.tolist() == qlinear_matmul(case).tolist()


def test_one_multiplier_serves_every_channel(card):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (4, 6)).astype(np.uint8)
    weight = rng.integers(-128, 128, (5, 6)).astype(np.int8)
    each = card.linear(x, weight, np.full(5, 0.003, np.float32), y_zero_point=9)
    assert card.linear(x, weight, 0.003, y_zero_point=9).tolist() == each.tolist()


def test_operands_that_do_not_fit_the_scratchpad_go_to_dram(runtime, card):
    m, k, n = 70, 300, 60
    assert m * k > TINY.scratchpad_bytes
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (m, k)).astype(np.uint8)
    weight = rng.integers(-128, 128, (n, k)).astype(np.int8)
    multiplier, bias = np.full(n, 1e-4, np.float32), np.zeros(n, np.int32)
    read = card.counters()["dram_read_bytes"]
    product = card.linear(x, weight, multiplier, bias)
    assert product.tolist() == runtime.reference.linear(x, weight, multiplier, bias).tolist()
    assert card.counters()["dram_read_bytes"] - read >= m * k


def test_every_call_gives_its_memory_back(runtime, card):
    table, indices, lengths, weights = bag_case(1, 8, 8, True)
    before = card.dram.free_bytes, card.scratchpad.free_bytes
    card.embedding_bag(table, indices, offsets_of(lengths), per_sample_weights=weights)
    card.linear(np.ones((5, 40), np.uint8), np.ones((4, 40), np.int8), 0.01)
    assert (card.dram.free_bytes, card.scratchpad.free_bytes) == before


def test_cards_work_on_their_own_memory(runtime):
    cases = [bag_case(seed, 8, 8, False) for seed in (1, 2)]
    placed = [
        card.table(case[0], preload=True) for card, case in zip(runtime.cards, cases, strict=True)
    ]
    for card, table, case in zip(runtime.cards, placed, cases, strict=True):
        _, indices, lengths, _ = case
        golden = runtime.reference.embedding_bag(case[0], indices, offsets_of(lengths))
        pooled = card.embedding_bag(table, indices, offsets_of(lengths))
        assert bits(pooled) == bits(golden)
        card.release(table)


def test_two_cards_have_commands_in_flight_at_once(runtime):
    half, submitted = 4096, []
    for card in runtime.cards:
        block = card.dram.allocate(2 * half)
        card.accelerator.timeline.issue(
            Opcode.COPY, source=block.address, destination=block.address + half,
            rows=1, row_bytes=half, source_stride=half, destination_stride=half,
        )  # fmt: skip
        submitted.append(card.accelerator.timeline.flush())
        card.release(block)
    ran = [
        card.device.check(identifiers)[0]
        for card, identifiers in zip(runtime.cards, submitted, strict=True)
    ]
    assert max(each.start_cycle for each in ran) < min(each.end_cycle for each in ran)


def test_a_command_longer_than_the_drivers_patience_is_no_hang(card, monkeypatch):
    monkeypatch.setattr(card.device, "patience_cycles", 300)
    start = card.counters()["core0_matmul_busy_cycles"]
    card.linear(np.ones((32, 32), np.uint8), np.ones((32, 32), np.int8), 1.0)
    assert card.counters()["core0_matmul_busy_cycles"] - start > 5 * 300


def test_a_command_that_waits_for_ever_is_a_timeout():
    with halfdome.open(cards=1, config="tiny", patience_cycles=3000) as runtime:
        alone = runtime.cards[0].device
        identifiers = alone.submit([pack(Opcode.FENCE_GATHER, wait_counter=9, wait_value=1)])
        with pytest.raises(TimeoutError, match=r"card 0: nothing completed .* opcode 0x2f, id 0"):
            alone.wait(identifiers)
        assert runtime.cycles < 20_000


def test_closing_twice_does_nothing_and_a_call_after_it_is_refused():
    """Also where a call that was refused lies between both."""
    with halfdome.open(cards=1, config="tiny", engine="timing") as runtime:
        with runtime:
            [card] = runtime.cards
        with pytest.raises(RuntimeError, match="the platform is closed"):
            card.linear(np.ones((1, 4), np.uint8), np.ones((1, 4), np.int8), 1.0)


def test_faults_are_a_list_of_them(runtime):
    with pytest.raises(ValueError, match=r"^faults='silent': must be a list of such, \['silent'\]"):
        runtime.inject("silent")


def test_counters_name_every_cycle_and_byte(runtime, card):
    first = card.counters()
    card.linear(np.ones((4, 16), np.uint8), np.ones((4, 16), np.int8), 1.0)
    second = card.counters()
    for engine in Engine:
        name = f"core0_{engine.name.lower()}_"
        spent = {key: second[key] - first[key] for key in second if key.startswith(name)}
        assert set(spent) == {f"{name}{what}_cycles" for what in ACTIVITIES}
        assert sum(spent.values()) == second["cycles"] - first["cycles"]
    assert second["core0_matmul_busy_cycles"] > first["core0_matmul_busy_cycles"]
    assert second["pcie_read_bytes"] - first["pcie_read_bytes"] >= 64 + 16 + 32


def test_time_passes_while_a_card_works(runtime, card):
    before = runtime.cycles
    card.linear(np.ones((1, 1), np.uint8), np.ones((1, 1), np.int8), 1.0)
    assert runtime.cycles > before
