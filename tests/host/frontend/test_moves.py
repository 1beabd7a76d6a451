"""Moves keep every element, whichever order it lies in."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.frontend import layout
from halfdome.host.frontend.partition import Refusal
from tests.host.frontend.nets import model, node
from tests.host.frontend.single import agree, bytes_of, step_of
from tests.host.frontend.test_products import DTYPES, SCALES, SEEDS, scale, zero_point

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


class Chain:
    """A scaling, moves, a scaling: the moves are on a card, and nothing else is."""

    def __init__(self, rng, dtype):
        self.zero = zero_point(rng, dtype)
        self.dtype = dtype
        self.constants = {
            "s": scale(0.5), "z": self.zero, "one": np.ones((), dtype), "oz": np.zeros((), dtype)
        }  # fmt: skip
        self.nodes = []

    def scaled(self, x, y):
        self.nodes.append(node("QLinearMul", f"{x} s z one s oz s z", y, "com.microsoft"))

    def add(self, op, inputs, output, **attributes):
        self.nodes.append(node(op, inputs, output, **attributes))

    def constant(self, name, value):
        self.constants[name] = np.array(value)
        return name

    def check(self, rng, shape, outputs="y", opset=17):
        net = model(self.nodes, {"x": (self.dtype, shape)}, outputs.split(), self.constants, opset)
        return agree(net, [{"x": bytes_of(rng, self.dtype, *shape)} for _ in range(2)])


@st.composite
def factored(draw):
    """Two shapes of as many elements."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    shapes = []
    for _ in range(2):
        shape = [1]
        for size in sizes:
            if draw(st.booleans()):
                shape[-1] *= size
            else:
                shape.append(size)
        shapes.append(shape)
    return shapes


@given(shapes=factored(), dtype=DTYPES, seed=SEEDS)
def test_reshape(shapes, dtype, seed):
    rng = np.random.default_rng(seed)
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    chain.add("Reshape", f"a {chain.constant('shape', shapes[1])}", "b")
    chain.scaled("b", "y")
    chain.check(rng, shapes[0])


@given(data=st.data(), dtype=DTYPES, seed=SEEDS)
def test_orders_are_kept_through_transpositions_and_reshapes(data, dtype, seed):
    rng = np.random.default_rng(seed)
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    turn = data.draw(st.permutations(range(len(shape))))
    chain.add("Transpose", "a", "b", perm=turn)
    turned = [shape[axis] for axis in turn]
    join = data.draw(st.integers(0, len(shape) - 2))
    joined = [*turned[:join], turned[join] * turned[join + 1], *turned[join + 2 :]]
    chain.add("Reshape", f"b {chain.constant('shape', joined)}", "c")
    chain.scaled("c", "y")
    chain.check(rng, shape)


