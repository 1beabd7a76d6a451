"""Makes `matmul_vectors.npz`: quantised matrix products as ONNX Runtime's QLinearMatMul gives them.

Run as `python -m tests.oracles.matmul_vectors` with onnx and onnxruntime installed. Case `i` has
the keys `x_i` uint8[m, k], `w_i` int8[k, n], `x_scale_i`, `x_zero_point_i`, `w_scale_i` float32[n],
`y_scale_i`, `y_zero_point_i`, and the operator's answer `y_i` uint8[m, n].
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_suffix(".npz")
SEED = 20240608


def qlinear_matmul(case: dict[str, np.ndarray]) -> np.ndarray:
    """uint8[m, n] from QLinearMatMul on the CPU.

    `session.x64quantprecision` selects kernels that do not saturate in 16 bits.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    operands = {
        "x": case["x"],
        "x_scale": case["x_scale"],
        "x_zero_point": case["x_zero_point"],
        "w": case["w"],
        "w_scale": case["w_scale"],
        "w_zero_point": np.zeros(case["w_scale"].shape, np.int8),
        "y_scale": case["y_scale"],
        "y_zero_point": case["y_zero_point"],
    }
    constants = [
        helper.make_tensor(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            value.shape,
            value.tobytes(),
            raw=True,
        )
        for name, value in operands.items()
        if name != "x"
    ]
    graph = helper.make_graph(
        [helper.make_node("QLinearMatMul", list(operands), ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, case["x"].shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": case["x"]})[0]


def random_case(rng: np.random.Generator, m: int, k: int, n: int, extreme: bool):
    """One case; `extreme` takes operands from the ends of their ranges."""
    if extreme:
        x = rng.choice(np.array([0, 255], np.uint8), (m, k))
        w = rng.choice(np.array([-128, 127], np.int8), (k, n))
    else:
        x = rng.integers(0, 256, (m, k), np.uint8)
        w = rng.integers(-128, 128, (k, n), np.int8)
    return {
        "x": x,
        "w": w,
        "x_scale": np.float32(rng.uniform(0.01, 0.1)),
        "x_zero_point": np.uint8(rng.integers(0, 256)),
        "w_scale": rng.uniform(0.001, 0.01, n).astype(np.float32),
        "y_scale": np.float32(rng.uniform(0.02, 0.1) * np.sqrt(k)),
        "y_zero_point": np.uint8(rng.integers(0, 256)),
    }


def main() -> None:
    """Writes the vectors."""
    rng = np.random.default_rng(SEED)
    arrays = {}
    for number in range(12):
        m, k, n = (int(rng.integers(1, limit)) for limit in (9, 80, 30))
        case = random_case(rng, m, k, n, bool(number & 1))
        case["y"] = qlinear_matmul(case)
        arrays |= {f"{name}_{number}": value for name, value in case.items()}
    np.savez_compressed(PATH, **arrays)


if __name__ == "__main__":
    main()
