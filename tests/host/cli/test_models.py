"""`halfdome run MODEL`, `compile` and `compare`: answers, tables, and what is refused."""

import json

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.frontend.prepare import prepare
from halfdome.host.frontend.sessions import oracle
from halfdome.host.serving.session import InferenceSession
from tests.host.frontend import nets

IMAGES = nets.images(3, seed=8)
TINY = ("--config", "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A convolutional net, requests for it, and what calibrates it."""
    path = tmp_path_factory.mktemp("models")
    onnx.save(nets.residual(), path / "net.onnx")
    np.savez(path / "x.npz", x=IMAGES)
    np.savez(path / "c.npz", x=nets.images(4))
    return path


@pytest.fixture
def net(folder):
    """Arguments of what takes the net and requests."""
    return folder / "net.onnx", "--input", folder / "x.npz", "--calibrate", folder / "c.npz", *TINY


@pytest.fixture(scope="module")
def expected(folder):
    """What ONNX Runtime makes of the requests."""
    made = prepare(folder / "net.onnx", calibration=[{"x": nets.images(4)}])
    judge = oracle(made.model)
    return np.stack([judge.run(None, {"x": image})[0] for image in IMAGES])


def altered(monkeypatch, name):
    """Cards err in a bit of a tensor."""
    right = InferenceSession.tensors

    def tensors(self, requests, progress):
        made = right(self, requests, progress)
        array = made[1][name].copy()
        array.reshape(-1).view(f"u{array.dtype.itemsize}")[0] ^= 1
        made[1][name] = array
        return made

    monkeypatch.setattr(InferenceSession, "tensors", tensors)


def test_run_without_values_tells_cycles_alone(halfdome, net, refused, tmp_path):
    result = tmp_path / "result.json"
    status, text, _ = halfdome("run", *net, "--cards", 2, "--engine", "timing", "--no-values",
                               "--json", result)  # fmt: skip
    assert status == 0
    assert "left out" in text
    report = json.loads(result.read_text())
    assert report["values"] is False
    assert [each["first_values"] for [each] in report["outputs"]] == [None] * len(IMAGES)
    assert report["total_cycles"] > 0
    refused("--no-values: leaves no outputs to compare or write", "run", *net, "--no-values",
            "--compare")  # fmt: skip


def test_run_answers_and_tells_where_and_how_long(halfdome, net, expected, tmp_path):
    written, result = tmp_path / "y.npz", tmp_path / "result.json"
    status, text, error = halfdome("run", *net, "--cards", 2, "--output", written,
                                   "--json", result, "--compare")  # fmt: skip
    assert status == 0
    with np.load(written) as answers:
        np.testing.assert_array_equal(answers["y"], expected)
    report = json.loads(result.read_text())
    assert report["config_hash"] == preset("tiny").hash
    assert [each[0]["largest_of_first_row"] for each in report["outputs"]] == [
        int(each[0].argmax()) for each in expected
    ]
    assert len(report["latency_cycles"]) == 3
    assert report["total_us"] == report["total_cycles"] / preset("tiny").clock_mhz
    assert report["compare"]["first"] is None
    steps = report["partition"]["steps"]
    assert set(report["layers"]) == {
        str(n) for n, step in enumerate(steps) if step["where"] == "cards"
    }
    pieces = [
        "float32[1, 5]", "QLinearSoftmax", "another order", f"{report['total_cycles']:,} cycles",
        "equal to ONNX Runtime's in every bit",
    ]  # fmt: skip
    for piece in pieces:
        assert piece in " ".join(text.split())
    assert f"{3 * len(steps)}/{3 * len(steps)}" in error
    assert max(map(len, text.splitlines())) <= 80


def test_an_answer_with_another_bit_makes_the_exit_status_1(halfdome, net, monkeypatch):
    altered(monkeypatch, "y")
    status, text, _ = halfdome("run", *net, "--compare")
    assert status == 1
    assert "tensors differ from ONNX Runtime's; the first is of node" in text


def test_compile_tells_what_is_where_and_its_file_runs(halfdome, folder, net, expected, tmp_path):
    file, written = tmp_path / "net.halfdome", tmp_path / "y.npz"
    report = tmp_path / "report.json"
    status, text, _ = halfdome("compile", net[0], "-o", file, *net[3:], "--cards", 2,
                               "--json", report)  # fmt: skip
    assert status == 0
    found = json.loads(report.read_text())
    assert found["cards"] == 2
    assert f"{found['nodes_on_cards']} nodes on the cards" in text
    assert "cards sum rows in another order" in " ".join(text.split())
    assert halfdome("run", file, *net[1:3], *TINY, "-o", written)[0] == 0
    with np.load(written) as answers:
        np.testing.assert_array_equal(answers["y"], expected)


def test_compare_shows_every_layer_beside_int8_and_fp32(halfdome, net, tmp_path):
    result, dumped = tmp_path / "result.json", tmp_path / "tensors"
    status, text, _ = halfdome("compare", *net, "--json", result, "--dump", dumped)
    assert status == 0
    report = json.loads(result.read_text())
    assert report["first"] is None
    rows = {row["node"]: row for row in report["tensors"]}
    for operator in ("Conv_c1_quant", "Conv_c2_quant", "Add_a_quant", "Gemm_l_quant"):
        assert rows[operator]["differing"] == 0
        assert rows[operator]["fp32_sqnr_db"] > 25
        assert operator in text.replace("\n", "")
    assert sorted(file.name for file in dumped.iterdir()) == ["0.npz", "1.npz", "2.npz"]
    assert f"{len(rows)} tensors are equal to ONNX Runtime's in every bit" in text


def test_compare_names_the_first_node_that_differs(halfdome, net, monkeypatch, tmp_path):
    altered(monkeypatch, "a_quantized")
    result = tmp_path / "result.json"
    status, text, _ = halfdome("compare", *net, "--json", result)
    assert status == 1
    assert json.loads(result.read_text())["first"] == "Add_a_quant"
    assert "1 of" in text
    assert "the first is of node Add_a_quant" in text


def test_a_folder_holds_several_inputs(halfdome, net, tmp_path):
    for place, image in enumerate(IMAGES[:2]):
        np.savez(tmp_path / f"{place}.npz", x=image)
    result = tmp_path / "result.json"
    status, _, _ = halfdome("run", net[0], "--input", tmp_path, *net[3:], "--json", result)
    assert status == 0
    assert json.loads(result.read_text())["requests"] == 2


@pytest.mark.slow
def test_text_goes_in_and_comes_out_in_files(halfdome, tmp_path):
    onnx.save(nets.labels(), tmp_path / "labels.onnx")
    np.savez(tmp_path / "x.npz", x=np.array(["b", "a"]))
    asked = tmp_path / "labels.onnx", "--input", tmp_path / "x.npz", *TINY, "--engine", "timing"
    assert halfdome("run", *asked, "-o", tmp_path / "y.npz")[0] == 0
    assert np.load(tmp_path / "y.npz")["y"].tolist() == ["second", "first"]
    assert halfdome("compare", *asked, "--dump", tmp_path)[0] == 0
    assert np.load(tmp_path / "0.npz")["cards/y"].tolist() == ["second", "first"]


def test_pytorch_files_run_as_well(halfdome, tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    x = torch.linspace(-1, 1, 24).reshape(3, 8)
    torch.export.save(torch.export.export(network.eval(), (x,)), tmp_path / "net.pt2")
    np.savez(tmp_path / "x.npz", input=x.numpy())
    given = (tmp_path / "net.pt2", "--input", tmp_path / "x.npz", *TINY)
    status, text, _ = halfdome("compare", *given)
    assert status == 0
    assert "in every bit" in text
    status, text, _ = halfdome("run", *given, "--output", tmp_path / "y.npz")
    assert status == 0
    with np.load(tmp_path / "y.npz") as answers:
        wanted = network(x).detach().numpy()
        np.testing.assert_allclose(answers["output"], wanted, atol=0.05)


def broken(kind, path):
    """A model with something wrong, and what is said of it."""
    made = nets.residual()
    if kind == "text":
        path.write_text("hello")
        return "is no ONNX model; export one"
    if kind == "operator":
        made.graph.node[1].op_type = "Rellu"
    if kind == "open":
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    if kind == "external":
        onnx.save(made, path, save_as_external_data=True, location="w.bin", size_threshold=0)
        (path.parent / "w.bin").unlink()
        return "w.bin, which is missing; put that file beside the model"
    path.write_bytes(made.SerializeToString())
    return {
        "operator": "node Relu_r1: operator Rellu is unknown; is it misspelled",
        "open": "input x: leaves sizes open, [n, 3, 12, 12]; fix them, as with --shape x=1x3x12x12",
    }[kind]


@pytest.mark.parametrize("command", ["run", "compile", "compare"])
@pytest.mark.parametrize("kind", ["text", "operator", "open", "external"])
def test_a_model_that_cannot_be_used_is_refused(refused, folder, tmp_path, command, kind):
    path = tmp_path / "net.onnx"
    given = ("--calibrate", folder / "c.npz", *TINY)
    if command != "compile":
        given += ("--input", folder / "x.npz")
    refused(broken(kind, path), command, path, *given)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": IMAGES}, "input z: unknown; inputs are x"),
        ({"x": IMAGES.astype(np.float64)}, "input x: is float64[1, 3, 12, 12], must be float32"),
        ({"x": IMAGES[..., :5]}, "input x: is float32[1, 3, 12, 5], must be float32[1, 3, 12, 12]"),
        ({"x": IMAGES[:0]}, "holds no request; give one or more"),
        ({}, "input x: missing from the request; inputs are x"),
    ],
)
@pytest.mark.parametrize("command", ["run", "compare"])
def test_inputs_that_do_not_fit_are_refused(refused, net, tmp_path, command, arrays, message):
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    refused(message, command, net[0], "--input", path, *net[3:])


