"""The public face: `import halfdome` is cheap, and has what it promises."""

import subprocess
import sys

import pytest

import halfdome


def test_every_public_name_has_a_home():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert set(halfdome._HOMES) == set(halfdome.__all__)
    for name in halfdome.__all__:
        assert getattr(halfdome, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'halfdome' has no attribute 'opened'"):
        _ = halfdome.opened


def test_importing_it_imports_nothing_that_is_not_used():
    heavy = ("numpy", "onnx", "onnxruntime", "torch", "amaranth")
    code = f"import sys, halfdome; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
