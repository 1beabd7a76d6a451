import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from tests.host.frontend.node_tests import PAGE, page


@pytest.mark.slow
def test_the_page_of_operators_is_true():
    made = page()
    assert made == PAGE.read_text()
    counted = [line.split(" | ") for line in made.splitlines() if line.count(" | ") == 5]
    assert all(cells[-1].rstrip(" |") in ("0", "–", "wrong") for cells in counted)
