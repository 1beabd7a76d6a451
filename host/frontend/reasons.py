"""Why operators without a translation are on the host, in words."""

from collections.abc import Mapping

from halfdome.host.frontend.functions import ELEMENTWISE

_WINDOWS = "no command finds {} over a window"
_LOATH = "cards have no command for it"
REASONS: Mapping[str, str] = {
    "AveragePool": _WINDOWS.format("means of floating point"),
    "GlobalMaxPool": "its maxima are of floating point; cards find those of 8 bits",
    "GlobalAveragePool": _WINDOWS.format("means of floating point"),
    "ConvTranspose": "no command spreads an element over a window",
    "DynamicQuantizeLinear": "its scale is known only at run time",
    "Gather": "cards fetch rows of tables by index for embedding bags alone",
    **dict.fromkeys(
        ELEMENTWISE,
        "its floats are seen by others; between DequantizeLinear and QuantizeLinear alone it is a "
        "lookup on cards",
    ),
    **dict.fromkeys(
        ("Upsample", "DepthToSpace", "SpaceToDepth"), "no command moves pixels so"
    ),
    **dict.fromkeys(
        ("Conv", "MatMul", "Gemm"), "it computes in floating point; cards multiply 8 bits"
    ),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "QLinearSoftmax", "LayerNormalization", "ReduceMean",
         "ReduceSum", "InstanceNormalization", "GroupNormalization", "LpNormalization"),
        "cards sum rows in another order, which gives other bits",
    ),
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "Loop", "Scan", "If"),
        "what it does next depends on what it computes",
    ),
    **dict.fromkeys(
        ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "SVMClassifier",
         "SVMRegressor"),
        "a model of machine learning that multiplies no matrices: on the host for good",
    ),
    **dict.fromkeys(
        ("NonMaxSuppression", "TopK", "ArgMax", "ArgMin", "NonZero", "Unique", "Where"),
        "it chooses by comparison; cards compute, on all elements alike",
    ),
}  # fmt: skip
"""Why, by operator."""


def reason(op_type: str, domain: str) -> str:
    """Why an operator is on the host."""
    if op_type in REASONS:
        return REASONS[op_type]
    if domain == "ai.onnx.ml":
        return "a step before or after the model proper: on the host for good"
    return _LOATH
