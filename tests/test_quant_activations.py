"""Properties of the activation and gradient quantizers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plq.errors import UserError
from plq.quant.activations import ReluActivation
from plq.quant.base import ActivationQuantizer
from plq.quant.dorefa import quantize_gradient
from plq.quant.quantized import quantized
from plq.quant.registry import ACTIVATIONS, activation_quantizer

BITS = [1, 2, 3, 4, 8]
CLIPS = {"abs": lambda x: np.minimum(1, np.abs(x)), "clip": lambda x: np.clip(x, 0, 1)}
SCALES = {
    "pact": {"alpha": 1.7},
    "lsq": {"step": 0.4},
    "lsq_plus": {"step": 0.3, "offset": -0.4},
    "apot": {"alpha": 1.7},
}
QUANTIZING = [(name, bits) for name in ACTIVATIONS for bits in (*BITS, 5) if bits in ACTIVATIONS[name].legal_bits]


def calibrate_scales(name):
    return {scale: jnp.float32(value) for scale, value in SCALES.get(name, {}).items()}


@pytest.mark.parametrize(("name", "bits"), QUANTIZING)
def test_codes_are_the_value(name, bits):
    """Of any quantizer and any activations: legal codes, the same bits compiled or not, finite gradients."""
    quantizer, scales = activation_quantizer(name, bits), calibrate_scales(name)
    assert set(scales) == set(quantizer.scale_names)
    jitted = jax.jit(quantizer.__call__)
    gradient = jax.jit(jax.grad(lambda x, s: jnp.sum(quantizer(x, s)), (0, 1)))
    levels = quantizer.quantize(jnp.zeros((1, 1)), scales)
    n = 2**bits - 1
    for kind, x in DEGENERATE.items():
        found, y = quantizer.quantize(x, scales), quantizer(x, scales)
        assert found.codes.dtype == jnp.uint8 and found.codes.shape == y.shape == x.shape, kind
        assert int(found.codes.max()) <= n and len(np.unique(y)) <= n + 1, kind
        np.testing.assert_array_equal(found.dequantize(), y, kind)
        np.testing.assert_array_equal(jitted(x, scales), y, kind)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradient(x, scales)))), kind
        np.testing.assert_array_equal(found.scale, levels.scale)
        assert float(2 * found.offset) == round(float(2 * found.offset))


DEGENERATE = {
    "ordinary": jnp.linspace(-4, 4, 600).reshape(3, 2, 100),
    "zero": jnp.zeros((3, 2, 100)),
    "constant": jnp.full((3, 2, 100), 0.37),
    "tiny": 1e-20 * jnp.linspace(-1, 1, 600).reshape(3, 2, 100),
    "denormal": 1e-40 * jnp.linspace(-1, 1, 600).reshape(3, 2, 100),
    "huge": 1e30 * jnp.linspace(-1, 1, 600).reshape(3, 2, 100),
    "negative": jnp.linspace(-4, -1e-3, 600).reshape(3, 2, 100),
    "one number": jnp.full((1, 1), 0.37),
}


@pytest.mark.parametrize(("name", "bits"), [case for case in QUANTIZING if case[0] in SCALES])
def test_learned_grids_take_the_nearest_level(name, bits):
    """All 2**bits levels of one grid, nearest to what the non-linearity gives, and again to themselves."""
    quantizer, scales = activation_quantizer(name, bits), calibrate_scales(name)
    x = jnp.concatenate([jnp.linspace(-5, 5, 20_001), jnp.linspace(5, 110, 20_001)])
    y, found = np.asarray(quantizer(x, scales)), quantizer.quantize(x, scales)
    grid = (np.asarray(found.levels or range(2**bits), np.float32) + np.asarray(found.offset)) * np.asarray(found.scale)
    np.testing.assert_allclose(np.unique(y), grid, rtol=1e-6)
    h = np.asarray(quantizer.nonlinearity(x))
    nearest = np.minimum.reduce([np.abs(h - level) for level in grid])
    np.testing.assert_allclose(np.abs(h - y), nearest, atol=2e-5)
    if name != "lsq_plus":
        np.testing.assert_array_equal(quantizer(jnp.asarray(y), scales), y)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", CLIPS)
def test_values_are_the_nearest_levels(name, bits):
    x = jnp.linspace(-2.5, 2.5, 5001)
    n = 2**bits - 1
    quantizer = activation_quantizer(name, bits)
    y, codes = quantizer(x), quantizer.quantize(x)
    assert len(np.unique(y)) == n + 1
    assert y.min() == 0
    assert y.max() == 1
    assert np.abs(np.asarray(y) - CLIPS[name](np.asarray(x))).max() <= 0.5 / n + 1e-6
    np.testing.assert_array_equal(codes.dequantize(), y)
    np.testing.assert_array_equal(jax.jit(quantizer)(x), y)
    np.testing.assert_array_equal(quantizer(y), y)  # idempotent
    assert codes.codes.dtype == jnp.uint8
    assert int(codes.codes.max()) == n


def test_ties_follow_the_two_papers():
    half = jnp.asarray([0.5 / 3, 1.5 / 3, 2.5 / 3])
    np.testing.assert_array_equal(activation_quantizer("abs", 2).quantize(half).codes, [0, 2, 2])
    np.testing.assert_array_equal(activation_quantizer("clip", 2).quantize(half).codes, [1, 2, 3])


@pytest.mark.parametrize("bits", [1, 2, 4, 32])
@pytest.mark.parametrize("name", CLIPS)
def test_gradient_is_that_of_the_clipping(name, bits):
    x = jnp.asarray([-1.7, -0.9, -0.2, 0.3, 0.8, 1.4])
    grad = jax.grad(lambda v: jnp.sum(activation_quantizer(name, bits)(v)))(x)
    want = {"abs": [0, -1, -1, 1, 1, 0], "clip": [0, 0, 0, 1, 1, 0]}[name]
    np.testing.assert_array_equal(grad, want)


@given(x=hnp.arrays(np.float32, (7,), elements=st.floats(width=32, allow_nan=False)), bits=st.sampled_from(BITS))
@settings(max_examples=60, deadline=None)
def test_any_input_gives_legal_codes(x, bits):
    for name in CLIPS:
        quantizer = activation_quantizer(name, bits)
        assert int(quantizer.quantize(jnp.asarray(x)).codes.max()) < 2**bits
        np.testing.assert_array_equal(quantizer.quantize(jnp.asarray(x)).dequantize(), quantizer(jnp.asarray(x)))


def test_32_bits_is_the_clipping_alone():
    x = jnp.linspace(-2, 2, 41)
    for name, clip in CLIPS.items():
        np.testing.assert_array_equal(activation_quantizer(name, 32)(x), clip(np.asarray(x)))
    for name in ("relu", "pact", "lsq", "apot"):
        np.testing.assert_array_equal(activation_quantizer(name, 32)(x), np.maximum(0, np.asarray(x)))
    hard_swish = np.asarray(x) * np.clip(np.asarray(x) + 3, 0, 6) / 6
    np.testing.assert_allclose(activation_quantizer("lsq_plus", 32)(x), hard_swish, atol=1e-6)
    with pytest.raises(ValueError, match="no integer codes"):
        activation_quantizer("abs", 32).quantize(x)
    with pytest.raises(ValueError, match="no integer codes"):
        ReluActivation(32).quantize(x)


def test_a_quantizer_without_a_surrogate_is_not_made():
    class Half(ActivationQuantizer):
        def quantize(self, x, scales=None):
            return quantized(x, 1.0, 0.0)

    with pytest.raises(TypeError, match="surrogate"):
        Half(1)


def test_bfloat16_is_quantized_in_float32():
    x = jnp.linspace(-2, 2, 41, dtype=jnp.bfloat16)
    y = activation_quantizer("clip", 4)(x)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, activation_quantizer("clip", 4)(x.astype(jnp.float32)))


def test_illegal_choices_are_named():
    with pytest.raises(UserError, match="did you mean clip"):
        activation_quantizer("clap", 2)
    with pytest.raises(UserError, match="activations relu allow 32"):
        activation_quantizer("relu", 2)
    with pytest.raises(UserError, match="quant.activation_bits=6: activations apot allow 1, 2, 3, 4, 5, 32"):
        activation_quantizer("apot", 6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_gradient_has_the_levels_of_its_bits(bits):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 50, 3)), jnp.float32)
    signal = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)
    value, pull = jax.vjp(lambda v: quantize_gradient(v, jax.random.key(0), bits), x)
    (g,) = pull(signal)
    np.testing.assert_array_equal(value, x)
    for example, original in zip(np.asarray(g), np.asarray(signal), strict=True):
        assert len(np.unique(example)) <= 2**bits
        assert np.abs(example).max() <= np.abs(original).max() * (1 + 1e-6)
        if bits > 1:
            assert np.abs(example - original).max() <= 2 * np.abs(original).max() / (2**bits - 1)


def test_gradient_noise_makes_the_rounding_unbiased():
    signal = jnp.asarray([[0.3, -0.7, 1.0, 0.05]])
    pull = lambda key: jax.vjp(lambda v: quantize_gradient(v, key, 2), jnp.zeros_like(signal))[1](signal)[0]
    mean = jax.vmap(pull)(jax.random.split(jax.random.key(0), 4000)).mean(0)
    np.testing.assert_allclose(mean[0, [0, 1, 3]], signal[0, [0, 1, 3]], atol=0.03)


def test_zero_gradient_stays_finite():
    pull = jax.vjp(lambda v: quantize_gradient(v, jax.random.key(0), 4), jnp.zeros((2, 3)))[1]
    assert np.isfinite(pull(jnp.zeros((2, 3)))[0]).all()
