import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import helper

from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.load import load
from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.quantise import to_qoperator
from halfdome.host.frontend.sessions import open_session, oracle
from halfdome.host.frontend.steps import CardStep, HostStep
from halfdome.host.graph.values import GraphError
from tests.host.frontend.nets import images, model, node, residual, typed
from tests.host.frontend.single import bytes_of
from tests.host.frontend.test_products import scale
from tests.host.recommenders import check_served

QUANTISED = {"s": scale(0.05), "z": np.uint8(100), "v": scale(0.05), "o": np.int8(0)}


def answer(found, request):
    """What the steps make of a request, one after the other."""
    known = dict(request)
    for step in found:
        if isinstance(step, CardStep):
            known |= step.run(known)
        else:
            inputs = {name: known[name] for name in step.inputs}
            results = open_session(step.model).run(list(step.outputs), inputs)
            known |= dict(zip(step.outputs, results, strict=True))
    return known


def kinds(found):
    return ["cards" if isinstance(step, CardStep) else "host" for step in found]


def served(step, request):
    """Checks that cards of plain Python answer what the step's graph says."""
    values = {port.value: port.pack([request[port.tensor]] * 2) for port in step.inputs}
    check_served(step.graph(2), [values], PRESETS["default"], cards=2)


def operators(step):
    return [each.op_type for each in step.model.graph.node]


def product(x, y):
    return node("QLinearMatMul", f"{x} s z w v o s z", y)


def weights(rng, count=6):
    return {"w": bytes_of(rng, np.dtype(np.int8), count, count)}


@pytest.fixture(scope="module")
def network():
    return to_qoperator(load(residual()), [{"x": images(4)}])


def test_a_network_has_the_bits_of_onnx_runtime(network):
    found = steps(network)
    session = oracle(network)
    for image in images(4, seed=11):
        expected = session.run(["y"], {"x": image})[0]
        np.testing.assert_array_equal(answer(found, {"x": image})["y"], expected)


def test_hosts_and_cards_take_turns(network):
    found = steps(network)
    assert kinds(found) == ["host", "cards", "host"]
    assert [operators(step) for step in found if isinstance(step, HostStep)] == [
        ["QuantizeLinear"], ["QLinearSoftmax", "DequantizeLinear"],
    ]  # fmt: skip
    assert [each.op for step in found if isinstance(step, CardStep) for each in step.nodes] == [
        "conv2d", "max_pool", "conv2d", "add_quantised", "conv2d", "reshape", "linear",
    ]  # fmt: skip


def test_every_node_is_accounted_for(network):
    labels = [each.name for each in network.graph.node]
    seen = []
    for step in steps(network):
        if isinstance(step, HostStep):
            seen += step.reasons
            assert all(step.reasons.values())
        else:
            seen += step.made
            values = {each.output for each in step.nodes}
            assert {name for made in step.made.values() for name in made} == values
    assert sorted(seen) == sorted(labels)


def test_reasons_are_in_words(network):
    reasons = {}
    for step in steps(network):
        if isinstance(step, HostStep):
            reasons |= step.reasons
    assert "cards sum rows in another order, which gives other bits" in reasons.values()


def test_requests_are_stacked(network):
    found = [step for step in steps(network) if isinstance(step, CardStep)]
    [port] = found[0].inputs
    many = [bytes_of(np.random.default_rng(n), port.dtype, *port.shape) for n in range(3)]
    graph = found[0].graph(3)
    assert graph.batch == 3
    [out] = found[0].outputs
    stacked = out.unpack(graph.run({port.value: port.pack(many)})[out.value])
    for each, result in zip(many, stacked, strict=True):
        np.testing.assert_array_equal(found[0].run({port.tensor: each})[out.tensor], result)


def test_a_tensor_that_does_not_fit_a_port_is_refused(network):
    [port, *_] = [port for step in steps(network) if isinstance(step, CardStep)
                  for port in step.inputs]  # fmt: skip
    with pytest.raises(ModelError, match=r"float32\[1, 3, 12, 12\], must be uint8\[1, 3, 12, 12\]"):
        port.pack([images(1)[0]])


