"""ONNX's own tests of operators, on cards where a translation exists: docs/operators.md.

`python -m tests.host.frontend.node_tests` writes the page anew.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.functions import ELEMENTWISE, WITH_OTHERS
from halfdome.host.frontend.load import load
from halfdome.host.frontend.net import Net
from halfdome.host.frontend.partition import TRANSLATIONS, Refusal, card_step
from halfdome.host.frontend.reasons import REASONS
from halfdome.host.frontend.sessions import open_session

PAGE = Path(__file__).parents[3] / "docs" / "operators.md"
_ALL_DATA = ("Concat", "Identity")
_AS_BYTES = ("Gather", "Pad", "Slice", "Split")
_NEWEST = 21
"""The opset whose operators ONNX Runtime has; its tests of newer ones say the same in it."""
_OUTSIDE = {
    "QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool",
    "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu",
}  # fmt: skip
_HEAD = """# Operators of ONNX models, and where they run

`python -m tests.host.frontend.node_tests` writes this page; a test keeps it true.

## On the cards

Bits are ONNX Runtime's: tests in `tests/host/frontend` draw shapes, scales and ties for every
operator. The columns count ONNX's own tests of each, run through the translation and the bit-exact
interpreter of graphs; all their operands but the first are made constants. Where a test wants what
cards do not do (16 bits, a scale for each row), or only names axes anew, the host computes it, in
ONNX Runtime. Not taken are tests of sequences, of sizes known at run time alone, of types that
numpy does not have, and those that ONNX Runtime refuses or computes otherwise. Gather, Pad, Slice
and Split move bytes instead of the tests' floats.

| operator | its tests | on cards | on the host | not taken | wrong |
|---|---|---|---|---|---|
"""
_MIDDLE = """
Operators of the domain com.microsoft have no tests of ONNX's. Whatever stands between operators of
the host, and only moves or converts elements, stays there, too.

Any function of one 8-bit tensor, element by element, is a `LOOKUP`: what stands between a
DequantizeLinear and a QuantizeLinear with one scale each, if nobody else sees the floats, and if
each node is one of {functions}, or {others} with a number or with another float of the same
tensor. QLinearAdd, QLinearMul, QLinearSigmoid and QLinearLeakyRelu of such bytes belong to it,
too. ONNX Runtime computes the table, over all 256 bytes.

## On the host

All others: ONNX Runtime computes them. Why, for those that quantised models hold most:

| operator | why |
|---|---|
"""


def cases() -> Iterator[tuple[str, Any]]:
    """(operator, test) of all tests of operators that have a translation."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        operators = {node.op_type for node in case.model.graph.node}
        if len(operators) == 1 and (operator := operators.pop()) in TRANSLATIONS:
            yield operator, case


def outcome(operator: str, case: Any) -> str:
    """Where a test ran, or that it did not."""
    where = ""
    try:
        for inputs, outputs in map(_bytes if operator in _AS_BYTES else tuple, case.data_sets):
            names = [value.name for value in case.model.graph.input]
            arrays = dict(zip(names, inputs, strict=False))
            made = _frozen(operator, case.model, arrays, outputs)
            request = {value.name: arrays[value.name] for value in made.graph.input}
            where, results = _computed(load(made), request)
            for expected, found in zip(outputs, results, strict=True):
                if found.dtype != expected.dtype:
                    return "wrong"
                np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)
    except (ModelError, AttributeError):  # sequences and optional tensors have no dtype
        return "not taken"
    except AssertionError:
        return "not taken" if where == "host" else "wrong"
    return where


def _bytes(data: tuple[list[np.ndarray], list[np.ndarray]]) -> tuple[list, list]:
    """A test that moves floats as one that moves bytes, 0 what it pads with."""
    inputs, outputs = data
    padded = [each.reshape(-1) for each in inputs[2:3] if each.dtype.kind == "f"]
    floats = np.concatenate([*padded, [0], *(each.reshape(-1) for each in inputs[:1])])
    numbers = {value: number % 256 for number, value in enumerate(dict.fromkeys(floats))}

    def byte(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        return np.array([numbers[value] for value in array.flat], np.uint8).reshape(array.shape)

    return [byte(each) for each in inputs], [byte(each) for each in outputs]


def _frozen(
    operator: str, model: onnx.ModelProto, arrays: dict[str, np.ndarray], outputs: list[np.ndarray]
) -> onnx.ModelProto:
    """All inputs but the data are constants, and types those of the arrays."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    keep = len(arrays) if operator in _ALL_DATA else 1
    inputs = list(made.graph.input)
    del made.graph.input[:]
    made.graph.input.extend(inputs[:keep])
    for values, held in ((made.graph.input, arrays.values()), (made.graph.output, outputs)):
        for value, array in zip(values, held, strict=False):
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            value.type.tensor_type.elem_type = kind
    made.opset_import[0].version = min(made.opset_import[0].version, _NEWEST)
    for value in inputs[keep:]:
        made.graph.initializer.append(numpy_helper.from_array(arrays[value.name], value.name))
    return made


def _computed(
    model: onnx.ModelProto, request: dict[str, np.ndarray]
) -> tuple[str, list[np.ndarray]]:
    outputs = [value.name for value in model.graph.output]
    net = Net(model)
    try:
        found = card_step(net, range(len(net.nodes))).run(request)
        return "cards", [found[name] for name in outputs]
    except Refusal:
        return "host", _by_runtime(model, outputs, request)


def _by_runtime(
    model: onnx.ModelProto, outputs: list[str], request: dict[str, np.ndarray]
) -> list[np.ndarray]:
    session = open_session(model)
    try:
        return session.run(outputs, request)
    except Exception as error:  # what it does not support it says when it comes to it
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise ModelError(str(error)) from None


def page() -> str:
    """The text of docs/operators.md."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in TRANSLATIONS}
    for operator, case in cases():
        counts[operator][outcome(operator, case)] += 1
    lines = []
    for operator, found in sorted(counts.items()):
        cells = [found[key] for key in ("cards", "host", "not taken", "wrong")]
        shown = ["–"] * 5 if operator in _OUTSIDE else [str(each) for each in (sum(cells), *cells)]
        lines.append(f"| {operator} | {' | '.join(shown)} |\n")
    reasons = [f"| {operator} | {why} |\n" for operator, why in sorted(REASONS.items())]
    middle = _MIDDLE.format(functions=", ".join(ELEMENTWISE), others=", ".join(WITH_OTHERS))
    return _HEAD + "".join(lines) + middle + "".join(reasons)


if __name__ == "__main__":
    PAGE.write_text(page())
