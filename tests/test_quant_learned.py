"""Scales that are learned: their gradients against the papers' equations written out, and where they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plq.quant.learned import best_clip, positive
from plq.quant.registry import ACTIVATIONS, activation_quantizer, weight_quantizer

RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(size=(3, 3, 4, 6)).astype(np.float32)
X = (1.2 * RANDOM.normal(size=(5, 4, 4, 6)) + 0.3).astype(np.float32)


def gradients(function, x, scales):
    """Of sum(signal * function(x, scales)) for a random signal, which is given too."""
    signal = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    scales = {name: jnp.asarray(value, jnp.float32) for name, value in scales.items()}
    loss = lambda x, s: jnp.sum(function(x, s) * signal)
    dx, ds = jax.jit(jax.grad(loss, (0, 1)))(jnp.asarray(x), scales)
    return signal, np.asarray(dx), {name: np.asarray(value) for name, value in ds.items()}


def lsq_slopes(v, low, high):
    """arXiv 1902.08153, eq. 3 (of the step) and eq. 5 (of the value), element by element; v = value / step."""
    step, value = np.empty_like(v), np.empty_like(v)
    for index in np.ndindex(v.shape):
        if v[index] <= low:
            step[index], value[index] = low, 0
        elif v[index] >= high:
            step[index], value[index] = high, 0
        else:
            step[index], value[index] = np.round(v[index]) - v[index], 1
    return step, value


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_lsq_of_weights(bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    step = np.full((1, 1, 1, 1), 1.1 / high, np.float32)
    signal, dw, ds = gradients(weight_quantizer("lsq", bits).fake_quantize, KERNEL, {"step": step})
    slope, passes = lsq_slopes(KERNEL / step, low, high)
    np.testing.assert_array_equal(dw, signal * passes)
    np.testing.assert_allclose(ds["step"].item(), np.sum(signal * slope) / np.sqrt(KERNEL.size * high), rtol=2e-4)
    assert 0.05 < passes.mean() < 0.95


def test_lsq_per_channel_has_a_gradient_and_a_gradient_scale_for_each():
    step = np.linspace(0.2, 0.7, 6, dtype=np.float32).reshape(1, 1, 1, 6)
    quantizer = weight_quantizer("lsq", 3, granularity="channel")
    signal, dw, ds = gradients(quantizer.fake_quantize, KERNEL, {"step": step})
    slope, passes = lsq_slopes(KERNEL / step, -4, 3)
    np.testing.assert_array_equal(dw, signal * passes)
    wanted = np.sum(signal * slope, (0, 1, 2)) / np.sqrt(KERNEL.size / 6 * 3)
    np.testing.assert_allclose(ds["step"].ravel(), wanted, rtol=2e-4, atol=1e-5)


def test_lsq_of_one_bit_is_the_sign_times_the_step():
    quantizer, scales = weight_quantizer("lsq", 1), {"step": np.full((1, 1, 1, 1), 0.7)}
    signal, dw, ds = gradients(quantizer.fake_quantize, KERNEL, scales)
    np.testing.assert_array_equal(dw, signal)
    signs = np.where(KERNEL < 0, -1, 1)
    np.testing.assert_allclose(ds["step"].item(), np.sum(signal * signs) / np.sqrt(KERNEL.size), rtol=1e-4)
    fake = quantizer.fake_quantize(jnp.asarray(KERNEL), {"step": jnp.full((1, 1, 1, 1), 0.7)})
    np.testing.assert_array_equal(fake, np.float32(0.7) * signs)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_lsq_of_activations(bits):
    high = 2**bits - 1
    step = np.float32(1.5 / high)
    signal, dx, ds = gradients(activation_quantizer("lsq", bits), X, {"step": step})
    slope, passes = lsq_slopes(X / step, 0, high)
    np.testing.assert_array_equal(dx, signal * passes)
    np.testing.assert_allclose(ds["step"], np.sum(signal * slope) / np.sqrt(4 * 4 * 6 * high), rtol=2e-4)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pact(bits):
    """arXiv 1805.06085, eq. 2 and 3."""
    x, alpha = X, np.float32(1.3)
    quantizer, n = activation_quantizer("pact", bits), 2**bits - 1
    signal, dx, ds = gradients(quantizer, x, {"alpha": alpha})
    np.testing.assert_array_equal(dx, signal * ((x > 0) & (x < alpha)))
    np.testing.assert_allclose(ds["alpha"], np.sum(signal[x >= alpha]), rtol=1e-5)
    y = 0.5 * (np.abs(x) - np.abs(x - alpha) + alpha)
    np.testing.assert_allclose(quantizer(x, {"alpha": alpha}), np.round(y * n / alpha) * alpha / n, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4])
def test_lsq_plus(bits):
    """arXiv 2004.09576, eq. 4 and 5, of what comes out of the hard swish; the offset is a multiple of the step."""
    n = 2**bits - 1
    step, offset = np.float32(1.6 / n), np.float32(-0.375)
    quantizer, scales = activation_quantizer("lsq_plus", bits), {"step": step, "offset": offset}
    signal, dx, ds = gradients(quantizer, X, scales)
    h = X * np.clip(X + 3, 0, 6) / 6
    used = np.clip(np.round(offset / step), -n, 0) * step
    slope, passes = lsq_slopes((h - used) / step, 0, n)
    np.testing.assert_allclose(dx, signal * passes * np.where(X < -3, 0, np.where(X > 3, 1, X / 3 + 0.5)), atol=1e-5)
    scale = np.sqrt(4 * 4 * 6 * n)
    np.testing.assert_allclose(ds["step"], np.sum(signal * slope) / scale, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ds["offset"], np.sum(signal * (1 - passes)) / scale, rtol=1e-4, atol=1e-5)
    value = np.round(np.clip((h - used) / step, 0, n)) * step + used
    np.testing.assert_allclose(quantizer(X, scales), value, atol=1e-6)
    assert used < 0 and 0.02 < passes.mean() < 0.98


def test_lsq_plus_has_zero_among_its_values():
    """Whatever the offset: convolutions pad with zeros, and few-bit integers must be able to say so."""
    for bits, step, offset in ((1, 0.5, -9.0), (2, 0.1, 3.0), (4, 0.07, -0.375), (8, 1e-9, -1.0)):
        quantizer = activation_quantizer("lsq_plus", bits)
        found = quantizer.quantize(jnp.zeros((1, 3)), {"step": jnp.float32(step), "offset": jnp.float32(offset)})
        np.testing.assert_array_equal(found.dequantize(), 0)
        assert float(found.offset) == round(float(found.offset)) and -(2**bits) < float(found.offset) <= 0


def clipped(v, levels):
    """arXiv 1909.13144, its reparameterized clipping: the slopes of alpha and of the value at v = value / alpha."""
    nearest = levels[np.abs(v[..., None] - levels).argmin(-1)]
    outside = (v <= levels[0]) | (v >= levels[-1])
    return np.where(outside, np.clip(v, levels[0], levels[-1]), nearest - v), ~outside


def test_apot_of_weights():
    levels = np.asarray([-1, -0.5, -0.25, 0, 0.25, 0.5, 1], np.float32)
    alpha = np.full((1, 1, 1, 1), 1.4, np.float32)
    signal, dw, ds = gradients(weight_quantizer("apot", 3).fake_quantize, 5 * KERNEL + 2, {"alpha": alpha})
    normal = (KERNEL - KERNEL.mean()) / KERNEL.std()
    slope, inside = clipped(normal / alpha, levels)
    np.testing.assert_allclose(dw, signal * inside / (5 * KERNEL.std()), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ds["alpha"].item(), np.sum(signal * slope) / np.sqrt(KERNEL.size * 3), rtol=1e-3)


def test_apot_of_activations():
    levels = np.asarray([0, 0.25, 0.5, 1], np.float32)
    signal, dx, ds = gradients(activation_quantizer("apot", 2), X, {"alpha": np.float32(1.4)})
    slope, inside = clipped(X / np.float32(1.4), levels)
    np.testing.assert_array_equal(dx, signal * inside)
    np.testing.assert_allclose(ds["alpha"], np.sum(signal * slope) / np.sqrt(4 * 4 * 6 * 3), rtol=1e-3)


def test_a_scale_that_crossed_zero_goes_on_on_the_other_side():
    scales = jnp.asarray([0.3, -0.3, 0.0, -1e-9])
    value, pull = jax.vjp(positive, scales)
    np.testing.assert_allclose(value, [0.3, 0.3, 1e-6, 1e-6])
    np.testing.assert_array_equal(pull(jnp.ones(4))[0], [1, -1, 1, -1])
    for name, found in (("lsq", "step"), ("pact", "alpha"), ("apot", "alpha")):
        quantizer = activation_quantizer(name, 3)
        plus, minus = (quantizer(X, {found: jnp.float32(value)}) for value in (0.3, -0.3))
        np.testing.assert_array_equal(plus, minus)


def test_lsq_starts_where_the_paper_says():
    mean = np.abs(KERNEL).mean()
    for bits, largest in ((2, 1), (3, 3), (8, 127)):
        step = weight_quantizer("lsq", bits).initial_scales(jnp.asarray(KERNEL))["step"]
        np.testing.assert_allclose(step, np.full((1, 1, 1, 1), 2 * mean / np.sqrt(largest)), rtol=1e-5)
    steps = weight_quantizer("lsq", 3, granularity="channel").initial_scales(jnp.asarray(KERNEL))["step"]
    assert steps.shape == (1, 1, 1, 6)
    np.testing.assert_allclose(steps.ravel(), 2 * np.abs(KERNEL).mean((0, 1, 2)) / np.sqrt(3), rtol=1e-5)
    binary = weight_quantizer("lsq", 1).initial_scales(jnp.asarray(KERNEL))["step"]
    np.testing.assert_allclose(binary.item(), mean, rtol=1e-5)
    step = activation_quantizer("lsq", 4).calibrate_scales(jnp.asarray(X))["step"]
    np.testing.assert_allclose(step, 2 * np.maximum(X, 0).mean() / np.sqrt(15), rtol=1e-5)


def test_an_all_zero_channel_starts_with_the_step_of_its_layer():
    kernel = KERNEL * (np.arange(6) != 2)
    quantizer = weight_quantizer("lsq", 3, granularity="channel")
    steps = np.ravel(quantizer.initial_scales(jnp.asarray(kernel))["step"])
    np.testing.assert_allclose(steps[2], 2 * np.abs(kernel).mean() / np.sqrt(3), rtol=1e-5)
    np.testing.assert_allclose(steps[3], 2 * np.abs(kernel[..., 3]).mean() / np.sqrt(3), rtol=1e-5)
    np.testing.assert_array_equal(np.ravel(quantizer.initial_scales(jnp.zeros((3, 3, 4, 6)))["step"]), 1)


@pytest.mark.parametrize(("name", "bits"), [("pact", 2), ("pact", 4), ("apot", 3), ("lsq_plus", 3)])
def test_the_others_start_where_the_squared_error_is_least(name, bits):
    quantizer = activation_quantizer(name, bits)
    start, wanted = jax.jit(quantizer.calibrate_scales)(jnp.asarray(X)), quantizer.nonlinearity(jnp.asarray(X))
    error = jax.jit(lambda scales: jnp.mean((quantizer(jnp.asarray(X), scales) - wanted) ** 2))
    others = [error({n: share * v for n, v in start.items()}) for share in (0.5, 0.7, 0.85, 1.2, 1.5, 2.0)]
    assert error(start) < min(others) and error(start) < error(quantizer.initial_scales())


def test_a_start_value_looks_at_every_channel():
    """Of a large tensor it takes samples: at a distance that no axis length divides."""
    x = np.zeros((64, 32, 32, 64), np.float32)
    x[..., 33] = 1.0
    clip = best_clip(jnp.asarray(x), lambda v, clip: jnp.minimum(v, clip))
    assert float(clip) == 1.0 and x.size >= 64 * 2**16
    shifted = best_clip(jnp.asarray(7 * x), lambda v, clip: jnp.minimum(v, clip))
    assert float(shifted) == 7.0


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if ACTIVATIONS[name].scale_names])
def test_start_values_of_degenerate_activations(name):
    quantizer = activation_quantizer(name, 2)
    start = jax.jit(quantizer.calibrate_scales)
    for x in (np.zeros_like(X), np.full_like(X, 0.4), np.full_like(X, -2), 1e-20 * X, 1e-40 * X, 1e30 * X, X[:1]):
        scales = start(jnp.asarray(x))
        assert set(scales) == set(quantizer.scale_names)
        assert all(np.isfinite(v) and v.shape == () for v in scales.values())
        assert all(v > 0 for n, v in scales.items() if n != "offset")
    constant = quantizer(jnp.full((1, 9), 0.4), start(jnp.full((1, 9), 0.4)))
    np.testing.assert_allclose(constant, quantizer.nonlinearity(jnp.full((1, 9), 0.4)), rtol=0.2)
    if name != "lsq_plus":  # as for ordinary activations, whatever their unit
        ordinary, huge = (start(jnp.asarray(unit * X)) for unit in (np.float32(1), np.float32(2.0**99)))
        for scale, value in ordinary.items():
            np.testing.assert_allclose(huge[scale], value * 2.0**99, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if ACTIVATIONS[name].scale_names])
def test_a_start_value_from_what_is_not_a_number_is_none_either(name):
    """So that calibration can refuse it."""
    x = X.copy()
    x[0, 0, 0, 0] = np.nan
    assert any(np.isnan(v) for v in jax.jit(activation_quantizer(name, 2).calibrate_scales)(jnp.asarray(x)).values())


@pytest.mark.parametrize(("name", "options"), [("lsq", {}), ("lsq", {"granularity": "channel"}), ("apot", {})])
def test_a_start_value_from_a_kernel_that_is_not_a_number_is_none_either(name, options):
    kernel = KERNEL.copy()
    kernel[0, 0, 0, 0] = np.nan
    scales = jax.jit(weight_quantizer(name, 3, **options).calibrate_scales)(jnp.asarray(kernel))
    assert any(np.isnan(v).any() for v in scales.values())
