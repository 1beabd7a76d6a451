"""Models of a node or two, on cards as the golden operators compute them and in ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
import onnx

from halfdome.host.frontend.functions import collapse
from halfdome.host.frontend.net import Net
from halfdome.host.frontend.partition import card_step
from halfdome.host.frontend.sessions import oracle
from halfdome.host.frontend.steps import CardStep
from tests.host.frontend.nets import Arrays


def step_of(made: onnx.ModelProto) -> CardStep:
    """All nodes of a model as one step of the cards."""
    net = collapse(Net(made))
    return card_step(net, range(len(net.nodes)))


def agree(made: onnx.ModelProto, requests: Sequence[Arrays]) -> CardStep:
    """Checks every bit of every output, all requests in one graph."""
    step = step_of(made)
    values = {
        port.value: port.pack([request[port.tensor] for request in requests])
        for port in step.inputs
    }
    computed = step.graph(len(requests)).run(values)
    session = oracle(made)
    names = [value.name for value in made.graph.output]
    assert {port.tensor for port in step.outputs} == set(names)
    for place, request in enumerate(requests):
        expected = dict(zip(names, session.run(names, request), strict=True))
        for port in step.outputs:
            found = port.unpack(computed[port.value])[place]
            right = expected[port.tensor]
            assert (found.dtype, found.shape) == (right.dtype, right.shape)
            np.testing.assert_array_equal(found, right, err_msg=port.tensor)
    return step


def bytes_of(rng: np.random.Generator, dtype: np.dtype, *shape: int) -> np.ndarray:
    """Any bytes, the least and the greatest among them."""
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