def test_rows_of_a_batch_are_samples():
    rng = np.random.default_rng(1)
    nodes = [product("x", "a"), product("a", "y")]
    net = model(nodes, {"x": (np.uint8, (4, 6))}, ["y"], QUANTISED | weights(rng))
    [step] = steps(net)
    assert step.samples == 4
    assert step.graph(2).inputs[0].shape == (8, 6)


def test_a_request_whose_rows_mix_is_one_sample():
    rng = np.random.default_rng(2)
    nodes = [
        product("x", "a"),
        node("Transpose", "a", "b", perm=[1, 0]),
        node("QLinearMatMul", "b s z u v o s z", "y"),
    ]
    constants = QUANTISED | weights(rng) | {"u": bytes_of(rng, np.dtype(np.int8), 4, 3)}
    net = model(nodes, {"x": (np.uint8, (4, 6))}, ["y"], constants)
    [step] = steps(net)
    assert step.samples == 1
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 4, 6)}
    np.testing.assert_array_equal(answer([step], request)["y"], oracle(net).run(None, request)[0])


def test_moves_between_nodes_of_the_host_stay_there():
    nodes = [
        node("MaxPool", "x", "a places", kernel_shape=[2, 2]),
        node("Reshape", "a shape", "b"),
        node("Transpose", "b", "c", perm=[1, 0]),
        node("DequantizeLinear", "c s z", "d"),
        node("Softmax", "d", "y"),
    ]
    constants = QUANTISED | {"shape": np.array([3, -1])}
    net = model(nodes, {"x": (np.uint8, (1, 3, 4, 4))}, ["y"], constants)
    [step] = steps(net)
    assert isinstance(step, HostStep)
    assert len(step.reasons) == 5


def test_bytes_travel_rather_than_floats():
    rng = np.random.default_rng(3)
    nodes = [
        node("Sigmoid", "x", "a"),
        node("QuantizeLinear", "a s z", "b"),
        product("b", "c"),
        node("DequantizeLinear", "c s z", "d"),
        node("Softmax", "d", "y"),
    ]
    net = model(nodes, {"x": (np.float32, (2, 6))}, ["y"], QUANTISED | weights(rng))
    before, step, after = steps(net)
    assert [port.dtype for port in (*step.inputs, *step.outputs)] == [np.uint8, np.uint8]
    assert (operators(before)[-1], operators(after)[0]) == ("QuantizeLinear", "DequantizeLinear")


def test_what_is_ready_runs_in_one_turn():
    """Two branches, each with a node of the host between two of cards: no turn more than of one."""
    rng = np.random.default_rng(4)
    nodes = []
    for name in "ab":
        nodes += [
            product("x", f"{name}1"),
            node("DequantizeLinear", f"{name}1 s z", f"{name}2"),
            node("Softmax", f"{name}2", f"{name}3"),
            node("QuantizeLinear", f"{name}3 s z", f"{name}4"),
            product(f"{name}4", f"{name}5"),
        ]
    nodes.append(node("QLinearAdd", "a5 s z b5 s z s z", "y", "com.microsoft"))
    net = model(nodes, {"x": (np.uint8, (2, 6))}, ["y"], QUANTISED | weights(rng))
    found = steps(net)
    assert kinds(found) == ["cards", "host", "cards"]
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 2, 6)}
    np.testing.assert_array_equal(answer(found, request)["y"], oracle(net).run(None, request)[0])


