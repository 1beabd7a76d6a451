"""A model that comes in is compiled for some cores of each card."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from halfdome.hdl.config import PRESETS
from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.plan import CardPart
from tests.host.frontend.nets import model, node

DUAL = PRESETS["tiny"].replace(cores=2)
X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


def compiled(**how):
    weights = {"w": np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)}
    net = model([node("MatMul", "x w", "y")], {"x": (np.float32, (4, 8))}, ["y"], weights)
    return compile(net, calibration=[{"x": X}], cards=1, config=DUAL, **how)


@pytest.mark.parametrize(("chosen", "cores"), [({}, [0, 1]), ({"cores": (1,)}, [1])])
def test_every_step_has_the_cores_that_are_chosen(chosen, cores):
    parts = [step for step in compiled(**chosen).steps if isinstance(step, CardPart)]
    assert [part.program.cores for part in parts] == [cores] * len(parts) != []


@pytest.mark.parametrize("how", [{"cores": [2]}, {"cores_sparse": 2}])
def test_cores_that_there_are_not_are_refused(how):
    with pytest.raises(ValueError, match=r"cores(_sparse)?=2: "):
        compiled(**how)
