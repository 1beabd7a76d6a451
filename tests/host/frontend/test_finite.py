"""NaN and infinity in what a model learned: calibration need not see them."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from halfdome.host.frontend.errors import ModelError  # noqa: E402
from halfdome.host.frontend.load import load  # noqa: E402
from halfdome.host.frontend.prepare import prepare  # noqa: E402
from halfdome.host.frontend.quantise import to_qoperator  # noqa: E402
from halfdome.host.frontend.sessions import open_session, oracle  # noqa: E402
from tests.host.frontend.nets import model, node, typed  # noqa: E402

ROWS = np.array([[0, 1], [2, 3]])
X = np.random.default_rng(2).standard_normal((5, 1, 4)).astype(np.float32)


def table(wrong, rows=7, dtype=np.float32):
    made = np.ones((rows, 4), dtype)
    made[5, 2] = wrong
    return made


def quantised(nodes, constants, inputs, example):
    source = load(typed(model(nodes, inputs, ["y"], constants)))
    return source, to_qoperator(source, [example])


LOOKED_UP = [node("Gather", "t i", "g"), node("MatMul", "g w", "y")]
TURNED = [
    node("Transpose", "t", "c"), node("Gather", "c i", "g", axis=1),
    node("Transpose", "g", "r", perm=[1, 2, 0]), node("MatMul", "r w", "y"),
]  # fmt: skip
NARROW = [node("Gather", "t i", "h"), node("Cast", "h", "g", to=1), node("MatMul", "g w", "y")]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("nodes", "rows", "dtype"),
    [(LOOKED_UP, 7, np.float32), (TURNED, 1 << 14, np.float32), (NARROW, 7, np.float16)],
)
def test_a_row_that_calibration_does_not_see_is_refused(nodes, rows, dtype, wrong):
    constants = {"t": table(wrong, rows, dtype), "w": np.eye(4, dtype=np.float32)}
    inputs = {"i": (np.int64, ROWS.shape)}
    with pytest.raises(ModelError, match=rf"^t: holds {wrong} at \[5, 2\], 1 of its {rows * 4} "):
        quantised(nodes, constants, inputs, {"i": ROWS})


@pytest.mark.parametrize(
    ("nodes", "constants", "said"),
    [
        (
            [node("MatMul", "x w", "m"), node("Relu", "m", "y")],
            {"w": np.float32([[1], [2], [-np.inf], [np.nan]])},
            r"^w: holds -inf at \[2, 0\], 2 of its 4",
        ),
        (
            [node("LSTM", "x w r b", "y", hidden_size=1)],
            {
                "w": np.ones((1, 4, 4), np.float32), "r": np.ones((1, 4, 1), np.float32),
                "b": np.float32([[0] * 7 + [np.nan]]),
            },
            r"^b: holds nan at \[0, 7\], 1 of its 8",
        ),
    ],
)  # fmt: skip
def test_weights_are_finite(nodes, constants, said):
    with pytest.raises(ModelError, match=said):
        quantised(nodes, constants, {"x": (np.float32, X.shape)}, {"x": X})


def test_what_calibration_sees_may_be_infinite():
    """A mask of infinities, and a lookup of rows that the model names itself."""
    nodes = [
        node("Gather", "t rows", "mask"), node("Add", "x mask", "s"), node("Softmax", "s", "p"),
        node("MatMul", "p w", "y"),
    ]  # fmt: skip
    constants = {"t": table(-np.inf), "rows": np.array([5]), "w": np.eye(4, dtype=np.float32)}
    source, made = quantised(nodes, constants, {"x": (np.float32, X.shape)}, {"x": X})
    [exact], [close] = (each.run(None, {"x": X}) for each in (open_session(source), oracle(made)))
    assert not exact[..., 2].any()
    np.testing.assert_allclose(close, exact, atol=0.01)


def test_parameters_and_fused_rows_of_a_module_are_finite():
    torch = pytest.importorskip("torch")
    bag = torch.nn.EmbeddingBag(9, 4, mode="sum")
    bag.weight.data[7, 3] = np.nan
    with pytest.raises(ModelError, match=r"^weight: holds nan at \[7, 3\].*torch.nan_to_num"):
        prepare(bag.eval(), [torch.tensor([[0, 1, 2]])])
    bag.weight.data[7, 3] = np.inf
    packed = torch.ops.quantized.embedding_bag_byte_prepack(bag.weight.detach())
    fused = torch.nn.Module()
    fused.register_buffer("rows", packed)
    fused.forward = lambda i, o: torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        fused.rows, i, o
    )
    with pytest.raises(ModelError, match=r"^scale and bias of rows: holds inf at \[7, 0\]"):
        prepare(fused.eval(), [torch.arange(3), torch.tensor([0])])
    folded = torch.nn.Linear(4, 3)
    folded.weight.data[1, 2] = np.inf
    with pytest.raises(ModelError, match=r"^weight: holds inf at \[1, 2\], 1 of its 12"):
        prepare(folded.eval(), [torch.ones(2, 1, 4)])
