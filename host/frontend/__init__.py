"""ONNX models come in here: read, quantised, and parted between the cards and the host.

Importing it raises `ImportError` that says what to install if a library for models is missing.
"""

from importlib.util import find_spec

for _library in ("onnx", "onnx_ir", "onnxscript", "onnxruntime"):
    if find_spec(_library) is None:
        raise ImportError(f"{_library}: is missing, models need it: pip install 'halfdome[models]'")
