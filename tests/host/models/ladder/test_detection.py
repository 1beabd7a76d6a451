"""YOLOX and PP-OCR's detection: what they find in pictures, in fp32, in 8 bits and on the cards."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.prepare import prepare
from halfdome.host.frontend.sessions import oracle
from halfdome.host.frontend.steps import CardStep, HostStep
from halfdome.host.models.ladder import pp_ocr, yolox
from halfdome.host.models.ladder.boxes import overlap
from tests.host.frontend.test_partition import answer
from tests.host.models.ladder.fetched import needs


def found_by(model, rung, boxes):
    session = oracle(model)
    return [boxes(session.run(None, request)[0]) for request in rung.inputs]


def check(rung, prepared, boxes, most_steps):
    """Outputs and boxes of the cards and the host are those of ONNX Runtime's 8 bits."""
    found = steps(prepared.model)
    assert len(found) <= most_steps
    on_host = [
        node.op_type for step in found if isinstance(step, HostStep)
        for node in step.model.graph.node
    ]  # fmt: skip
    assert sum(len(step.made) for step in found if isinstance(step, CardStep)) > 200
    request = rung.inputs[0]
    [expected] = oracle(prepared.model).run(None, request)
    output = answer(found, request)[prepared.model.graph.output[0].name]
    np.testing.assert_array_equal(output, expected)
    for mine, theirs in zip(boxes(output), boxes(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    return on_host


@pytest.mark.slow
@needs(yolox.FILE)
def test_yolox_finds_letters_with_the_bits_of_onnx_runtime():
    rung = yolox.yolox()
    prepared = prepare(rung.model, calibration=rung.calibration)
    exact, close = (
        found_by(model, rung, yolox.boxes) for model in (prepared.floating, prepared.model)
    )
    assert [len(each.scores) for each in exact] == [len(each.scores) for each in close]
    for one, other in zip(exact, close, strict=True):
        assert overlap(one.edges, other.edges).max(1).min() > 0.85
    check(rung, prepared, yolox.boxes, 3)


@pytest.mark.slow
@needs(pp_ocr.FILE)
def test_pp_ocr_finds_lines_with_the_bits_of_onnx_runtime():
    rung = pp_ocr.pp_ocr()
    prepared = prepare(rung.model, calibration=rung.calibration)
    exact, close = (
        found_by(model, rung, pp_ocr.lines) for model in (prepared.floating, prepared.model)
    )
    assert [len(each.scores) for each in exact] == [4, 4, 4]
    for one, other in zip(exact, close, strict=True):
        assert overlap(one.edges, other.edges).max(1).min() > 0.8
    check(rung, prepared, pp_ocr.lines, 3)
