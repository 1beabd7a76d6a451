"""Any model as a QOperator model: one whose operators themselves take and return 8 bits."""

import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization as tools
from onnxruntime.quantization.shape_inference import quant_pre_process

from halfdome.host.frontend.calibration import Calibration, requests_of
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.finite import check_finite
from halfdome.host.frontend.identities import returned_real, taken_real
from halfdome.host.frontend.load import inferred_by_runtime
from halfdome.host.frontend.net import MOVES, nodes_within
from halfdome.host.frontend.opsets import of_today
from halfdome.host.frontend.quantisable import (
    FLOATS,
    copy_before_activations,
    magnified,
    prepared_to_quantise,
    unquantisable,
)
from halfdome.host.frontend.ranges import before_products, write_ranges
from halfdome.host.frontend.rewrite import rewritten
from halfdome.host.frontend.sessions import fused, quiet, told
from halfdome.host.frontend.transposed import pixel_by_pixel
from halfdome.host.frontend.weights import is_large, save
from halfdome.host.frontend.whole import keep_functions_whole

_QUANTISED = {"ConvInteger", "MatMulInteger", "QGemm"}
"""Operators of 8 bits, beside those whose names begin with `QLinear`."""
_PRODUCTS = ("MatMul", "Gemm")
_ESTIMATORS = ("TreeEnsemble", "SVM")
"""How operators of models begin that multiply no matrices."""
_NEEDS_DATA = (
    "calibration: this model computes in floating point; give requests that show its ranges, as "
    "with --calibrate FILE.npz|DIR, whose keys are the names of the inputs"
)


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a model has operators of 8 bits, Quantize- and DequantizeLinear, or no floats."""
    found = {node.op_type for node in nodes_within(model.graph)}
    linear = any(op.startswith("QLinear") for op in found)
    pairs = {"QuantizeLinear", "DequantizeLinear"} <= found
    return linear or bool(found & _QUANTISED) or pairs or not _computes_floats(model.graph)


def _computes_floats(graph: onnx.GraphProto) -> bool:
    """Whether any tensor is one of floats; what constants say, such as factors, does not count."""
    constant = {each.name for each in graph.initializer}
    return any(
        value.type.tensor_type.elem_type in FLOATS
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.name not in constant
    )


def to_qoperator(model: onnx.ModelProto, calibration: Calibration | None) -> onnx.ModelProto:
    """The model in QOperator form; one that is in it stays as it is.

    QuantizeLinear and DequantizeLinear around operators (QDQ) are fused by ONNX Runtime. A model in
    floating point is quantised statically: activations to uint8, weights to int8, symmetric, per
    channel where operators allow it. Of a transformer, which multiplies activations by activations
    and has Softmax, products alone: its sums and norms lose too much in 8 bits.

    Parameters
    ----------
    model : as `load` returns it
    calibration : requests, arrays by input; an extra first axis counts requests. None for models
        that are quantised

    Raises `ModelError` for a model that needs calibration and has none, for one that does not fit,
    for tables and weights that are not finite, and with ONNX Runtime's words for a model that it
    does not take.
    """
    if not is_quantised(model):
        check_finite(model)
        if calibration is None:
            raise ModelError(_NEEDS_DATA)
        requests = requests_of(model, calibration)
        with told():
            return _quantised(model, requests)
    if _has_pairs(model):
        return fused(model)
    return model


def _has_pairs(model: onnx.ModelProto) -> bool:
    """Whether a node that could take 8 bits is fed by a DequantizeLinear: QDQ."""
    dequantised = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    return any(
        node.input[0] in dequantised
        for node in model.graph.node
        if node.input and node.op_type in ("Conv", *_PRODUCTS, "Add", "Mul", "Concat")
    )


def _quantised(
    model: onnx.ModelProto, requests: Sequence[Mapping[str, np.ndarray]]
) -> onnx.ModelProto:
    outside = is_large(model)
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, prepared, made = (
            Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "made")
        )
        save(rewritten(pixel_by_pixel(of_today(model))), source)
        quant_pre_process(
            source, prepared, skip_symbolic_shape=True, save_as_external_data=outside,
            all_tensors_to_one_file=True, external_data_location="prepared.data",
        )  # fmt: skip
        ready = prepared_to_quantise(inferred_by_runtime(onnx.load(prepared)))
        kept = [*_kept_real(ready), *unquantisable(ready), *before_products(ready, requests)]
        kept += keep_functions_whole(ready, kept)
        kept += magnified(ready)
        kept += _behind_estimators(ready)
        kept = copy_before_activations(ready, kept)
        outside = outside or is_large(ready)
        ready = taken_real(ready)
        save(ready, prepared)
        cache = Path(folder) / "ranges.json"
        kept += write_ranges(ready, prepared, requests, cache, outside=outside)
        tools.quantize_static(
            prepared, made, None, tools.QuantFormat.QOperator,
            nodes_to_exclude=kept, per_channel=True, use_external_data_format=outside,
            activation_type=tools.QuantType.QUInt8, weight_type=tools.QuantType.QInt8,
            calibration_cache_path=cache,
        )  # fmt: skip
        return returned_real(onnx.load(made))


def _behind_estimators(model: onnx.ModelProto) -> list[str]:
    """Names of nodes that stay in floating point: between trees or support vectors and a product.

    They weigh and sum up what the host finds, which would lose in 8 bits what no card gains.
    """
    found: set[str] = set()
    kept = []
    for node in model.graph.node:
        if node.op_type.startswith(_ESTIMATORS):
            found.update(node.output)
        elif found.intersection(node.input) and node.op_type not in _PRODUCTS:
            found.update(node.output)
            kept.append(node.name)
    return kept


def _kept_real(model: onnx.ModelProto) -> list[str]:
    """Names of nodes that stay in floating point: of transformers, what is no product.

    A transformer multiplies activations, and weighs by Softmax. What convolutions lead to before it
    is quantised whole, and so is what keeps 8 bits as they are: moves, and products with a number.
    """
    constants = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    multiplied = any(node.input[1] not in constants for node in products)
    if not multiplied or all(node.op_type != "Softmax" for node in model.graph.node):
        return []
    of_images: set[str] = set()
    kept = []
    for node in model.graph.node:
        attends = node.op_type in _PRODUCTS and node.input[1] not in constants
        if node.op_type == "Conv" or (of_images.intersection(node.input) and not attends):
            of_images.update(node.output)
        elif node.op_type not in (*_PRODUCTS, *MOVES):
            by_number = node.op_type == "Mul" and any(constants.get(x) == 1 for x in node.input)
            if not by_number:
                kept.append(node.name)
    return kept