def test_calibration_that_does_not_fit_is_refused(refused, net, tmp_path):
    np.savez(tmp_path / "c.npz", z=IMAGES)
    refused("calibration[0]: z: there is no such input; inputs are x", "run", *net[:3],
            "--calibrate", tmp_path / "c.npz", *TINY)  # fmt: skip
    refused("give requests that show its ranges, as with --calibrate", "run", *net[:3], *TINY)
    refused("gone.npz: there is no such file; numpy.savez makes one", "run", *net[:3],
            "--calibrate", tmp_path / "gone.npz", *TINY)  # fmt: skip


def test_calibration_that_lacks_an_input_is_refused(refused, tmp_path):
    inputs = {name: (np.float32, (1, 3)) for name in ("x", "z")}
    made = nets.typed(nets.model([nets.node("Add", "x z", "y")], inputs, ["y"], {}))
    onnx.save(made, tmp_path / "sum.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((1, 3), np.float32))
    refused("calibration[0]: input z is missing; give an array of this name", "compile",
            tmp_path / "sum.onnx", "--calibrate", tmp_path / "x.npz", *TINY)  # fmt: skip


def test_a_model_that_fits_no_card_is_refused(refused, tmp_path):
    weights = np.random.default_rng(0).standard_normal((1024, 1100)).astype(np.float32)
    nodes = [nets.node("MatMul", "x w", "y")]
    made = nets.model(nodes, {"x": (np.float32, (1, 1024))}, ["y"], {"w": weights})
    onnx.save(nets.typed(made), tmp_path / "large.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((1, 1024), np.float32))
    refused("fit no card", "run", tmp_path / "large.onnx", "--input", tmp_path / "x.npz",
            "--calibrate", tmp_path / "x.npz", *TINY)  # fmt: skip


def test_what_a_compiled_model_no_longer_takes_is_refused(refused, folder, tmp_path):
    path = tmp_path / "net.halfdome"
    asked = ("--input", folder / "x.npz")
    refused("is compiled; --calibrate and --shape are part of that", "run", path, *asked,
            "--shape", "x=1x3x12x12")  # fmt: skip
    for given in (("run", path, *asked, "--compare"), ("compare", path, *asked)):
        refused("is compiled, and holds no more what it would be compared with", *given)
    refused("must end with .halfdome", "compile", folder / "net.onnx", "-o", tmp_path / "net.zip")
    refused("net.halfdome: there is no such file", "run", path, *asked)


def test_other_names_than_those_of_commands_are_paths(refused, folder):
    refused("dlmr: there is no such file", "run", "dlmr", "--input", folder / "x.npz", *TINY)
    refused("dlmr: there is no such file", "run", "--input", folder / "x.npz", *TINY, "dlmr")


def test_files_that_cannot_be_written_are_refused_first(halfdome, net, folder):
    blocked = folder / "net.onnx" / "y.npz"
    for option in ("--output", "--json"):
        status, _, error = halfdome("run", *net, option, blocked)
        assert status == 2
        assert "does not exist" in " ".join(error.split())
        assert "reading" not in error


def test_a_name_that_no_file_can_have_is_refused_first(halfdome, net, tmp_path):
    status, _, error = halfdome("run", *net, "--output", tmp_path / ("y" * 300))
    assert status == 2
    assert "cannot be written: File name too long" in " ".join(error.replace("│", "").split())


def test_compiling_what_is_compiled_is_refused(refused, tmp_path):
    refused("is compiled already", "compile", tmp_path / "net.halfdome")


def test_numbers_that_json_lacks_are_null(tmp_path):
    path = tmp_path / "result.json"
    options.write_json(path, {"a": [float("nan"), 1.5], "b": (float("inf"),), "c": None})
    assert json.loads(path.read_text()) == {"a": [None, 1.5], "b": [None], "c": None}
