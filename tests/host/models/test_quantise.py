"""The quantised model stands for the fp32 one, stage by stage, in the card's formats."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.bench.dlrm import golden
from halfdome.host.models.dlrm import Dlrm
from halfdome.host.models.quantise import (
    INTERACTION_ZERO_POINT,
    OUTPUT,
    longest_bags,
    quantise,
    request,
)
from tests.host.graph import reference


def graph_of(model, samples):
    """For batches as large as all samples of a kind."""
    batches = samples.calibration, samples.held_out
    size = max(map(len, batches))
    return quantise(model, samples.calibration, size, longest_bags(batches))


def probability(graph, batch):
    """As plain numpy computes it."""
    return reference.run(graph, request(batch))[OUTPUT][:, 0]


@pytest.fixture(scope="module")
def graph(model, samples):
    return graph_of(model, samples)


@pytest.fixture(scope="module")
def calibrated(graph, samples):
    """Every value of the graph for the calibration samples."""
    return reference.run(graph, request(samples.calibration))


def layers(graph):
    return [node for node in graph.nodes if node.op == "linear"]


def in_order(graph):
    """The nets' layers from the first to the last, by name."""
    names = [node.output for node in layers(graph)]
    return sorted(n for n in names if "bottom" in n), sorted(n for n in names if "top" in n)


def test_the_probability_is_near_that_of_fp32(model, samples, graph):
    answers = probability(graph, samples.held_out)
    assert answers.dtype == np.float32
    expected = model.forward(samples.held_out)
    assert expected.std() > 0.05  # there is something to get wrong
    assert np.abs(answers - expected).max() < 0.05
    assert np.abs(answers - expected).mean() < 0.01


def test_the_probability_with_dot_products_is_near_that_of_fp32(dot_model, samples):
    expected = dot_model.forward(samples.held_out)
    assert expected.std() > 0.05
    answers = probability(graph_of(dot_model, samples), samples.held_out)
    # A product's error is a segment's length times as large as an element's.
    assert np.abs(answers - expected).max() < 0.12
    assert np.abs(answers - expected).mean() < 0.02


@pytest.mark.parametrize("kind", ["model", "dot_model"])
def test_golden_operators_say_what_numpy_says(kind, samples, request):
    graph = graph_of(request.getfixturevalue(kind), samples)
    theirs = probability(graph, samples.held_out)
    np.testing.assert_allclose(golden(graph, samples.held_out), theirs, atol=1e-6)


def test_every_stage_is_near_its_fp32_value(model, samples, graph, calibrated):
    """A wrong scale or zero point somewhere shows at its own stage."""
    batch, real = samples.calibration, model.activations(samples.calibration)

    quantiser = next(node for node in graph.nodes if node.output == "dense quantised")
    step = 1 / quantiser.attributes["multiplier"]
    zero_point = quantiser.attributes["zero_point"]
    dense = calibrated["dense quantised"].astype(float) - zero_point
    assert np.abs(dense * step - batch.dense).max() <= 0.51 * step

    steps = [np.abs(real["bot_l.2"]).max() / 127]
    for table, expected in enumerate(model.pooled(batch)):
        node = next(node for node in graph.nodes if node.output == f"table {table}")
        steps.append(1 / node.attributes["multiplier"])
        pooled = calibrated[node.output].astype(float) - INTERACTION_ZERO_POINT
        atol = 0.02 * np.abs(expected).max() + 1e-3 + 0.5 * steps[-1]
        np.testing.assert_allclose(pooled * steps[-1], expected, atol=atol)

    joined = calibrated["interaction"].astype(float) - INTERACTION_ZERO_POINT
    columns = np.repeat(steps, model.architecture.dim)
    assert np.abs(joined * columns - real["interaction"]).max() < 8 * max(steps)

    for output, name in (("bottom 0", "bot_l.0"), ("top 0", "top_l.0"), ("top 1", "top_l.2")):
        step = real[name].max() / 255
        assert np.abs(calibrated[output] * step - real[name]).max() < 8 * step, name
        assert graph.values[output].scale == pytest.approx(step)


def test_calibration_samples_use_the_whole_range(graph, calibrated):
    dense = calibrated["dense quantised"]
    assert (dense.min(), dense.max()) == (0, 255)
    for node in graph.nodes:
        if node.op == "embedding_bag":
            pooled = calibrated[node.output].astype(int) - INTERACTION_ZERO_POINT
            assert 126 <= np.abs(pooled).max() <= 128
    for output in ("bottom 0", "top 0", "top 1"):
        assert calibrated[output].max() >= 250
    assert calibrated["bottom 1"].min() == INTERACTION_ZERO_POINT
    assert calibrated["top 2"].min() <= 5
    assert calibrated["top 2"].max() >= 250