@given(data=st.data(), shape=SHAPES, dtype=DTYPES, seed=SEEDS)
def test_slice(data, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    starts, ends, steps = [], [], []
    for size in shape:
        start = data.draw(st.integers(0, size - 1))
        starts.append(start - data.draw(st.sampled_from([0, size])))
        ends.append(data.draw(st.sampled_from([start + 1, size, 1 << 62])))
        steps.append(data.draw(st.integers(1, 3)))
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    names = {"starts": starts, "ends": ends, "axes": list(range(len(shape))), "steps": steps}
    bounds = " ".join(chain.constant(name, value) for name, value in names.items())
    chain.add("Slice", f"a {bounds}", "b")
    chain.scaled("b", "y")
    chain.check(rng, shape)


def test_the_last_axis_is_turned_around():
    rng = np.random.default_rng(3)
    chain = Chain(rng, np.dtype(np.uint8))
    chain.scaled("x", "a")
    names = {"starts": [-1], "ends": [-(1 << 62)], "axes": [-1], "steps": [-1]}
    bounds = " ".join(chain.constant(name, value) for name, value in names.items())
    chain.add("Slice", f"a {bounds}", "b")
    chain.scaled("b", "y")
    chain.check(rng, (2, 3, 5))


@given(data=st.data(), shape=SHAPES, dtype=DTYPES, seed=SEEDS)
def test_pad(data, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    pads = [data.draw(st.integers(0, 2)) for _ in (*shape, *shape)]
    chain.add("Pad", f"a {chain.constant('pads', pads)} z", "b")
    chain.scaled("b", "y")
    chain.check(rng, shape)


@given(data=st.data(), shape=SHAPES, dtype=DTYPES, seed=SEEDS)
def test_split(data, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(0, len(shape) - 1))
    shape[axis] += 1
    first = data.draw(st.integers(1, shape[axis] - 1))
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    sizes = chain.constant("sizes", [first, shape[axis] - first])
    chain.add("Split", f"a {sizes}", "b c", axis=axis - len(shape))
    chain.scaled("b", "y")
    chain.scaled("c", "w")
    chain.check(rng, shape, "y w")


@given(data=st.data(), shape=SHAPES, dtype=DTYPES, quantised=st.booleans(), seed=SEEDS)
def test_concat(data, shape, dtype, quantised, seed):
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(0, len(shape) - 1))
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    chain.scaled("a", "b")
    if quantised:
        chain.nodes.append(
            node("QLinearConcat", "s z a s z b s z", "y", "com.microsoft", axis=axis)
        )
    else:
        chain.add("Concat", "a b", "y", axis=axis - len(shape))
    chain.check(rng, shape)


@given(scales=st.tuples(SCALES, SCALES, SCALES), axis=st.integers(0, 2), dtype=DTYPES, seed=SEEDS)
def test_tensors_of_different_scales_are_joined(scales, axis, dtype, seed):
    rng = np.random.default_rng(seed)
    constants = {f"{name}s": scale(value) for name, value in zip("aby", scales, strict=True)}
    constants |= {f"{name}z": zero_point(rng, dtype) for name in "aby"}
    names = "ys yz a as az b bs bz"
    nodes = [node("QLinearConcat", names, "y", "com.microsoft", axis=axis)]
    net = model(nodes, {name: (dtype, (2, 3, 64)) for name in "ab"}, ["y"], constants)
    agree(net, [{name: bytes_of(rng, dtype, 2, 3, 64) for name in "ab"} for _ in range(2)])


def test_tensors_of_different_sizes_are_joined():
    rng = np.random.default_rng(4)
    chain = Chain(rng, np.dtype(np.uint8))
    chain.scaled("x", "a")
    chain.add("Split", f"a {chain.constant('sizes', [1, 3])}", "b c", axis=1)
    chain.add("Concat", "c b", "y", axis=1)
    chain.check(rng, (2, 4, 3))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Flatten", "a", {"axis": 2}),
        ("Identity", "a", {}),
        ("Unsqueeze", "a axes", {}),
        ("Squeeze", "a one_axis", {}),
    ],
)
def test_axes_are_named_anew(op, inputs, attributes):
    rng = np.random.default_rng(6)
    chain = Chain(rng, np.dtype(np.int8))
    chain.constant("axes", [0, 3])
    chain.constant("one_axis", [2])
    chain.scaled("x", "a")
    chain.add(op, inputs, "b", **attributes)
    chain.scaled("b", "y")
    chain.check(rng, (2, 3, 1, 4))


def test_channels_are_shuffled_beside_convolutions():
    rng = np.random.default_rng(7)
    chain = Chain(rng, np.dtype(np.uint8))
    chain.constants |= {
        "w": bytes_of(rng, np.dtype(np.int8), 6, 3, 1, 1), "ws": scale(0.01),
        "wz": np.zeros((), np.int8),
    }  # fmt: skip
    chain.add("QLinearConv", "x s z w ws wz s z", "a", group=2)
    chain.add("Reshape", f"a {chain.constant('apart', [1, 2, 3, 4, 5])}", "b")
    chain.add("Transpose", "b", "c", perm=[0, 2, 1, 3, 4])
    chain.add("Reshape", f"c {chain.constant('joined', [1, 6, 4, 5])}", "d")
    chain.add("QLinearConv", "d s z w ws wz s z", "y", group=2)
    step = chain.check(rng, (1, 6, 4, 5))
    assert [each.op for each in step.nodes if each.op != "reshape"] == [
        "conv2d", "linear", "conv2d",
    ]  # fmt: skip


