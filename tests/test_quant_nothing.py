"""Nothing stays nothing: no gradient, no input, all-zero kernels and constant inputs give neither noise nor NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plq.layers.activation import Activation
from plq.layers.scales import calibrate
from plq.quant.base import FLOAT_BITS
from plq.quant.dorefa import quantize_gradient
from plq.quant.registry import ACTIVATIONS, WEIGHTS, activation_quantizer, weight_quantizer

KEY = jax.random.key(0)
QUANTIZED = [name for name in ACTIVATIONS if name != "relu"]


def gradient_of(g, bits):
    g = jnp.asarray(g)
    return np.asarray(
        jax.vjp(lambda x: quantize_gradient(x, KEY, bits), jnp.zeros_like(g))[1](g)[0].astype(jnp.float32)
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("bits", [1, 2, 6, 31])
def test_an_example_without_gradient_keeps_exactly_none(bits, dtype):
    found = gradient_of(jnp.asarray([[1e-4, -2e-4], [0.0, 0.0], [0.0, -0.0]], dtype), bits)
    assert not found[1:].any() and found[0].any()


@pytest.mark.parametrize("bits", [1, 4])
def test_a_gradient_that_is_not_finite_is_not_hidden_and_stays_in_its_example(bits):
    broken = [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, 0.0], [0.0, 0.0], [3e-4, -1e-4]]
    found = gradient_of(broken, bits)
    assert np.isnan(found[:3]).all() and not found[3].any()
    np.testing.assert_array_equal(found[4], gradient_of([[0.0, 0.0]] * 4 + [broken[4]], bits)[4])


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,), (0, 2, 2, 3)])
def test_an_empty_gradient_stays_empty(shape):
    assert gradient_of(np.zeros(shape, np.float32), 2).shape == shape


magnitudes = st.sampled_from([0.0, 1e-45, 1e-40, 1e-32, 1e-20, 1e-3, 1.0, 1e20, 1e38])


@given(st.lists(st.tuples(magnitudes, st.floats(-1, 1, width=32)), min_size=1, max_size=5), st.sampled_from([1, 2, 8]))
@settings(max_examples=60, deadline=None)
def test_a_quantized_gradient_is_never_larger_than_the_largest_of_its_example(examples, bits):
    g = np.asarray([[size * share, size / 2] for size, share in examples], np.float32)
    found, largest = gradient_of(g, bits), np.abs(g).max(1, keepdims=True)
    assert np.isfinite(found).all() and (np.abs(found) <= largest * (1 + 1e-6)).all()
    assert not found[largest[:, 0] == 0].any()


KERNELS = {
    "zero": np.zeros((3, 3, 2, 4)),
    "constant": np.full((3, 3, 2, 4), 0.3),
    "denormal": np.full((3, 3, 2, 4), 1e-40),
    "tiny": np.full((3, 3, 2, 4), 1e-32),
    "a channel of zeros": np.ones((2, 4)) * [1.0, 0.0, 2.0, 0.0],
    "one element": np.zeros((1, 1)),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_kernels_without_a_spread_give_finite_values_and_gradients(weights, name):
    kernel = jnp.asarray(KERNELS[name], jnp.float32)
    for bits in WEIGHTS[weights].legal_bits[:3]:
        quantizer = weight_quantizer(weights, bits)
        for scales in (quantizer.initial_scales(kernel), quantizer.calibrate_scales(kernel)):
            value, pullback = jax.vjp(quantizer.fake_quantize, kernel, scales)
            leaves = jax.tree.leaves((scales, value, pullback(jnp.ones_like(value))))
            assert all(np.isfinite(leaf).all() for leaf in leaves)


INPUTS = {
    "zero": np.zeros((4, 6)),
    "constant": np.full((4, 6), 0.7),
    "negative": np.full((4, 6), -2.0),
    "denormal": np.full((4, 6), 1e-40),
    "no images": np.zeros((0, 6)),
    "no features": np.zeros((4, 0)),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("activations", QUANTIZED)
def test_inputs_without_a_spread_give_finite_values_and_gradients(activations, name):
    x = jnp.asarray(INPUTS[name], jnp.float32)
    for bits in (1, 4):
        quantizer = activation_quantizer(activations, bits)
        for scales in (quantizer.initial_scales(), quantizer.calibrate_scales(x)):
            value, pullback = jax.vjp(quantizer, x, scales)
            leaves = jax.tree.leaves((scales, value, pullback(jnp.ones_like(value))))
            assert all(np.isfinite(leaf).all() for leaf in leaves) and value.shape == x.shape
            assert name not in ("zero", "denormal") or not np.asarray(value).any()


@pytest.mark.parametrize("activations", [name for name in QUANTIZED if ACTIVATIONS[name].scale_names])
def test_a_calibration_on_no_images_leaves_the_scales(activations):
    layer = Activation(activation_quantizer(activations, 3))
    variables = jax.tree.map(lambda leaf: leaf * 1.5, layer.init(KEY, jnp.ones((2, 3))))
    found = calibrate(layer, variables, jnp.zeros((0, 3)))
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert activation_quantizer(activations, FLOAT_BITS)(jnp.zeros((0, 3))).shape == (0, 3)
