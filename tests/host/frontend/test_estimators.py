"""Estimators that multiply no matrices come in, and stay on the host."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("skl2onnx")
pytest.importorskip("sklearn")

from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    BaggingRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    VotingRegressor,
)
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

from halfdome.host.frontend.load import load
from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.quantise import to_qoperator
from halfdome.host.frontend.sessions import oracle
from halfdome.host.frontend.steps import HostStep
from tests.host.frontend.test_partition import answer

DATA, LABELS = load_iris(return_X_y=True)
DATA = DATA.astype(np.float32)


# What skl2onnx reads of an SVC, scikit-learn is about to drop.
@pytest.mark.filterwarnings("ignore:Attribute `prob._` was deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("estimator", "operator"),
    [
        (SVC(random_state=0), "SVMClassifier"),
        (RandomForestClassifier(n_estimators=5, random_state=0), "TreeEnsembleClassifier"),
        (GradientBoostingClassifier(n_estimators=5, random_state=0), "TreeEnsembleClassifier"),
    ],
)
def test_vector_machines_and_trees_are_the_hosts_for_good(estimator, operator):
    fitted = estimator.fit(DATA, LABELS)
    model = load(to_onnx(fitted, DATA[:1], options={"zipmap": False}), {"X": DATA.shape})
    [step] = steps(to_qoperator(model, [{"X": DATA}]))
    assert isinstance(step, HostStep)
    [place] = [n for n, node in enumerate(step.model.graph.node) if node.op_type == operator]
    assert list(step.reasons.values())[place].endswith("on the host for good")
    made = answer([step], {"X": DATA})
    assert (made[model.graph.output[0].name] == fitted.predict(DATA)).all()


TREE = DecisionTreeRegressor(max_depth=3, random_state=0)
LAYERS = MLPRegressor(hidden_layer_sizes=(4,), max_iter=9, solver="sgd", random_state=0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("estimator", "exact"),
    [
        (BaggingRegressor(TREE, n_estimators=3, random_state=0), True),
        (VotingRegressor([("tree", TREE), ("layers", LAYERS)]), False),
    ],
)
def test_what_sums_up_trees_loses_nothing(estimator, exact):
    """Products beside them are of 8 bits as ever."""
    fitted = estimator.fit(DATA, LABELS)
    model = load(to_onnx(fitted, DATA[:1]), {"X": DATA.shape})
    made = to_qoperator(model, [{"X": DATA}])
    products = [node.op_type for node in made.graph.node if node.op_type.startswith("Q")]
    assert ("QGemm" not in products) is exact
    [right], [found] = (oracle(each).run(None, {"X": DATA}) for each in (model, made))
    assert (found.tobytes() == right.tobytes()) is exact