def test_attention_has_the_bits_of_onnx_runtime():
    """Heads apart, products of queries and keys, a softmax on the host, and values joined again."""
    rng = np.random.default_rng(5)
    nodes = []
    for name in "qkv":
        nodes += [
            node("QLinearMatMul", f"x s z w{name} v o s z", f"{name}1"),
            node("Reshape", f"{name}1 apart", f"{name}2"),
            node("Transpose", f"{name}2", f"{name}3",
                 perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]),
        ]  # fmt: skip
    nodes += [
        node("QLinearMatMul", "q3 s z k3 s z s z", "scores"),
        node("DequantizeLinear", "scores s z", "floats"),
        node("Softmax", "floats", "shares"),
        node("QuantizeLinear", "shares s z", "bytes"),
        node("QLinearMatMul", "bytes s z v3 s z s z", "mixed"),
        node("Transpose", "mixed", "back", perm=[0, 2, 1, 3]),
        node("Reshape", "back joined", "flat"),
        node("QLinearMatMul", "flat s z wq v o s z", "y"),
    ]
    constants = QUANTISED | {
        "apart": np.array([1, 5, 2, 4]), "joined": np.array([1, 5, 8]),
        **{f"w{name}": bytes_of(rng, np.dtype(np.int8), 8, 8) for name in "qkv"},
    }  # fmt: skip
    net = model(nodes, {"x": (np.uint8, (1, 5, 8))}, ["y"], constants)
    found = steps(net)
    assert kinds(found) == ["cards", "host", "cards"]
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 1, 5, 8)}
    made = answer(found, request)
    np.testing.assert_array_equal(made["y"], oracle(net).run(None, request)[0])
    served(found[0], made)
    served(found[2], made)


def test_channels_are_weighted_by_what_the_image_says():
    """Squeeze and excite: a tensor of one element a channel spreads over an image."""
    rng = np.random.default_rng(6)
    nodes = [
        node("QLinearConv", "x s z w v o s z", "a", pads=[1, 1, 1, 1]),
        node("QLinearGlobalAveragePool", "a s z s z", "b", "com.microsoft"),
        node("QLinearConv", "b s z u v o s z", "c"),
        node("QLinearMul", "a s z c s z s z", "d", "com.microsoft"),
        node("QLinearConv", "d s z w v o s z", "y"),
    ]
    constants = QUANTISED | {
        "w": bytes_of(rng, np.dtype(np.int8), 4, 4, 3, 3),
        "u": bytes_of(rng, np.dtype(np.int8), 4, 4, 1, 1),
    }  # fmt: skip
    net = model(nodes, {"x": (np.uint8, (2, 4, 6, 6))}, ["y"], constants)
    [step] = found = steps(net)
    assert step.samples == 2
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 2, 4, 6, 6)}
    np.testing.assert_array_equal(answer(found, request)["y"], oracle(net).run(None, request)[0])
    served(step, request)


def test_channels_are_joined_shuffled_and_added():
    """What is joined lies at whole words, with columns between that no sum must see."""
    rng = np.random.default_rng(10)
    nodes = [
        node("QLinearConv", "x s z w v o s z", "a", group=2),
        node("QLinearConcat", "s z a s z x s z", "b", "com.microsoft", axis=1),
        node("Reshape", "b apart", "c"),
        node("Transpose", "c", "d", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "d joined", "e"),
        node("QLinearAdd", "e s z b s z s z", "f", "com.microsoft"),
        node("Slice", "f begin end axes", "g"),
        node("QLinearConv", "g s z w v o s z", "y", group=2),
    ]
    constants = QUANTISED | {
        "w": bytes_of(rng, np.dtype(np.int8), 6, 3, 1, 1), "apart": np.array([2, 3, 4, 5, 4]),
        "joined": np.array([2, 12, 5, 4]), "begin": np.array([3, 1]), "end": np.array([9, 4]),
        "axes": np.array([1, 2]),
    }  # fmt: skip
    net = model(nodes, {"x": (np.uint8, (2, 6, 5, 4))}, ["y"], constants)
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 2, 6, 5, 4)}
    [step] = found = steps(net, lambda step: compile(step.graph(2), PRESETS["default"], 1))
    np.testing.assert_array_equal(answer(found, request)["y"], oracle(net).run(None, request)[0])
    served(step, request)


