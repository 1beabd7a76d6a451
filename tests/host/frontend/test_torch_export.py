"""PyTorch modules come in: their bags as nodes, the rest as an ONNX model."""

import copy
import re
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from halfdome.host.frontend.errors import ModelError, TorchError  # noqa: E402
from halfdome.host.frontend.torch_export import (  # noqa: E402
    from_exported,
    from_torch,
    read_exported,
)

nn, functional = torch.nn, torch.nn.functional
INDICES, OFFSETS = torch.tensor([3, 1, 4, 1, 5]), torch.tensor([0, 2, 2])


class Bags(nn.Module):
    """Two tables and every form that a lookup has."""

    def __init__(self):
        super().__init__()
        self.sums = nn.EmbeddingBag(12, 6, mode="sum", sparse=True)
        self.means = nn.EmbeddingBag(9, 6, mode="mean", include_last_offset=True)
        self.head = nn.Linear(24, 3)

    def forward(self, dense, rows, sparse, factors):
        indices, offsets, equal = sparse
        pooled = [
            self.sums(indices, offsets),
            self.means(rows[0], rows[1].to(torch.int32)),
            functional.embedding_bag(
                equal, self.sums.weight, per_sample_weights=factors, mode="sum"
            ),
        ]
        return {"logits": self.head(torch.cat([dense, *pooled], 1)), "dense": dense * 2}


def module_of(kind, seed=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind().eval()


def arguments(seed=5):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(3, 6, generator=generator),
        torch.tensor([[8, 0, 2, 2], [0, 1, 4, 4]]),
        [INDICES, OFFSETS, torch.randint(0, 12, (3, 4), generator=generator)],
        torch.randn(3, 4, generator=generator),
    )


@pytest.fixture(scope="module")
def bags():
    """A module and what comes in of it."""
    module = module_of(Bags)
    return module, from_torch(module, arguments(), outputs=["logits", "twice"])


def run(model, inputs):
    session = onnxruntime.InferenceSession(
        model.rest.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, model.rest_inputs(inputs))


def with_rounded_tables(module):
    """The module whose tables hold what 8 bits leave of them."""
    rounded = copy.deepcopy(module)
    pack, unpack = (
        getattr(torch.ops.quantized, f"embedding_bag_byte_{way}") for way in ("prepack", "unpack")
    )
    for part in rounded.modules():
        if isinstance(part, nn.EmbeddingBag):
            part.weight.data = unpack(pack(part.weight.data))
    return rounded


def test_the_rest_answers_as_the_module_does_with_tables_of_8_bits(bags):
    module, model = bags
    given = arguments(6)
    expected = with_rounded_tables(module)(*given)
    logits, twice = run(model, model.named(given))
    np.testing.assert_allclose(logits, expected["logits"].detach(), atol=1e-5)
    np.testing.assert_array_equal(twice, expected["dense"])
    assert np.abs(logits - module(*given)["logits"].detach().numpy()).max() > 1e-5
    assert [value.name for value in model.rest.graph.output] == ["logits", "twice"]
    assert {each.name for each in model.rest.graph.initializer} >= {"head.weight", "head.bias"}
    assert not any("sums" in each.name for each in model.rest.graph.initializer)
    assert "Loop" not in {node.op_type for node in model.rest.graph.node}


def test_bags_say_where_their_operands_come_from(bags):
    _, model = bags
    sums, means, weighted = model.bags
    assert model.inputs == ("dense", "rows", "sparse_0", "sparse_1", "sparse_2", "factors")
    assert model.outputs == ("logits", "twice")
    assert (sums.indices.input, sums.offsets.input, sums.count) == ("sparse_0", "sparse_1", 3)
    assert (means.indices.places, means.offsets.places) == ((0,), (1,))
    assert (means.mode, means.include_last) == ("mean", True)
    assert (weighted.length, weighted.weights.input) == (4, "factors")
    assert sums.table is weighted.table
    assert [value.name for value in model.rest.graph.input] == ["dense", *model.pool(
        model.named(arguments())
    )]  # fmt: skip
    assert model.ragged == {"sparse_0", "rows"}


