"""The quantised model stands for the fp32 one, stage by stage, in the card's formats."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.models.dlrm import Dlrm
from halfdome.host.models.quantise import INTERACTION_ZERO_POINT, quantise
from halfdome.sim.golden import operators
from tests.host.models.reference import NumpyOperators


@pytest.fixture(scope="module")
def quantised(model, samples):
    return quantise(model, samples.calibration)


class Recorder(NumpyOperators):
    """Keeps the output of every operator, in order."""

    def __init__(self):
        self.linears, self.pooled, self.quantised = [], [], []

    def linear(self, *arguments):
        self.linears.append(super().linear(*arguments))
        return self.linears[-1]

    def embedding_bag(self, *arguments):
        self.pooled.append(super().embedding_bag(*arguments))
        return self.pooled[-1]

    def quantise(self, *arguments):
        self.quantised.append(super().quantise(*arguments))
        return self.quantised[-1]


def test_the_probability_is_near_that_of_fp32(model, samples, quantised):
    probability = quantised.forward(samples.held_out, NumpyOperators())
    assert probability.dtype == np.float32
    expected = model.forward(samples.held_out)
    assert expected.std() > 0.05  # there is something to get wrong
    assert np.abs(probability - expected).max() < 0.05
    assert np.abs(probability - expected).mean() < 0.01


def test_the_probability_with_dot_products_is_near_that_of_fp32(dot_model, samples):
    quantised = quantise(dot_model, samples.calibration)
    expected = dot_model.forward(samples.held_out)
    assert expected.std() > 0.05
    probability = quantised.forward(samples.held_out, NumpyOperators())
    # A product's error is a segment's length times as large as an element's.
    assert np.abs(probability - expected).max() < 0.12
    assert np.abs(probability - expected).mean() < 0.02


def test_golden_dot_products_are_those_of_numpy(dot_model, samples):
    quantised = quantise(dot_model, samples.calibration)
    theirs = quantised.forward(samples.held_out, NumpyOperators())
    np.testing.assert_allclose(quantised.forward(samples.held_out, operators), theirs, atol=1e-6)


def test_every_stage_is_near_its_fp32_value(model, samples, quantised):
    """A wrong scale or zero point somewhere shows at its own stage."""
    batch, recorder = samples.calibration, Recorder()
    quantised.forward(batch, recorder)
    real = model.activations(batch)

    dense = recorder.quantised[0].astype(float) - quantised.dense_zero_point
    step = 1 / quantised.dense_multiplier
    assert np.abs(dense * step - batch.dense).max() <= 0.51 * step

    for pooled, expected in zip(recorder.pooled, model.pooled(batch), strict=True):
        np.testing.assert_allclose(pooled, expected, atol=0.02 * np.abs(expected).max() + 1e-3)

    segments = [recorder.linears[1], *recorder.quantised[1:]]
    scale = [np.abs(real["bot_l.2"]).max() / 127]
    scale += [1 / multiplier for multiplier in quantised.pooled_multiplier]
    interaction = np.concatenate(
        [
            (segment.astype(float) - INTERACTION_ZERO_POINT) * step
            for segment, step in zip(segments, scale, strict=True)
        ],
        axis=1,
    )
    assert np.abs(interaction - real["interaction"]).max() < 8 * max(scale)

    for output, name in zip(
        (recorder.linears[0], *recorder.linears[2:4]),
        ("bot_l.0", "top_l.0", "top_l.2"),
        strict=True,
    ):
        step = real[name].max() / 255
        assert np.abs(output * step - real[name]).max() < 8 * step, name


def test_calibration_samples_use_the_whole_range(samples, quantised):
    recorder = Recorder()
    quantised.forward(samples.calibration, recorder)
    assert (recorder.quantised[0].min(), recorder.quantised[0].max()) == (0, 255)
    for pooled in recorder.quantised[1:]:
        largest = np.abs(pooled.astype(int) - INTERACTION_ZERO_POINT).max()
        assert 126 <= largest <= 128
    for output in (recorder.linears[0], *recorder.linears[2:4]):
        assert output.max() >= 250
    assert recorder.linears[1].min() == INTERACTION_ZERO_POINT
    assert recorder.linears[4].min() <= 5
    assert recorder.linears[4].max() >= 250


def test_arrays_have_the_types_and_shapes_of_the_card(model, samples, quantised):
    for table, rows in zip(quantised.tables, samples.table_rows, strict=True):
        assert (table.dtype, table.shape) == (np.uint8, (rows, 40))
    architecture = model.architecture
    for layers, widths in (
        (quantised.bottom, architecture.bottom),
        (quantised.top, architecture.top),
    ):
        for layer, k, n in zip(layers, widths, widths[1:], strict=False):
            assert (layer.weight.dtype, layer.weight.shape) == (np.int8, (n, k))
            assert layer.weight.min() >= -127
            assert (layer.bias.dtype, layer.bias.shape) == (np.int32, (n,))
            assert (layer.multiplier.dtype, layer.multiplier.shape) == (np.float32, (n,))
            assert (layer.multiplier > 0).all()
    layers = [*quantised.bottom, *quantised.top]
    assert [layer.relu for layer in layers] == [True, True, True, True, False]
    zero_points = [layer.y_zero_point for layer in layers]
    assert zero_points == [0, 128, 0, 0, quantised.logit_zero_point]
    for layer, previous in zip(layers[1:], layers, strict=False):
        assert layer.x_zero_point == previous.y_zero_point
    for multiplier in (quantised.dense_multiplier, *quantised.pooled_multiplier):
        assert multiplier.dtype == np.float32
        assert np.isfinite(multiplier)


def test_mean_bag_lengths_are_those_of_calibration(samples, quantised):
    for mean, bags in zip(quantised.mean_bag_length, samples.calibration.sparse, strict=True):
        assert mean == pytest.approx(len(bags.indices) / len(bags.lengths))


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
    quantised = quantise(odd, samples.calibration)
    for multiplier in (quantised.dense_multiplier, *quantised.pooled_multiplier):
        assert np.isfinite(multiplier)
        assert multiplier > 0
    for layer in (*quantised.bottom, *quantised.top):
        assert np.isfinite(layer.multiplier).all()
        limit = 255 * np.abs(layer.weight.astype(int)).sum(axis=1) + np.abs(layer.bias.astype(int))
        assert limit.max() < 2**31
    probability = quantised.forward(samples.held_out, NumpyOperators())
    assert np.isfinite(probability).all()
    if exponent < 4:
        assert np.abs(probability - odd.forward(samples.held_out)).max() < 0.1


def test_a_model_of_zeros_answers_one_half(model, samples):
    zeros = changed(model, **{n: np.zeros_like(t) for n, t in model.parameters.items()})
    quantised = quantise(zeros, samples.calibration)
    assert (quantised.forward(samples.held_out, NumpyOperators()) == 0.5).all()


def test_calibration_needs_samples(model, samples):
    with pytest.raises(ValueError, match="calibration: has 0 samples"):
        quantise(model, samples.calibration.take(range(0)))


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
        quantise(Dlrm(wide, parameters), batch)
