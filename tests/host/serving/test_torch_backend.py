"""`torch.compile` with the backend, of which sessions stand for what cards would answer."""

import gc
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from halfdome.host.frontend.errors import TorchError  # noqa: E402
from halfdome.host.serving.torch_backend import halfdome  # noqa: E402

nn = torch.nn
ROOT = Path(__file__).parents[3]
pytestmark = [
    # PyTorch's own, of its compiler.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class Session:
    """Answers by ONNX Runtime what an `InferenceSession` is asked."""

    opened: "list[Session]"

    def __init__(self, model, *, calibration, **options):
        self.model, self.calibration, self.options = model, calibration, options
        self.opened.append(self)
        self.closed = False
        self._session = onnxruntime.InferenceSession(
            model.rest.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def close(self):
        self.closed = True

    def run(self, names, inputs):
        return self._session.run(names, self.model.rest_inputs(inputs))


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """The sessions that a test opens."""
    torch._dynamo.reset()
    name = "halfdome.host.serving.session"
    module = ModuleType(name)
    module.InferenceSession = type("InferenceSession", (Session,), {"opened": []})
    monkeypatch.setitem(sys.modules, name, module)
    return module.InferenceSession.opened


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.register_buffer("shift", torch.rand(3))

    def forward(self, x):
        y = self.norm(torch.relu(self.layer(x))) + self.shift
        return {"y": y, "samples": x.shape[0]}


class Recommender(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.EmbeddingBag(9, 4, mode="sum"), nn.Linear(4, 2)

    def forward(self, indices, offsets):
        return self.layer(self.table(indices, offsets))


def made(kind):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return kind().eval()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_compiled_module_answers_as_the_module_does(opened, mode):
    network = made(Network)
    compiled = torch.compile(network, backend=halfdome, options={"cards": 2})
    with mode():
        for _ in range(2):
            x = torch.rand(5, 4)
            answer, expected = compiled(x), network(x)
            assert answer["samples"] == 5
            torch.testing.assert_close(answer["y"], expected["y"])
    [session] = opened
    assert session.options == {"cards": 2}
    [inputs] = session.calibration
    assert [array.shape for array in inputs.values()] == [(5, 4)]
    assert [value.name for value in session.model.rest.graph.input] == list(inputs)


def test_each_size_has_a_session(opened):
    network = made(Network)
    compiled = torch.compile(network, backend=halfdome)
    with torch.inference_mode():
        for samples in (5, 2, 7, 2, 7):
            x = torch.rand(samples, 4)
            answer = compiled(x)
            assert answer["samples"] == samples
            torch.testing.assert_close(answer["y"], network(x)["y"])
    assert [len(next(iter(each.calibration[0].values()))) for each in opened] == [5, 2, 7]


def test_bags_of_any_length_have_one_session(opened):
    network = made(Recommender)
    compiled = torch.compile(network, backend=halfdome, dynamic=True)
    with torch.inference_mode():
        for length in (5, 8, 6):
            bags = torch.arange(length), torch.tensor([0, 2])
            torch.testing.assert_close(compiled(*bags), network(*bags), atol=0.02, rtol=0)
    [session] = opened
    assert len(session.model.bags) == 1
    assert sorted(map(len, session.calibration[0].values())) == [2, 5]


def test_floats_of_dynamic_shapes_are_numbers(opened):
    network = made(lambda: nn.Sequential(nn.BatchNorm1d(3)))
    compiled = torch.compile(network, backend=halfdome, dynamic=True)
    with torch.inference_mode():
        x = torch.rand(4, 3)
        torch.testing.assert_close(compiled(x), network(x))
    [array] = opened[0].calibration[0].values()
    assert array.shape == (4, 3)


def test_sessions_are_closed_with_what_was_compiled(opened):
    graph = torch.fx.Graph()
    graph.output((graph.call_function(torch.relu, (graph.placeholder("x"),)),))
    answer = halfdome(torch.fx.GraphModule({}, graph), [torch.ones(2)])
    assert answer(torch.tensor([-1.0, 2.0]))[0].tolist() == [0, 2]
    assert not opened[0].closed
    del answer
    gc.collect()
    assert opened[0].closed


def test_gradients_are_refused(opened):
    compiled = torch.compile(made(Network), backend=halfdome)
    with pytest.raises(Exception, match="cards only infer; call it under"):
        compiled(torch.rand(5, 4))
    with pytest.raises(TorchError, match="gradients"):
        halfdome(torch.fx.symbolic_trace(nn.ReLU()), [torch.ones(1, requires_grad=True)])
    assert not opened


def test_pytorch_finds_the_backend_by_its_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    group = "torch_dynamo_backends"
    [(name, value)] = project["entry-points"][group].items()
    assert EntryPoint(name, value, group).load() is halfdome
    assert name == "halfdome"


def test_an_option_that_there_is_not_is_refused_before_exporting(opened):
    module = nn.Linear(4, 2).eval()
    compiled = torch.compile(module, backend=halfdome, options={"foo": 1})
    with torch.inference_mode(), pytest.raises(Exception, match="foo: is no option"):
        compiled(torch.zeros(1, 4))
    assert not opened