def test_a_classifier_reads_what_convolutions_leave_last():
    rng = np.random.default_rng(8)
    chain = Chain(rng, np.dtype(np.uint8))
    chain.constants |= {
        "w": bytes_of(rng, np.dtype(np.int8), 6, 3, 1, 1), "ws": scale(0.01),
        "wz": np.zeros((), np.int8), "v": bytes_of(rng, np.dtype(np.int8), 120, 2),
    }  # fmt: skip
    chain.add("QLinearConv", "x s z w ws wz s z", "a")
    chain.add("Flatten", "a", "b")
    chain.add("QLinearMatMul", "b s z v ws wz s z", "y")
    chain.check(rng, (2, 3, 4, 5))


@given(data=st.data())
def test_a_reshape_that_moves_nothing_has_the_same_elements(data):
    old = data.draw(SHAPES)
    order = layout.without_ones(data.draw(st.permutations(range(len(old)))), old)
    new = [1]
    for size in old:
        new = [*new[:-1], new[-1] * size] if data.draw(st.booleans()) else [*new, size, 1]
    made = layout.reshaped(order, old, new)
    if made is None:
        assert order != layout.plain(old)
        return
    x = np.arange(np.prod(old)).reshape(old)
    ones = [axis for axis in range(len(old)) if axis not in order]
    others = [axis for axis in range(len(new)) if axis not in made]
    np.testing.assert_array_equal(
        x.transpose(*ones, *order).reshape(-1),
        x.reshape(new).transpose(*others, *made).reshape(-1),
    )


@given(
    data=st.data(), shape=SHAPES, dtype=DTYPES, seed=SEEDS,
    many=st.integers(1, 6),
)  # fmt: skip
def test_gather_at_constant_places(data, shape, dtype, seed, many):
    rng = np.random.default_rng(seed)
    last, shape = len(shape) - 1, [*shape[:-1], shape[-1] + 1]
    places = [data.draw(st.integers(-shape[last], shape[last] - 1)) for _ in range(many)]
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    chain.constant("places", np.array(places, np.int64))
    chain.add("Gather", "a places", "b", axis=last)
    chain.scaled("b", "y")
    chain.check(rng, shape)


@given(
    shape=st.lists(st.integers(1, 4), min_size=4, max_size=4), images=st.booleans(),
    factors=st.tuples(st.integers(1, 3), st.integers(1, 3)), begins=st.booleans(),
    sized=st.booleans(), dtype=DTYPES, seed=SEEDS,
)  # fmt: skip
def test_pixels_are_repeated(shape, images, factors, begins, sized, dtype, seed):
    for axis, factor in zip((2, 3), factors, strict=True):
        shape[axis] = max(shape[axis], 1 + (factor > 1))
    rng = np.random.default_rng(seed)
    chain = Chain(rng, dtype)
    chain.scaled("x", "a")
    if images:  # of which cards take a pixel's channels side by side
        chain.add("MaxPool", "a", "b", kernel_shape=[1, 1])
    made = [*shape[:2], shape[2] * factors[0], shape[3] * factors[1]]
    how = chain.constant("sizes", made) if sized else chain.constant(
        "scales", np.float32([1, 1, *factors])
    )  # fmt: skip
    about = ("asymmetric", "floor") if begins else ("half_pixel", "round_prefer_floor")
    chain.add(
        "Resize", f"{'b' if images else 'a'} {'- -' if sized else '-'} {how}", "c", mode="nearest",
        coordinate_transformation_mode=about[0], nearest_mode=about[1],
    )  # fmt: skip
    chain.scaled("c", "y")
    chain.check(rng, shape)


@pytest.mark.parametrize(("scales", "about"), [
    ([1, 1, 2, 2], {"mode": "linear"}),
    ([1, 1, 2, 2], {"mode": "nearest", "nearest_mode": "ceil"}),
    ([1, 1, 1.5, 2], {"mode": "nearest"}),
    ([1, 1, 0.5, 2], {"mode": "nearest"}),
    ([1, 1, 2.1, 2], {"mode": "nearest"}),
])  # fmt: skip
def test_pixels_that_are_no_copies_of_one_each_are_the_hosts(scales, about):
    rng = np.random.default_rng(1)
    chain = Chain(rng, np.dtype(np.uint8))
    chain.scaled("x", "a")
    chain.add("Resize", f"a - {chain.constant('scales', np.float32(scales))}", "y", **about)
    net = model(chain.nodes, {"x": (np.uint8, (1, 2, 4, 4))}, ["y"], chain.constants)
    with pytest.raises(Refusal, match="makes elements of several, or repeats some more often"):
        step_of(net)