def test_sums_have_the_bits_of_fbgemm(bags):
    module, model = bags
    pooled = model.pool(model.named(arguments()))["pooled_0"]
    packed = torch.ops.quantized.embedding_bag_byte_prepack(module.sums.weight.detach())
    expected = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(packed, INDICES, OFFSETS)
    np.testing.assert_array_equal(model.bags[0].table, packed.numpy())
    np.testing.assert_array_equal(pooled, expected.numpy())


def test_bags_of_quantised_tables_have_the_bits_of_fbgemm():
    quantised = torch.ops.quantized

    def forward(self, i, o, factors):
        return (
            quantised.embedding_bag_byte_rowwise_offsets(self.bytes, i, o, mode=1),
            quantised.embedding_bag_byte_rowwise_offsets(
                self.bytes, i, o, per_sample_weights=factors
            ),
            quantised.embedding_bag_4bit_rowwise_offsets(self.nibbles, i, o, mode=1),
            quantised.embedding_bag_4bit_rowwise_offsets(
                self.nibbles, i, o, per_sample_weights=factors
            ),
        )

    made = module(forward)
    made.register_buffer("bytes", quantised.embedding_bag_byte_prepack(torch.randn(9, 5)))
    made.register_buffer("nibbles", quantised.embedding_bag_4bit_prepack(torch.randn(9, 14)))
    model = from_torch(made, given := [INDICES, OFFSETS, torch.randn(len(INDICES))])
    assert [bag.dim for bag in model.bags] == [5, 5, 14, 14]
    for found, expected in zip(run(model, model.named(given)), made(*given), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda i, rows: (rows, i % 4), "of rows: its indices are computed by the module"),
        (lambda i, rows: (rows.clone(), i), "its table is computed by aten.clone"),
    ],
)
def test_a_quantised_table_that_no_card_pools_is_refused(changed, said):
    def forward(self, i, o):
        rows, indices = changed(i, self.rows)
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(rows, indices, o)

    made = module(forward)
    packed = torch.ops.quantized.embedding_bag_byte_prepack(torch.randn(9, 4))
    made.register_buffer("rows", packed)
    refused(made, BOTH, f"embedding bag .*{said}.*look up in a torch.nn.EmbeddingBag of float32")


def test_no_bags_at_all_are_an_empty_tensor():
    nothing = [torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)]
    made = module(lambda self, i, o: self.table(i, o) + 1)
    model = from_torch(made, nothing)
    assert (model.bags, model.stayed) == ((), ())
    assert run(model, model.named(nothing))[0].shape == (0, 4)