def test_a_compiler_sends_nodes_to_the_host(network):
    def without_averages(step):
        for each in step.nodes:
            if each.attributes["label"].startswith("GlobalAverage"):
                raise GraphError("too large a window", each.output)

    found = steps(network, without_averages)
    reasons = {}
    for step in found:
        if isinstance(step, HostStep):
            reasons |= step.reasons
    assert "no command takes it: too large a window" in reasons.values()
    (image,) = images(1, seed=12)
    expected = oracle(network).run(["y"], {"x": image})[0]
    np.testing.assert_array_equal(answer(found, {"x": image})["y"], expected)


def test_an_error_that_names_no_node_is_an_error(network):
    def broken(step):
        raise GraphError("the compiler is at fault")

    with pytest.raises(GraphError, match="the compiler is at fault"):
        steps(network, broken)


def test_cards_have_commands_for_what_is_theirs(network):
    found = steps(network, lambda step: compile(step.graph(2), PRESETS["default"], 2))
    assert kinds(found).count("cards") == 1


def test_a_zero_point_that_others_see_otherwise_is_refused():
    rng = np.random.default_rng(7)
    nodes = [product("x", "a"), node("QLinearMatMul", "a s zero w v o s z", "y")]
    constants = QUANTISED | weights(rng) | {"zero": np.uint8(3)}
    net = model(nodes, {"x": (np.uint8, (2, 6))}, ["y"], constants)
    _, last = steps(net)
    assert last.reasons == {
        "QLinearMatMul_y": "takes 3 as zero point of a, where others take 100"
    }  # fmt: skip


def test_branches_of_the_host_see_what_cards_make():
    rng = np.random.default_rng(8)
    output = helper.make_tensor_value_info("z1", 2, None)
    then = helper.make_graph([node("MaxPool", "a", "z1", kernel_shape=[1])], "then", [], [output])
    other = helper.make_graph([node("Identity", "a", "z1")], "other", [], [output])
    nodes = [
        node("QLinearConv", "x s z w v o s z", "a"),
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    constants = QUANTISED | {"w": bytes_of(rng, np.dtype(np.int8), 2, 2, 1)}
    net = model(nodes, {"x": (np.uint8, (1, 2, 5)), "c": (np.bool_, ())}, ["y"], constants)
    found = steps(net)
    assert kinds(found) == ["cards", "host"]
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 1, 2, 5), "c": np.array(True)}
    np.testing.assert_array_equal(answer(found, request)["y"], oracle(net).run(None, request)[0])


def test_weights_of_the_host_are_rounded_where_the_whole_model_rounds_them():
    """ONNX Runtime rounds those of a product that is quantised, if nobody else sees it."""
    rng = np.random.default_rng(10)
    nodes = [
        node("QLinearConv", "x s z w v o s z", "a"),
        node("DequantizeLinear", "a s z", "b"),
        node("ConvTranspose", "b f", "c", strides=[1, 1]),
        node("QuantizeLinear", "c s z", "d"),
        node("QLinearConv", "d s z w v o s z", "e"),
        node("DequantizeLinear", "e s z", "g"),
        node("Sub", "c g", "y"),
    ]
    constants = QUANTISED | {
        "w": bytes_of(rng, np.dtype(np.int8), 2, 2, 1, 1),
        "f": rng.standard_normal((2, 2, 2, 2)).astype(np.float32),
    }
    shape = (1, 2, 5, 5)
    net = model(nodes, {"x": (np.uint8, shape)}, ["y"], constants)
    found = steps(net)
    assert kinds(found) == ["cards", "host", "cards", "host"]
    request = {"x": bytes_of(rng, np.dtype(np.uint8), *shape)}
    [right] = oracle(net).run(None, request)
    np.testing.assert_array_equal(answer(found, request)["y"], right)


