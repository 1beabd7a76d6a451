"""Sessions answer as ONNX Runtime does, on cards as far as they can."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import halfdome
from halfdome.hdl.config import ConfigError
from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.plan import Plan
from halfdome.host.frontend.quantise import to_qoperator
from halfdome.host.frontend.sessions import oracle
from halfdome.host.frontend.steps import HostStep
from halfdome.host.serving.session import InferenceSession
from tests.host.frontend import nets

REQUESTS = [{"x": image} for image in nets.images(3, seed=8)]
CALIBRATION = [{"x": image} for image in nets.images(4)]


@pytest.fixture(scope="module")
def plan():
    """A convolutional net for two cards."""
    return compile(nets.residual(), calibration=CALIBRATION, cards=2, config="tiny")


@pytest.fixture(scope="module")
def session(plan):
    with InferenceSession(plan, config="tiny") as opened:
        yield opened


@pytest.fixture(scope="module")
def expected():
    """What ONNX Runtime makes of the requests."""
    reference = oracle(to_qoperator(nets.residual(), CALIBRATION))
    return [reference.run(None, request) for request in REQUESTS]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


def test_a_request_has_the_bits_of_onnx_runtime(session, expected):
    same(session.run(None, REQUESTS[0]), expected[0])


def test_many_requests_are_dealt_over_the_cards(session, expected):
    before = [card.counters()["cycles"] for card in session.runtime.cards]
    steps = []
    answers = session.run_many(None, REQUESTS, steps.append)
    for found, wanted in zip(answers, expected, strict=True):
        same(found, wanted)
    assert sum(steps) == len(REQUESTS) * len(session.plan.steps)
    assert all(
        card.counters()["cycles"] > cycles
        for card, cycles in zip(session.runtime.cards, before, strict=True)
    )


def test_it_tells_what_each_step_took(session):
    session.run(None, REQUESTS[0])
    for step, run in zip(session.plan.steps, session.steps, strict=True):
        assert run.seconds > 0
        assert (run.cycles == 0) == isinstance(step, HostStep) == (not run.responses)


def test_inputs_and_outputs_are_told_as_onnx_runtime_tells_them(session):
    [x], [y] = session.get_inputs(), session.get_outputs()
    assert (x.name, x.type, x.shape) == ("x", "tensor(float)", list(REQUESTS[0]["x"].shape))
    assert y.type == "tensor(float)"


def test_without_values_cards_take_the_same_cycles(plan):
    """Outputs are told by shape, and steps of the host that need them do not run."""
    taken = []
    for values in (True, False):
        with InferenceSession(plan, config="tiny", engine="timing", values=values) as opened:
            [found] = opened.run(None, REQUESTS[0])
            taken.append([step.cycles for step in opened.steps])
    assert taken[0] == taken[1]
    assert sum(taken[0]) > 0
    assert repr(found) == f"LeftOut(float32{list(plan.outputs[0].shape)})"


def test_a_plan_is_saved_and_loaded(plan, tmp_path, expected):
    path = tmp_path / "net.halfdome"
    plan.save(path)
    loaded = Plan.load(path)
    assert loaded.inputs == plan.inputs
    assert loaded.outputs == plan.outputs
    with InferenceSession(path, config="tiny") as opened:
        same(opened.run(None, REQUESTS[0]), expected[0])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "input x: missing from the request; inputs are x"),
        ({"x": REQUESTS[0]["x"], "y": 1}, "input y: unknown; inputs are x"),
        ({"x": REQUESTS[0]["x"].astype(np.float64)}, r"input x: is float64.*must be float32\[1"),
        ({"x": REQUESTS[0]["x"][:, :1]}, r"input x: is float32\[1, 1.*must be float32\[1"),
        ([REQUESTS[0]["x"]], "request: is a list, must map names to arrays"),
        ({"x": np.ma.masked_array([0.0], [True])}, "input x: has masked elements"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(session, request_, message):
    with pytest.raises(ModelError, match=message):
        session.run(None, request_)


def test_an_unknown_output_is_refused(session):
    with pytest.raises(ModelError, match="output z: unknown; outputs are"):
        session.run(["z"], REQUESTS[0])


@pytest.mark.parametrize("names", ["y", 5])
def test_names_of_outputs_are_a_list(session, names):
    with pytest.raises(
        ModelError, match=f"output_names={names!r}: must be a list of names, or None"
    ):
        session.run(names, REQUESTS[0])


def test_text_is_what_a_model_of_strings_takes(tmp_path):
    compile(nets.labels(), cards=1, config="tiny").save(tmp_path / "labels.halfdome")
    with InferenceSession(tmp_path / "labels.halfdome", config="tiny", engine="timing") as opened:
        [found] = opened.run(None, {"x": np.array(["b", "a"])})
        assert [each.type for each in opened.get_inputs()] == ["tensor(string)"]
    assert found.tolist() == ["second", "first"]


def test_run_options_may_be_none(session, expected):
    same(session.run(None, REQUESTS[0], None), expected[0])
    with pytest.raises(ModelError, match="run_options: must be None"):
        session.run(None, REQUESTS[0], {"log": 1})


def test_a_closed_session_says_to_open_another(plan):
    with InferenceSession(plan, config="tiny") as opened:
        pass
    with pytest.raises(RuntimeError, match="session: is closed; open another InferenceSession"):
        opened.run(None, REQUESTS[0])


@pytest.mark.parametrize("cards", ["2", 2.0, 0, 13, True])
def test_cards_of_a_plan_are_a_number_in_range(plan, cards):
    with pytest.raises(ValueError, match=r"cards=.*: must be an integer from 1 to 12"):
        InferenceSession(plan, config="tiny", cards=cards)


def test_an_option_that_there_is_not_is_refused_before_compiling():
    told = []
    with pytest.raises(ValueError, match=r"foo: is no option; there are .*patience_cycles"):
        InferenceSession(nets.residual(), calibration=CALIBRATION, say=told.append, foo=1)
    assert not told
    with pytest.raises(ValueError, match=r"foo: is no option; there are .*skip_idle"):
        halfdome.open(cards=1, config="tiny", foo=1)


def test_a_request_that_onnx_runtime_refuses_is_refused_in_its_words():
    nodes = [nets.node("Gather", "table i", "y")]
    constants = {"table": np.zeros((5, 3), np.float32)}
    net = nets.typed(nets.model(nodes, {"i": (np.int64, (2,))}, ["y"], constants))
    request = {"i": np.array([1, 7])}
    with InferenceSession(net, calibration=[{"i": np.array([0, 4])}], cards=1, config="tiny") as it:
        with pytest.raises(ModelError, match=r"Gather node. Name:'Gather_y'.*idx=7") as caught:
            it.run(None, request)
    assert "\n" not in str(caught.value)


def test_what_a_plan_is_not_for_is_refused(plan, tmp_path):
    with pytest.raises(ModelError, match=r"is compiled for cards of tiny .*, these are default "):
        InferenceSession(plan, config="default")
    with pytest.raises(ModelError, match="cards=3: the model is compiled for 2"):
        InferenceSession(plan, config="tiny", cards=3)
    with pytest.raises(ModelError, match="is compiled already"):
        InferenceSession(plan, config="tiny", calibration=CALIBRATION)
    with pytest.raises(ConfigError, match="config=3"):
        InferenceSession(plan, config=3)
    with pytest.raises(ModelError, match="there is no such file"):
        InferenceSession(tmp_path / "none.halfdome")
    (tmp_path / "some.halfdome").write_bytes(b"what is no archive")
    with pytest.raises(ModelError, match="is no compiled model, or damaged"):
        Plan.load(tmp_path / "some.halfdome")


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelError, match="model: is a int, must be the path of an ONNX or"):
        compile(7)
    with pytest.raises(ValueError, match="cards=13: must be an integer from 1 to 12"):
        compile(nets.residual(), calibration=CALIBRATION, cards=13)
    with pytest.raises(ModelError, match="calibration: this model computes in floating point"):
        compile(nets.residual())