def test_bags_take_more_indices_than_they_were_exported_with(bags):
    module, model = bags
    dense, rows, sparse, factors = arguments()
    longer = [torch.arange(12), torch.tensor([0, 0, 12]), sparse[2]]
    expected = with_rounded_tables(module)(dense, rows, longer, factors)["logits"]
    logits, _ = run(model, model.named((dense, rows, longer, factors)))
    np.testing.assert_allclose(logits, expected.detach(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_an_lstm_may_project_its_state():
    def forward(self, x):
        return *self.there(x), *self.both(x)

    both = nn.LSTM(4, 6, proj_size=3, bias=False, bidirectional=True)
    made = module(forward, there=nn.LSTM(4, 6, proj_size=3), both=both)
    model = from_torch(made, [x := torch.randn(2, 2, 4)])
    expected = torch.utils._pytree.tree_leaves(made(x))
    for found, each in zip(run(model, model.named([x])), expected, strict=True):
        np.testing.assert_allclose(found, each.detach(), atol=1e-6)


def test_modules_that_pytorch_quantised_are_refused():
    network = nn.Sequential(nn.ReLU(), nn.Linear(4, 3)).eval()
    with warnings.catch_warnings(action="ignore"):  # it is old
        made = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    refused(made, [torch.ones(2, 4)], r"1: is a torch.ao.nn.quantized.dynamic.*\.Linear, .* before")


def test_a_module_without_bags_is_all_rest():
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).eval()
    x = torch.randn(7, 5)
    model = from_torch(network, [x])
    assert (model.bags, model.inputs, model.outputs) == ((), ("input",), ("output",))
    [y] = run(model, model.named([x]))
    np.testing.assert_allclose(y, network(x).detach(), atol=1e-6)


@pytest.mark.parametrize(("mode", "padding"), [("sum", 0), ("mean", -5)])
def test_an_index_that_pads_takes_no_row(mode, padding):
    table = nn.EmbeddingBag(9, 4, mode=mode, padding_idx=padding).eval()
    nn.init.normal_(table.weight)
    given = [torch.tensor([4, 4, 0, 4, 1, 0]), torch.tensor([0, 2, 2])]
    expected = with_rounded_tables(table)(*given).detach()
    model = from_torch(table, given)
    np.testing.assert_allclose(run(model, model.named(given))[0], expected, atol=1e-6)


def module(forward, **parts):
    made = nn.Module()
    for name, part in {"table": nn.EmbeddingBag(9, 4, mode="sum"), **parts}.items():
        setattr(made, name, part)
    made.forward = forward.__get__(made)
    return made.eval()


def refused(made, given, said):
    with pytest.raises(TorchError, match=said):
        from_torch(made, given)


BOTH = (INDICES, OFFSETS)


def test_what_no_card_pools_is_looked_up_by_the_rest():
    def forward(self, i, o, both):
        weight, shifted = self.table.weight, i.clone()
        shifted.add_(1)
        bags = (
            self.table(i * 5 % 9, o), self.table(i, o.cumsum(0)), self.table(shifted, o),
            functional.embedding_bag(i.int(), weight, o.int(), mode="max", padding_idx=1),
            functional.embedding_bag(i, weight * 2, o, mode="sum"), self.wide(i, o),
            self.table(both[:, 1], o), self.table(i, o),
        )  # fmt: skip
        return *bags, self.short(i, o)

    wide = nn.EmbeddingBag(9, 4, mode="sum")
    wide.weight.data[4, :2] = torch.tensor([-3e38, 3e38])
    short = nn.EmbeddingBag(9, 4, mode="mean").half()
    made = module(forward, wide=wide, short=short)
    model = from_torch(made, given := [INDICES, OFFSETS, torch.tensor([[0, 1], [3, 4]])])
    whys = [
        r"of table.weight: its indices are computed by the module \(by aten.remainder",
        "its offsets are computed by the module", "its indices are computed by the module",
        "of table.weight: mode='max', cards pool", "of mul.*: its table is computed by aten.mul",
        "wide.weight: table row 4: .* is not finite", "its indices are computed by the module",
        "short.weight: its table is torch.float16",
    ]  # fmt: skip
    for why, stayed in zip(whys, model.stayed, strict=True):
        assert re.search(why, stayed), stayed
    assert len(model.bags) == 1
    assert model.ragged == set()
    *found, pooled, halves = run(model, model.named(given))
    *exact, _, expected = (each.detach().numpy() for each in made(*given))
    for each, other in zip(found, exact, strict=True):
        np.testing.assert_array_equal(each, other)
    np.testing.assert_allclose(halves, expected, rtol=1e-3)  # PyTorch divides in float32
    np.testing.assert_allclose(pooled, with_rounded_tables(made)(*given)[-2].detach(), atol=1e-6)


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda self, i, o: (self.table(i, o), None), "output 1: is None, must be a tensor"),
        (lambda self, i, o: o if i.sum() > 3 else i, "Module: torch.export failed"),
        (
            lambda self, i, o: torch.igamma(i + 1.0, i + 2.0),
            "Module: torch.onnx.export failed: No ONNX function found for .*igamma",
        ),
    ],
)
def test_what_is_no_graph_of_tensors_is_refused(forward, said):
    refused(module(forward), BOTH, said)


def test_a_part_that_is_no_row_of_an_input_is_looked_up_by_the_rest():
    given = [torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([0])]
    made = module(lambda self, x, o: self.table(x.reshape(3, 2)[1], o))
    model = from_torch(made, given)
    np.testing.assert_array_equal(run(model, model.named(given))[0], made(*given).detach())


