"""The entry to a low-precision convolution from a stream in float, and what a branch beside it gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plq.layers.expanded import BranchInput, Concat
from plq.layers.factory import QuantConfig, expanded_factory, plain_factory
from plq.layers.pre_activation import PreActivation
from plq.layers.scales import calibrate
from plq.quant.activations import ClipActivation, ReluActivation
from plq.quant.lsq import LSQActivation

PRECISION = QuantConfig(weight_bits=2, activation_bits=2)
X = np.linspace(-2, 2, 2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)


def test_without_a_norm_the_grid_spans_minus_1_to_1():
    """[-1, 1] goes to the four levels in equal parts, nothing like a ReLU; at 32 bits nothing happens at all."""
    entry = PreActivation(ClipActivation(2), use_norm=False)
    x = jnp.asarray([[-3.0, -1.0, -0.7, -0.6, -0.1, 0.0, 0.1, 0.6, 0.7, 1.0, 3.0]])
    expected = np.asarray([[0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]], np.float32) / 3
    np.testing.assert_allclose(entry.apply({}, x, False), expected, rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(entry.apply({}, x, False)))(x)
    np.testing.assert_array_equal(gradient != 0, np.abs(x) <= 1)
    np.testing.assert_array_equal(PreActivation(ClipActivation(32), use_norm=False).apply({}, x, False), x)


def test_with_a_norm_it_is_the_activation_of_the_normalized():
    entry = PreActivation(ReluActivation(32), epsilon=1e-5)
    y, _ = entry.init_with_output(jax.random.key(0), X, True)
    normalized = (X - X.mean((0, 1, 2))) / np.sqrt(X.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, np.maximum(normalized, 0), rtol=1e-4, atol=1e-5)


def test_a_learned_scale_starts_from_the_stream():
    entry = PreActivation(LSQActivation(2), use_norm=False)
    start = calibrate(entry, entry.init(jax.random.key(0), X, True), X, True)["params"]["act"]["step"]
    np.testing.assert_allclose(start, 2 * np.maximum((X + 1) / 2, 0).mean() / np.sqrt(3), rtol=1e-5)


@pytest.mark.parametrize("use_norm", [True, False])
def test_the_branch_gets_the_stream_itself(use_norm):
    """y = BN(conv(Qa(BN(x)), Qw(W))) + f * BN_anc(conv(x, A))."""
    kit, plain = expanded_factory(PRECISION, "add", 0.5), plain_factory(PRECISION)
    entry, unit = kit.entry(use_norm=use_norm, name=None), kit.inner(4, activation=None, name=None)
    entered = entry.init_with_output(jax.random.key(0), X, False)[0]
    assert isinstance(entered, BranchInput)
    np.testing.assert_array_equal(entered.full, X)
    of_entry, of_unit = entry.init(jax.random.key(0), X, False), unit.init(jax.random.key(1), entered, False)
    np.testing.assert_array_equal(entered.low, plain.entry(use_norm=use_norm).apply(of_entry, X, False))
    low = plain.inner(4, activation=None).apply(of_unit, entered.low, False)
    kernel = of_unit["ancillary"]["ancillary_conv"]["kernel"]
    ancillary = jax.lax.conv_general_dilated(X, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = unit.apply(of_unit, entered, False)
    np.testing.assert_allclose(y, low + 0.5 * ancillary / np.sqrt(1 + 1e-4), rtol=1e-4, atol=1e-5)


def test_halves_of_a_concat_stay_apart():
    kit = expanded_factory(PRECISION, "concat", 1.0)
    x = Concat(jnp.asarray(X), jnp.asarray(X) + 5)
    low = plain_factory(PRECISION).entry(use_norm=False).apply({}, X, False)
    forked = kit.entry(use_norm=False, name=None).apply({}, x, False)
    np.testing.assert_array_equal(forked.low.low, low)
    np.testing.assert_array_equal(forked.low.ancillary, x.ancillary)
    assert forked.full is x
    last = kit.exit(name=None).init_with_output(jax.random.key(0), x, False)[0]
    assert isinstance(last, Concat) and last.low.min() == 0
    np.testing.assert_array_equal(last.ancillary, x.ancillary)
