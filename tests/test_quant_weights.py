"""Properties of the weight quantizers that hold for any kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plq.errors import UserError
from plq.quant.registry import WEIGHTS, weight_quantizer

CASES = [
    ("dorefa", 1, {}), ("dorefa", 2, {}), ("dorefa", 3, {}), ("dorefa", 4, {}), ("dorefa", 8, {}),
    ("xnor", 1, {}),
    ("syq", 1, {}), ("syq", 2, {}), ("syq", 2, {"granularity": "row"}), ("syq", 1, {"granularity": "layer"}),
    ("syq", 2, {"eta": 0.0}),
]  # fmt: skip
SHAPES = [(3, 3, 4, 5), (1, 1, 4, 5), (3, 4, 5), (2, 2, 2, 3, 4), (6, 5)]
KERNELS = {
    "normal": lambda shape: np.random.default_rng(0).normal(size=shape),
    "zero": np.zeros,
    "equal": lambda shape: np.full(shape, 0.3),
    "zero channel": lambda shape: np.random.default_rng(1).normal(size=shape) * (np.arange(shape[-1]) > 0),
    "with zeros": lambda shape: np.random.default_rng(2).integers(-1, 2, size=shape),
    "huge": lambda shape: 1e4 * np.random.default_rng(3).normal(size=shape),
    "tiny": lambda shape: 1e-20 * np.random.default_rng(4).normal(size=shape),
}
each_case = pytest.mark.parametrize(("name", "bits", "options"), CASES)


def same_bits(a, b):
    """Equal to the last bit, the sign of zero included."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def made(name, bits, options, shape):
    """The quantizer, and learned scales that are not all alike."""
    quantizer = weight_quantizer(name, bits, **options)
    scales = quantizer.initial_scales(jnp.ones(shape))
    return quantizer, {k: v * jnp.linspace(0.5, 2.0, v.size).reshape(v.shape) for k, v in scales.items()}


@each_case
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KERNELS)
def test_codes_are_the_weight(name, bits, options, shape, kind):
    kernel = jnp.asarray(KERNELS[kind](shape), jnp.float32)
    quantizer, scales = made(name, bits, options, shape)
    codes = quantizer.quantize(kernel, scales)
    fake = quantizer.fake_quantize(kernel, scales)
    assert codes.codes.dtype == jnp.uint8
    assert codes.codes.shape == fake.shape == shape
    assert int(codes.codes.max()) < 2**bits
    assert np.isfinite(fake).all()
    assert same_bits(codes.dequantize(), fake)
    jitted = jax.jit(quantizer.fake_quantize)(kernel, scales)
    assert same_bits(jitted, fake)


@each_case
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_quantized_in_float32(name, bits, options, shape):
    kernel = jnp.asarray(KERNELS["normal"](shape), jnp.bfloat16)
    quantizer, scales = made(name, bits, options, shape)
    fake = quantizer.fake_quantize(kernel, scales)
    assert fake.dtype == jnp.float32
    assert same_bits(fake, quantizer.fake_quantize(kernel.astype(jnp.float32), scales))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_dorefa_uses_every_level_once_enough_weights_are_there(bits):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 64, 64)), jnp.float32)
    values = np.unique(weight_quantizer("dorefa", bits).fake_quantize(kernel))
    assert len(values) == 2**bits
    np.testing.assert_allclose(values, np.linspace(-1, 1, 2**bits), atol=1e-7)
    assert np.abs(values).max() == 1.0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_dorefa_grid_is_symmetric(bits):
    kernel = jnp.asarray(np.random.default_rng(5).normal(size=(3, 3, 8, 8)), jnp.float32)
    quantizer = weight_quantizer("dorefa", bits)
    np.testing.assert_array_equal(quantizer.fake_quantize(-kernel), -quantizer.fake_quantize(kernel))


@each_case
def test_binary_weights_have_two_values_in_each_group(name, bits, options):
    if bits != 1:
        return
    kernel = jnp.asarray(KERNELS["with zeros"]((3, 3, 16, 4)), jnp.float32)
    quantizer, scales = made(name, bits, options, kernel.shape)
    quantized = quantizer.quantize(kernel, scales)
    signs = np.asarray(quantized.codes, np.float32) * 2 - 1
    np.testing.assert_array_equal(signs, np.where(np.asarray(kernel) < 0, -1, 1))
    magnitude = np.broadcast_to(np.abs(quantized.scale) / 2, kernel.shape)
    np.testing.assert_array_equal(np.abs(quantizer.fake_quantize(kernel, scales)), magnitude)


@pytest.mark.parametrize("name", ["dorefa", "xnor"])
def test_binary_quantizers_are_idempotent(name):
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 8, 16)), jnp.float32)
    quantizer = weight_quantizer(name, 1)
    once = quantizer.fake_quantize(kernel)
    np.testing.assert_allclose(quantizer.fake_quantize(once), once, rtol=2e-5)  # a float32 mean of 1,152 equals
    assert same_bits(quantizer.quantize(once).codes, quantizer.quantize(kernel).codes)


def test_magnitudes_are_the_papers_means():
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 8, 16)), jnp.float32)
    dorefa = np.unique(np.abs(weight_quantizer("dorefa", 1).fake_quantize(kernel)))
    np.testing.assert_allclose(dorefa, np.abs(kernel).mean(), rtol=1e-6)
    xnor = np.abs(weight_quantizer("xnor", 1).fake_quantize(kernel))
    np.testing.assert_allclose(xnor[0, 0, 0], np.abs(kernel).mean((0, 1, 2)), rtol=1e-6)
    assert (xnor == xnor[0, 0, 0]).all()