def test_what_the_host_hands_on_stays_in_floating_point():
    """ONNX Runtime quantises what leads by moves to 8 bits, if one node alone takes it."""
    rng = np.random.default_rng(12)
    nodes = [
        node("QLinearMatMul", "x s z w v o s z", "a"),
        node("DequantizeLinear", "a s z", "b"),
        node("Softmax", "b", "c"),
        node("Transpose", "c", "d", perm=[1, 0, 2]),
        node("Reshape", "d joined", "e"),
        node("QuantizeLinear", "e s z", "f"),
        node("QLinearMatMul", "f s z w v o s z", "g"),
        node("Reshape", "g apart", "h"),
        node("DequantizeLinear", "h s z", "i"),
        node("Add", "c i", "y"),
    ]
    constants = QUANTISED | weights(rng) | {
        "joined": np.array([8, 6]), "apart": np.array([2, 4, 6])
    }  # fmt: skip
    net = model(nodes, {"x": (np.uint8, (2, 4, 6))}, ["y"], constants)
    found = steps(net)
    assert kinds(found) == ["cards", "host", "cards", "host"]
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 2, 4, 6)}
    [right] = oracle(net).run(None, request)
    np.testing.assert_array_equal(answer(found, request)["y"], right)


def test_what_functions_of_the_host_share_is_there_once():
    """Bytes are dequantised for others, and to be quantised anew behind what the host moves."""
    rng = np.random.default_rng(11)
    nodes = [
        node("QLinearConv", "x s z w v o s z", "a"),
        node("DequantizeLinear", "a s z", "y"),
        node("Gather", "y places", "b", axis=0),
        node("QuantizeLinear", "b t z", "c"),
        node("QLinearConv", "c t z w v o s z", "d"),
    ]
    constants = QUANTISED | {
        "w": bytes_of(rng, np.dtype(np.int8), 2, 2, 1), "places": np.array([0, 0]),
        "t": np.array(0.01, np.float32),
    }  # fmt: skip
    net = model(nodes, {"x": (np.uint8, (1, 2, 5))}, ["y", "d"], constants)
    found = steps(net)
    assert kinds(found) == ["cards", "host", "cards"]
    request = {"x": bytes_of(rng, np.dtype(np.uint8), 1, 2, 5)}
    made = answer(found, request)
    for name, right in zip("yd", oracle(net).run(None, request), strict=True):
        np.testing.assert_array_equal(made[name], right)


def test_matrices_that_move_elements_leave_room_for_all_else():
    """A constant for each pixel of several images puts all of them into one row, which is cut."""
    rng = np.random.default_rng(12)
    shape = (3, 14, 3, 10)
    nodes = [
        node("QLinearConv", "x s z w v o s z", "a"),
        node("QLinearMul", "a s z g s z s z", "c", "com.microsoft"),
        node("QLinearAdd", "c s z k s z s z", "b", "com.microsoft"),
        node("QLinearConv", "b s z w v o s z", "y"),
    ]
    constants = QUANTISED | {
        "w": bytes_of(rng, np.dtype(np.int8), 14, 14, 1, 1),
        "k": bytes_of(rng, np.dtype(np.uint8), *shape),
    }
    shapes = {"x": shape, "g": (*shape[:2], 1, 1)}
    inputs = {name: (np.uint8, each) for name, each in shapes.items()}
    net = model(nodes, inputs, ["y"], constants)
    tiny = PRESETS["tiny"]
    found = steps(net, lambda step: compile(step.graph(1), tiny, 1), config=tiny)
    request = {name: bytes_of(rng, np.dtype(np.uint8), *each) for name, each in shapes.items()}
    [right] = oracle(net).run(None, request)
    np.testing.assert_array_equal(answer(found, request)["y"], right)


def test_a_model_in_floating_point_is_the_hosts():
    [step] = steps(load(typed(residual())))
    assert isinstance(step, HostStep)
    assert "cards multiply 8 bits" in step.reasons["Conv_c1"]


def test_nodes_without_a_name_are_called_by_their_outputs():
    rng = np.random.default_rng(9)
    nodes = [product("x", "a"), product("a", "y")]
    for each in nodes:
        each.name = ""
    net = model(nodes, {"x": (np.uint8, (4, 6))}, ["y"], QUANTISED | weights(rng))
    [step] = steps(net)
    assert set(step.made) == {"a", "y"}
