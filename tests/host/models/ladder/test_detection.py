"""YOLOX and PP-OCR's detection: what they find in pictures, in fp32, in 8 bits and on the cards."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.prepare import prepare
from halfdome.host.frontend.sessions import oracle
from halfdome.host.models.ladder import pp_ocr, yolox
from halfdome.host.models.ladder.boxes import overlap
from tests.host.models.ladder.fetched import needs
from tests.host.models.ladder.golden import answered


def found_by(model, rung, boxes):
    session = oracle(model)
    return [boxes(session.run(None, request)[0]) for request in rung.inputs]


def check(rung, prepared, boxes, most_steps):
    """Outputs and boxes of the cards and the host are those of ONNX Runtime's 8 bits."""
    plan = compile(prepared, cards=1)
    assert len(plan.steps) <= most_steps
    assert plan.report["nodes_on_host"] < 10
    request = rung.inputs[0]
    [expected] = oracle(prepared.model).run(None, request)
    output = answered(plan, request)[prepared.model.graph.output[0].name]
    np.testing.assert_array_equal(output, expected)
    for mine, theirs in zip(boxes(output), boxes(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)


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
    check(rung, prepared, pp_ocr.lines, 5)