def test_arrays_have_the_types_and_shapes_of_the_card(model, samples, graph):
    for table, rows in enumerate(samples.table_rows):
        held = graph.constants[f"rows {table}"]
        assert (held.dtype, held.shape) == (np.uint8, (rows, 40))
    architecture = model.architecture
    for names, widths in zip(in_order(graph), (architecture.bottom, architecture.top), strict=True):
        for name, k, n in zip(names, widths, widths[1:], strict=False):
            weight = graph.constants[f"{name} weight"]
            assert (weight.dtype, weight.shape) == (np.int8, (n, k))
            assert weight.min() >= -127
            bias, multiplier = (
                graph.constants[f"{name} {what}"] for what in ("bias", "multiplier")
            )
            assert (bias.dtype, bias.shape) == (np.int32, (n,))
            assert (multiplier.dtype, multiplier.shape) == (np.float32, (n,))
            assert (multiplier > 0).all()
    bottom, top = in_order(graph)
    by_name = {node.output: node for node in layers(graph)}
    nets = [by_name[name] for name in (*bottom, *top)]
    assert [node.attributes["relu"] for node in nets] == [True, True, True, True, False]
    assert [graph.values[node.output].zero_point for node in nets[:-1]] == [0, 128, 0, 0]
    assert graph.values["interaction"].zero_point == INTERACTION_ZERO_POINT
    for node in graph.nodes:
        if "multiplier" in node.attributes:
            assert np.float32(node.attributes["multiplier"]) == node.attributes["multiplier"]
            assert np.isfinite(node.attributes["multiplier"])


def test_mean_bag_lengths_are_those_of_calibration(samples, graph):
    bags = [node for node in graph.nodes if node.op == "embedding_bag"]
    by_table = sorted(bags, key=lambda node: int(node.output.split()[1]))
    for node, seen in zip(by_table, samples.calibration.sparse, strict=True):
        mean = len(seen.indices) / len(seen.lengths)
        assert node.attributes["mean_length"] == pytest.approx(mean)


def test_longest_bags_are_those_of_any_batch_and_never_none(samples):
    batches = list(samples.held_out.batches(7))
    expected = [
        max(1, *(int(batch.sparse[table].lengths.max()) for batch in batches))
        for table in range(len(samples.table_rows))
    ]
    assert longest_bags(batches) == expected
    assert min(expected) == 1


def changed(model, **tensors):
    return Dlrm(model.architecture, {**model.parameters, **tensors})


@given(exponent=st.integers(-130, 60), seed=st.integers(0, 99))
def test_odd_weights_stay_within_the_number_formats(model, samples, exponent, seed):
    """Tables of any magnitude, channels without weights, dead layers: nothing overflows."""
    rng = np.random.default_rng(seed)
    table = model.parameters["emb_l.1.weight"] * np.float32(2.0**exponent)
    weight = model.parameters["top_l.0.weight"].copy()
    weight[rng.random(len(weight)) < 0.3] = 0
    weight[0] *= np.float32(1e-30)
    bottom = model.parameters["bot_l.2.weight"] * np.float32(seed % 2)
    odd = changed(
        model, **{"emb_l.1.weight": table, "top_l.0.weight": weight, "bot_l.2.weight": bottom}
    )
    graph = graph_of(odd, samples)
    for node in graph.nodes:
        multiplier = node.attributes.get("multiplier", 1)
        assert np.isfinite(multiplier)
        assert multiplier > 0
    for node in layers(graph):
        weight, bias, multiplier = (graph.constants[name] for name in node.inputs[1:])
        assert np.isfinite(multiplier).all()
        limit = 255 * np.abs(weight.astype(int)).sum(axis=1) + np.abs(bias.astype(int))
        assert limit.max() < 2**31
    answers = probability(graph, samples.held_out)
    assert np.isfinite(answers).all()
    if exponent < 4:
        assert np.abs(answers - odd.forward(samples.held_out)).max() < 0.1


def test_a_model_of_zeros_answers_one_half(model, samples):
    zeros = changed(model, **{n: np.zeros_like(t) for n, t in model.parameters.items()})
    assert (probability(graph_of(zeros, samples), samples.held_out) == 0.5).all()


def test_calibration_needs_samples(model, samples):
    with pytest.raises(ValueError, match="calibration: has 0 samples"):
        quantise(model, samples.calibration.take(range(0)), 1, [1] * len(samples.table_rows))


def test_a_layer_whose_sums_could_overflow_is_refused(samples, model):
    dim = 4096
    tables = model.architecture.table_rows
    wide = dataclasses.replace(
        model.architecture, dim=dim, table_rows=(1,) * len(tables),
        bottom=(model.architecture.bottom[0], dim), top=((len(tables) + 1) * dim, 1),
    )  # fmt: skip
    parameters = {name: np.zeros(shape, np.float32) for name, shape in wide.shapes().items()}
    batch = samples.calibration.take(range(1))
    for bags in batch.sparse:
        bags.indices[:] = 0
    with pytest.raises(ValueError, match="k=53248: int32 sums are safe up to 32768"):
        quantise(Dlrm(wide, parameters), batch, 1, longest_bags([batch]))
