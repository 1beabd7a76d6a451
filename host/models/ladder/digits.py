"""Rung 1: a perceptron that scikit-learn trains on handwritten digits, written by skl2onnx."""

import warnings

import numpy as np

from halfdome.host.models.ladder.rung import Rung

INPUT = "pixels"
_TRAINED = 1200
_CALIBRATED = 256
_OPSETS = {"": 17, "ai.onnx.ml": 3}


def digits(batch: int = 32, seed: int = 0) -> Rung:
    """A scaler and layers of 64, 64, 32 and 10: `label` int64[batch], `probabilities` fp32.

    The images have 8 × 8 pixels from 0 to 16, float32[batch, 64]. Those it is asked are not among
    the ones it is trained on; the last that fill no batch are left out. Raises `ImportError`
    without scikit-learn and skl2onnx, `ValueError` for a batch that is not 1 to 256.
    """
    if not 1 <= batch <= _CALIBRATED:
        raise ValueError(f"batch={batch}: must be 1 to {_CALIBRATED}")
    try:
        from onnx import TensorProto, helper, shape_inference
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
        from sklearn.datasets import load_digits
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(f"rung 1: {error}; `pip install 'halfdome[models]'`") from None

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    fitted, asked = order[:_TRAINED], order[_TRAINED:]
    asked = asked[: len(asked) // batch * batch]
    layers = MLPClassifier((64, 32), max_iter=60, random_state=seed)
    classifier = make_pipeline(StandardScaler(), layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sixty epochs are enough, converged or not
        classifier.fit(images[fitted], labels[fitted])
        model = to_onnx(
            classifier, initial_types=[(INPUT, FloatTensorType([batch, 64]))],
            options={id(classifier): {"zipmap": False}}, target_opset=_OPSETS,
        )  # fmt: skip
    # What shapes are behind an operator of another domain, inference has to be told.
    scaled = next(node.output[0] for node in model.graph.node if node.op_type == "Scaler")
    shape = (batch, images.shape[1])
    model.graph.value_info.append(helper.make_tensor_value_info(scaled, TensorProto.FLOAT, shape))
    model = shape_inference.infer_shapes(model)
    seen = fitted[: _CALIBRATED // batch * batch]
    return Rung(
        "digits", model, _batches(images[asked], batch), _batches(images[seen], batch),
        labels[asked].astype(np.int64),
    )  # fmt: skip


def _batches(images: np.ndarray, batch: int) -> list[dict[str, np.ndarray]]:
    return [{INPUT: part} for part in images.reshape(-1, batch, images.shape[1])]
