"""Matrix products and convolutions as ONNX Runtime computes them on the CPU."""

import numpy as np


def run(
    operator: str, operands: dict[str, np.ndarray], *, opset: int = 13, **attributes
) -> np.ndarray:
    """The output of one ONNX operator, whose operands come in its order; `y_zero_point` is named.

    `session.x64quantprecision` selects kernels that do not saturate in 16 bits.
    """
    import onnxruntime
    from onnx import helper

    x = operands["x"]
    x_kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    constants = [
        helper.make_tensor(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value.tobytes(),
            raw=True,
        )
        for name, value in operands.items()
        if name != "x"
    ]  # fmt: skip
    kind = np.int32 if operator.endswith("Integer") else operands["y_zero_point"].dtype
    output = helper.make_tensor_value_info(
        "y", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None
    )
    node = helper.make_node(operator, list(operands), ["y"], **attributes)
    inputs = [helper.make_tensor_value_info("x", x_kind, x.shape)]
    graph = helper.make_graph([node], operator, inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]
