"""What a graph computes is what PyTorch and ONNX Runtime compute of the same operands."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, RowFormat
from halfdome.host.graph import embedding, operators
from tests.host.recommenders import Recommender
from tests.oracles import onnx_products
from tests.oracles.gather_vectors import torch_embedding_bag, torch_float_bags

BITS = {RowFormat.INT8: 8, RowFormat.INT4: 4}


def computed(seed, op):
    """Every node of an operator in a random graph, with its operands and their values."""
    made = Recommender(seed)
    graph, values = made.graph, made.graph.run(made.request())
    for node in graph.nodes:
        if node.op == op:
            about = [graph.values[name] for name in node.inputs]
            yield node, about, [values[name] for name in node.inputs]


def evaluated(node, about, operands, **attributes):
    """What a node computes with other attributes."""
    changed = replace(node, attributes={**node.attributes, **attributes})
    return operators.find(node.op).evaluate(changed, about, operands)


@given(seed=st.integers(0, 1 << 30))
def test_pooled_rows_have_the_bits_of_torch(seed):
    pytest.importorskip("torch")
    for node, about, operands in computed(seed, "embedding_bag"):
        table, indices, lengths, *weights = operands
        row_format, dim = embedding.pooling(node, about[0])
        weight = weights[0] if weights else None
        if row_format in BITS and (row_format is RowFormat.INT8 or dim % 2 == 0):
            pooled = evaluated(node, about, operands, format=ElementFormat.FLOAT32, mode="sum")
            expected = torch_embedding_bag(table, indices, lengths, BITS[row_format], weight)
        elif row_format in (RowFormat.FLOAT16, RowFormat.FLOAT32):
            real = ElementFormat.FLOAT32 if table.dtype == np.float32 else ElementFormat.FLOAT16
            mode = "sum" if weights else node.attributes["mode"]
            weight = None if weight is None else weight.astype(table.dtype)
            known = [*operands[:3], *([weight.astype(np.float32)] if weights else [])]
            pooled = evaluated(node, about, known, format=real, mode=mode)
            starts = np.cumsum(lengths) - lengths
            expected = torch_float_bags(table, indices, starts, weights=weight, mode=mode)
        else:
            continue
        assert pooled.tobytes() == expected.tobytes()


@given(seed=st.integers(0, 1 << 30))
def test_layers_have_the_bits_of_onnx_runtime(seed):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    for node, about, (x, weight, *params) in computed(seed, "linear"):
        n, point = len(weight), about[0].zero_point
        w_point = np.array(node.attributes["weight_zero_point"], weight.dtype)
        if x.dtype == np.int8:  # the same numbers: with int8 on both sides it has no exact kernel
            x, point = (x ^ np.int8(-128)).view(np.uint8), point + 128
        operands = {"x": x, "w": np.ascontiguousarray(weight.T)}
        x_point, one = np.array(point, np.uint8), np.array(1, np.float32)
        about = [replace(about[0], format=ElementFormat.UINT8, zero_point=point), about[1]]
        if not params:
            operands |= {"x_zero_point": x_point, "w_zero_point": w_point}
            expected = onnx_products.run("MatMulInteger", operands)
            found = evaluated(node, about, [x, weight])
        else:
            operands = {
                "x": x, "x_scale": one, "x_zero_point": x_point, "w": operands["w"],
                "w_scale": params[1], "w_zero_point": np.full(n, w_point), "y_scale": one,
                "y_zero_point": np.array(node.attributes["zero_point"], np.uint8),
            }  # fmt: skip
            expected = onnx_products.run("QLinearMatMul", operands)
            plain = [x, weight, np.zeros(n, np.int32), params[1]]
            found = evaluated(node, about, plain, relu=False, format=ElementFormat.UINT8)
        np.testing.assert_array_equal(found, expected)
