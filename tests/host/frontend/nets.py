"""Small networks in ONNX, and inputs for them."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

Arrays = dict[str, np.ndarray]


def node(op: str, inputs: str, output: str, domain: str = "", **attributes: object):
    """A node; names are separated by blanks, a lone `-` leaves an operand out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(
        op, names, output.split(), name=f"{op}_{output.split()[0]}", domain=domain, **attributes
    )


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple], outputs: list[str],
    constants: Arrays, opset: int = 17,
) -> onnx.ModelProto:  # fmt: skip
    """A model; `inputs` gives (dtype, shape) by name, outputs' types follow from the nodes."""
    graph = helper.make_graph(
        nodes, "net",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
            )
            for name, (dtype, shape) in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def typed(made: onnx.ModelProto, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """The model with types and shapes for its outputs, as the checker wants them."""
    for value in made.graph.output:
        value.type.tensor_type.elem_type = dtype
    return shape_inference.infer_shapes(made)


def residual() -> onnx.ModelProto:
    """A convolutional net in floating point: a residual sum, two poolings, a classifier."""
    rng = np.random.default_rng(5)

    def normal(*shape: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p w2 b2", "c2", pads=[1, 1, 1, 1], group=2),
        node("Add", "c2 p", "a"),
        node("Relu", "a", "r2"),
        node("GlobalAveragePool", "r2", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w3 b3", "l", transB=1),
        node("Softmax", "l", "y"),
    ]
    constants = {
        "w1": normal(8, 3, 3, 3), "b1": normal(8), "w2": normal(8, 4, 3, 3), "b2": normal(8),
        "w3": normal(5, 8), "b3": normal(5),
    }  # fmt: skip
    return typed(model(nodes, {"x": (np.float32, (1, 3, 12, 12))}, ["y"], constants))


def images(count: int, seed: int = 6) -> NDArray[np.float32]:
    """float32[count, 1, 3, 12, 12]: requests of `residual`."""
    return np.random.default_rng(seed).standard_normal((count, 1, 3, 12, 12)).astype(np.float32)


def labels() -> onnx.ModelProto:
    """Strings of strings: `a` is `first`, `b` is `second`."""
    nodes = [node("LabelEncoder", "x", "y", "ai.onnx.ml", keys_strings=["a", "b"],
                  values_strings=["first", "second"])]  # fmt: skip
    made = model(nodes, {"x": (np.object_, (2,))}, ["y"], {})
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    return typed(made, TensorProto.STRING)