@pytest.mark.parametrize(
    ("granularity", "shape"), [("position", (3, 3, 1, 1)), ("row", (3, 1, 1, 1)), ("layer", (1, 1, 1, 1))]
)
def test_syq_scales_of_a_trained_kernel(granularity, shape):
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 8, 16)), jnp.float32)
    quantizer = weight_quantizer("syq", 2, granularity=granularity)
    scales = quantizer.scales_of(kernel)["scale"]
    assert scales.shape == shape == quantizer.initial_scales(kernel)["scale"].shape
    axes = {"position": (2, 3), "row": (1, 2, 3), "layer": (0, 1, 2, 3)}[granularity]
    np.testing.assert_allclose(scales.squeeze(), np.abs(kernel).mean(axes), rtol=1e-5)


def test_syq_dense_kernel_has_one_scale():
    for granularity in ("position", "row", "layer"):
        scales = weight_quantizer("syq", 1, granularity=granularity).initial_scales(jnp.ones((6, 5)))
        assert scales["scale"].shape == (1, 1)


def test_syq_ternary_zeroes_what_is_small():
    kernel = jnp.asarray([[0.0, 0.049, -0.049, 0.05, -0.05, 1.0]])
    fake = weight_quantizer("syq", 2).fake_quantize(kernel, {"scale": jnp.full((1, 1), 0.7)})
    np.testing.assert_allclose(fake, [[0, 0, 0, 0.7, -0.7, 0.7]])


def reference(name, bits, kernel, scales):
    """Each quantizer's differentiable form, written out again with the rounding replaced by identity."""
    if name == "dorefa" and bits > 1:
        t = jnp.tanh(kernel)
        return 2 * (t / (2 * jnp.max(jnp.abs(t))) + 0.5) - 1
    if name == "syq":
        small = jnp.abs(kernel) < 0.05 * jnp.max(jnp.abs(kernel)) if bits == 2 else jnp.zeros(kernel.shape, bool)
        codes = jnp.where(small, 0.0, jnp.where(kernel < 0, -1.0, 1.0))
        return (kernel - jax.lax.stop_gradient(kernel) + codes) * scales["scale"]
    return kernel


@pytest.mark.parametrize(("name", "bits", "options"), [case for case in CASES if "eta" not in case[2]])
def test_gradient_is_the_written_out_one(name, bits, options):
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 4, 5)), jnp.float32)
    signal = jnp.asarray(np.random.default_rng(9).normal(size=kernel.shape), jnp.float32)
    quantizer, scales = made(name, bits, options, kernel.shape)
    grad = jax.grad(lambda w, s: jnp.sum(quantizer.fake_quantize(w, s) * signal), (0, 1))(kernel, scales)
    want = jax.grad(lambda w, s: jnp.sum(reference(name, bits, w, s) * signal), (0, 1))(kernel, scales)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), grad, want)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grad))


@each_case
def test_gradient_is_finite_for_degenerate_kernels(name, bits, options):
    for kind in KERNELS:
        kernel = jnp.asarray(KERNELS[kind]((3, 3, 4, 5)), jnp.float32)
        quantizer, scales = made(name, bits, options, kernel.shape)
        grads = jax.grad(lambda w, s, q=quantizer: jnp.sum(q.fake_quantize(w, s)), (0, 1))(kernel, scales)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)), kind


@each_case
def test_foreign_statistics_quantize_on_the_same_grid(name, bits, options):
    kept = jnp.asarray(KERNELS["normal"]((3, 3, 4, 5)), jnp.float32)
    extra = 3 * jnp.asarray(KERNELS["normal"]((3, 3, 4, 5))[::-1], jnp.float32)
    quantizer, scales = made(name, bits, options, kept.shape)
    statistics = quantizer.statistics(kept)
    a = quantizer.quantize(kept, scales, statistics)
    b = quantizer.quantize(extra, scales, statistics)
    assert same_bits(a.scale, b.scale)
    assert same_bits(a.codes, quantizer.quantize(kept, scales).codes)
    assert int(b.codes.max()) < 2**bits


@given(
    kernel=hnp.arrays(np.float32, (3, 3, 2, 3), elements=st.floats(-1e6, 1e6, width=32)),
    case=st.sampled_from(CASES),
)
@settings(max_examples=60, deadline=None)
def test_any_kernel(kernel, case):
    quantizer, scales = made(*case, kernel.shape)
    codes = quantizer.quantize(jnp.asarray(kernel), scales)
    assert int(codes.codes.max()) < 2 ** case[1]
    assert same_bits(codes.dequantize(), quantizer.fake_quantize(jnp.asarray(kernel), scales))
    if case[0] == "dorefa" and case[1] > 1:
        assert np.abs(codes.dequantize()).max() <= 1.0


def test_32_bits_is_identity():
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 4, 5)), jnp.float32)
    for name in WEIGHTS:
        assert same_bits(weight_quantizer(name, 32).fake_quantize(kernel), kernel)
    with pytest.raises(ValueError, match="no integer codes"):
        weight_quantizer("dorefa", 32).quantize(kernel)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dorfea", 1), "did you mean dorefa"),
        (("dorefa", 9), "quant.weight_bits=9: weights dorefa allow 1, 2"),
        (("xnor", 2), "weights xnor allow 1, 32"),
        (("syq", 3), "weights syq allow 1, 2, 32"),
    ],
)
def test_illegal_choices_are_named(arguments, said):
    with pytest.raises(UserError, match=said):
        weight_quantizer(*arguments)


def test_illegal_options_are_named():
    with pytest.raises(UserError, match="granularity=pixel"):
        weight_quantizer("syq", 1, granularity="pixel")
    with pytest.raises(UserError, match=r"eta=1\.5"):
        weight_quantizer("syq", 1, eta=1.5)
    with pytest.raises(UserError, match="weights xnor have no such option"):
        weight_quantizer("xnor", 1, eta=0.1)