def test_a_module_that_keeps_state_is_refused():
    def forward(self, x):
        self.seen.add_(1)
        return x + self.seen

    made = module(forward)
    made.register_buffer("seen", torch.zeros(2))
    refused(made, [torch.ones(2)], "Module: writes seen; requests keep no state")


def test_what_is_no_module_in_evaluation_mode_is_refused():
    refused(nn.Linear(2, 2), [torch.ones(1, 2)], r"training mode; call module.eval\(\) first")
    refused(torch.relu, [torch.ones(1, 2)], "module: is a .*must be a torch.nn.Module")


@pytest.mark.parametrize(
    ("cast", "given", "named"),
    [(torch.bfloat16, torch.float32, "part.weight"), (torch.float32, torch.bfloat16, "x")],
)
def test_bfloat16_is_refused_by_name(cast, given, named):
    def forward(self, x):
        return self.part(x.to(cast))

    made = module(forward, part=nn.Linear(4, 3).to(cast)).eval()
    with pytest.raises(TorchError, match=rf"{named}: is torch.bfloat16, .* call \.float\(\)"):
        from_torch(made, (torch.ones(2, 4, dtype=given),))


def test_an_argument_of_bfloat16_is_refused_by_name():
    made = from_torch(nn.Linear(4, 3).eval(), (torch.ones(2, 4),))
    with pytest.raises(TorchError, match=r"input: is torch.bfloat16"):
        made.named((torch.ones(2, 4, dtype=torch.bfloat16),))


def test_names_and_arguments_must_be_as_many_as_the_module_has():
    network = nn.Linear(2, 2).eval()
    with pytest.raises(TorchError, match="outputs: has 2 names, the module has 1 outputs"):
        from_torch(network, [torch.ones(1, 2)], outputs=["a", "b"])
    model = from_torch(network, [torch.ones(1, 2)])
    with pytest.raises(TorchError, match="arguments: hold 2 values, must be 1"):
        model.named([torch.ones(1, 2), torch.ones(1)])
    with pytest.raises(ModelError, match="input input: is missing; there are x"):
        model.rest_inputs({"x": np.ones((1, 2), np.float32)})


def saved(exported, path):
    torch.export.save(exported, path)
    return path


def test_what_torch_export_saved_is_the_module(bags, tmp_path):
    module, model = bags
    path = saved(torch.export.export(module, arguments()), tmp_path / "net.pt2")
    made = from_exported(read_exported(path), outputs=["logits", "twice"])
    assert (made.inputs, made.outputs, made.ragged) == (model.inputs, model.outputs, model.ragged)
    given = model.named(arguments(seed=6))
    for found, expected in zip(run(made, given), run(model, given), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_saved_module_that_leaves_something_open_is_refused(tmp_path):
    network, x = nn.Linear(3, 2).eval(), torch.ones(2, 3)
    rows = ({0: torch.export.Dim("rows", max=9)},)
    made = torch.export.export(network, (x,), dynamic_shapes=rows)
    with pytest.raises(TorchError, match=r"net: input input leaves sizes open, \[s\d+, 3\]"):
        from_exported(made, name="net")
    made = torch.export.export(network, (), {"input": x})
    with pytest.raises(TorchError, match="net: takes input by keyword; export it with positional"):
        from_exported(made, name="net")
    made = torch.export.export(network, (x,))
    made._example_inputs = None
    with pytest.raises(TorchError, match="net: holds no example inputs"):
        from_exported(made, name="net")


def test_a_file_that_torch_export_did_not_save_is_refused(tmp_path, capfd):
    (tmp_path / "net.pt2").write_text("hello")
    with pytest.raises(TorchError, match=r"net.pt2: torch.export.load cannot read it"):
        read_exported(tmp_path / "net.pt2")
    with pytest.raises(TorchError, match=r"gone.pt2: there is no such file"):
        read_exported(tmp_path / "gone.pt2")
    assert capfd.readouterr() == ("", "")
