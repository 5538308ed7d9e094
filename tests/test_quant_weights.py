"""Properties of the weight quantizers that hold for any kernel."""

import functools
import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plq.errors import UserError
from plq.quant.base import WeightQuantizer
from plq.quant.quantized import quantized
from plq.quant.registry import WEIGHTS, activation_quantizer, weight_quantizer

CASES = [
    ("dorefa", 1, {}), ("dorefa", 2, {}), ("dorefa", 4, {}), ("dorefa", 8, {}),
    ("xnor", 1, {}),
    ("syq", 1, {}), ("syq", 2, {}), ("syq", 2, {"granularity": "row"}), ("syq", 1, {"granularity": "layer"}),
    ("syq", 2, {"eta": 0.0}),
    ("lsq", 1, {}), ("lsq", 2, {}), ("lsq", 8, {}), ("lsq", 1, {"granularity": "channel"}),
    ("lsq", 3, {"granularity": "channel"}),
    ("apot", 2, {}), ("apot", 3, {}), ("apot", 5, {}),
    ("sawb", 2, {}), ("sawb", 4, {}),
]  # fmt: skip
SHAPES = [(3, 3, 4, 5), (1, 1, 4, 5), (3, 4, 5), (2, 2, 2, 3, 4), (6, 5)]
KERNELS = {
    "normal": lambda shape: np.random.default_rng(0).normal(size=shape),
    "zero": np.zeros,
    "equal": lambda shape: np.full(shape, 0.3),
    "zero channel": lambda shape: np.random.default_rng(1).normal(size=shape) * (np.arange(shape[-1]) > 0),
    "with zeros": lambda shape: np.random.default_rng(2).integers(-1, 2, size=shape),
    "negative": lambda shape: -np.abs(np.random.default_rng(5).normal(size=shape)),
    "huge": lambda shape: 1e30 * np.random.default_rng(3).normal(size=shape),
    "huge channel": lambda shape: np.random.default_rng(6).normal(size=shape) * np.where(np.arange(shape[-1]), 1, 1e30),
    "tiny": lambda shape: 1e-20 * np.random.default_rng(4).normal(size=shape),
    "denormal": lambda shape: 1e-40 * np.random.default_rng(4).normal(size=shape),
}
LEARNING = [case for case in CASES if WEIGHTS[case[0]].scale_names]
each_case = pytest.mark.parametrize(("name", "bits", "options"), CASES)


def same_bits(a, b):
    """Equal to the last bit, the sign of zero included."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_the_cases_cover_every_quantizer_and_granularity():
    assert {name for name, _, _ in CASES} == set(WEIGHTS)
    for name, quantizer in WEIGHTS.items():
        options = [case[2].get("granularity", quantizer.granularities[0]) for case in CASES if case[0] == name
                   and quantizer.granularities]  # fmt: skip
        assert set(options) == set(quantizer.granularities)


def made(name, bits, options, shape):
    """The quantizer, and learned scales that are not all alike."""
    quantizer = weight_quantizer(name, bits, **options)
    scales = quantizer.initial_scales(jnp.ones(shape))
    return quantizer, {k: v * jnp.linspace(0.5, 2.0, v.size).reshape(v.shape) for k, v in scales.items()}


@each_case
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_are_the_weight(name, bits, options, shape):
    """For any kernel, with scales of another kernel and with its own, compiled or not."""
    quantizer, others = made(name, bits, options, shape)
    jitted, own = jax.jit(quantizer.fake_quantize), jax.jit(quantizer.calibrate_scales)
    for kind, make in KERNELS.items():
        kernel = jnp.asarray(make(shape), jnp.float32)
        for scales in (others, own(kernel)):
            found, fake = quantizer.quantize(kernel, scales), quantizer.fake_quantize(kernel, scales)
            assert found.codes.dtype == jnp.uint8 and found.codes.shape == fake.shape == shape, kind
            assert int(found.codes.max()) < 2**bits, kind
            assert all(np.isfinite(leaf).all() for leaf in (fake, *scales.values())), kind
            assert (np.asarray(2 * found.offset) % 1 == 0).all(), kind
            assert same_bits(found.dequantize(), fake), kind
            assert same_bits(jitted(kernel, scales), fake), kind


@each_case
def test_bfloat16_is_quantized_in_float32(name, bits, options):
    shape = (3, 3, 4, 5)
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
    scales = quantizer.calibrate_scales(kernel)["scale"]
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


WRITTEN_HERE = [case for case in CASES if case[0] in ("dorefa", "xnor", "syq", "sawb") and "eta" not in case[2]]


@pytest.mark.parametrize(("name", "bits", "options"), WRITTEN_HERE)
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
    """With scales of another kernel and with its own."""
    quantizer, others = made(name, bits, options, (3, 3, 4, 5))
    gradients = jax.jit(jax.grad(lambda w, s: jnp.sum(quantizer.fake_quantize(w, s)), (0, 1)))
    own = jax.jit(quantizer.calibrate_scales)
    for kind, make in KERNELS.items():
        kernel = jnp.asarray(make((3, 3, 4, 5)), jnp.float32)
        for scales in (others, own(kernel)):
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients(kernel, scales))), kind


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
    assert b.levels == a.levels


@functools.cache
def compiled(case):
    """For an index into `CASES`: a kernel to its codes, its fake-quantized values and their gradients."""
    quantizer, scales = made(*CASES[case], (3, 3, 2, 3))
    fake = lambda kernel, scales: quantizer.fake_quantize(kernel, scales)
    gradients = jax.grad(lambda kernel, scales: jnp.sum(fake(kernel, scales)), (0, 1))
    run = lambda kernel: (quantizer.quantize(kernel, scales), fake(kernel, scales), gradients(kernel, scales))
    return jax.jit(run)


@given(
    kernel=hnp.arrays(np.float32, (3, 3, 2, 3), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    case=st.integers(0, len(CASES) - 1),
)
@settings(max_examples=150, deadline=None)
def test_any_kernel(kernel, case):
    name, bits, _ = CASES[case]
    codes, fake, gradients = compiled(case)(jnp.asarray(kernel))
    assert int(codes.codes.max()) < 2**bits
    assert same_bits(codes.dequantize(), fake)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((fake, gradients)))
    if name == "dorefa" and bits > 1:
        assert np.abs(fake).max() <= 1.0


def test_32_bits_is_identity():
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 4, 5)), jnp.float32)
    for name in WEIGHTS:
        assert same_bits(weight_quantizer(name, 32).fake_quantize(kernel), kernel)
    with pytest.raises(ValueError, match="no integer codes"):
        weight_quantizer("dorefa", 32).quantize(kernel)


def test_a_quantizer_without_a_surrogate_is_not_made():
    class Half(WeightQuantizer):
        def quantize(self, kernel, scales=None, statistics=None):
            return quantized(kernel, 1.0, 0.0)

    with pytest.raises(TypeError, match="surrogate"):
        Half(1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dorfea", 1), "did you mean dorefa"),
        (("dorefa", 9), "quant.weight_bits=9: weights dorefa allow 1, 2"),
        (("xnor", 2), "weights xnor allow 1, 32"),
        (("syq", 3), "weights syq allow 1, 2, 32"),
        (("lsq", 9), "quant.weight_bits=9: weights lsq allow 1, 2"),
        (("apot", 1), "quant.weight_bits=1: weights apot allow 2, 3, 4, 5, 32"),
        (("sawb", 8), "quant.weight_bits=8: weights sawb allow 2, 3, 4, 5, 32"),
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
    with pytest.raises(UserError, match="granularity=position: unknown to weights lsq; .*allowed: layer, channel"):
        weight_quantizer("lsq", 2, granularity="position")
    with pytest.raises(UserError, match="granularity=channel: weights sawb have no such option; allowed: none"):
        weight_quantizer("sawb", 2, granularity="channel")


@pytest.mark.parametrize(("name", "bits", "options"), LEARNING)
def test_scales_have_one_shape_whatever_the_kernel(name, bits, options):
    """One all-zero channel, or all of them: the scales stay finite and above 0."""
    quantizer = weight_quantizer(name, bits, **options)
    initial = jax.jit(quantizer.initial_scales)
    shapes = {k: v.shape for k, v in initial(jnp.ones((3, 3, 4, 5))).items()}
    for kind, make in KERNELS.items():
        scales = initial(jnp.asarray(make((3, 3, 4, 5)), jnp.float32))
        assert {k: v.shape for k, v in scales.items()} == shapes and set(scales) == set(quantizer.scale_names)
        assert all(np.isfinite(v).all() and (v > 0).all() for v in scales.values()), kind


@pytest.mark.parametrize(("name", "bits"), [("lsq", 3), ("apot", 3), ("apot", 5), ("sawb", 2), ("sawb", 5)])
def test_values_are_the_nearest_levels(name, bits):
    """Of the grid in use: no level is nearer to a weight than the one it gets."""
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 8, 16)), jnp.float32)
    quantizer = weight_quantizer(name, bits)
    found = quantizer.quantize(kernel, quantizer.calibrate_scales(kernel))
    levels = np.asarray(found.levels or np.arange(2**bits), np.float32)
    grid = (levels + np.asarray(found.offset).ravel()) * np.asarray(found.scale).ravel()
    target = np.asarray(kernel)
    if name == "apot":
        target = (target - target.mean()) / target.std()
    assert len(grid) == 2**bits - (name == "apot")
    nearest = np.abs(target[..., None] - grid).min(-1)
    np.testing.assert_allclose(np.abs(target - np.asarray(found.dequantize())), nearest, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_lsq_is_idempotent(bits):
    kernel = jnp.asarray(KERNELS["normal"]((3, 3, 8, 16)), jnp.float32)
    quantizer = weight_quantizer("lsq", bits)
    scales = quantizer.calibrate_scales(kernel)
    once = quantizer.fake_quantize(kernel, scales)
    assert same_bits(quantizer.fake_quantize(once, scales), once)


def sums(*groups):
    return sorted({sum(terms) for terms in itertools.product(*groups)})


# The levels above 0 and 0 itself of the authors' networks, as shares of alpha: arXiv 1909.13144, eq. 5, for even
# numbers of bits; for odd ones as their released code has them. One bit less than the weights have: the sign.
APOT_LEVELS = {
    1: [0, 1],
    2: sums([0, 1 / 2, 1 / 4, 1 / 8]),
    3: sums([0, 1 / 2, 1 / 4, 1 / 16], [0, 1 / 8]),
    4: sums([0, 1 / 2, 1 / 8, 1 / 32], [0, 1 / 4, 1 / 16, 1 / 64]),
    5: sums([0, 1 / 2, 1 / 8, 1 / 64], [0, 1 / 4, 1 / 16, 1 / 128], [0, 1 / 32]),
}


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_apot_levels_are_the_authors(bits):
    wanted = np.asarray(APOT_LEVELS[bits - 1]) / max(APOT_LEVELS[bits - 1])
    kernel = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 3, 16, 16)), jnp.float32)
    fake = jax.jit(weight_quantizer("apot", bits).fake_quantize)
    values = np.unique(fake(kernel, {"alpha": jnp.full((1, 1, 1, 1), 0.7)}))
    np.testing.assert_allclose(values, 0.7 * np.unique([-wanted, wanted]), rtol=1e-6)
    assert len(values) == 2**bits - 1
    activation = activation_quantizer("apot", bits)
    found = np.unique(jax.jit(activation.__call__)(jnp.linspace(0, 1, 5001), {"alpha": jnp.float32(0.7)}))
    np.testing.assert_allclose(found, 0.7 * np.asarray(APOT_LEVELS[bits]) / max(APOT_LEVELS[bits]), rtol=1e-6)
    assert len(found) == 2**bits


def test_apot_quantizes_the_normalized_kernel():
    kernel = 0.02 * jnp.asarray(KERNELS["normal"]((3, 3, 8, 16)), jnp.float32) + 5
    quantizer = weight_quantizer("apot", 3)
    scales = quantizer.calibrate_scales(kernel)
    values = np.asarray(quantizer.fake_quantize(kernel, scales))
    assert 2 < float(scales["alpha"].item()) < 3 and np.abs(values.mean()) < 0.1 and 0.8 < values.std() < 1.1
    assert same_bits(values, quantizer.fake_quantize((kernel - 5) * 50, scales))


SHARES = (np.arange(10_000) + 0.5) / 10_000
TAIL = 1 - 2 * np.abs(SHARES - 0.5)
DISTRIBUTIONS = {  # quantiles
    "normal": np.vectorize(statistics.NormalDist().inv_cdf)(SHARES),
    "laplace": -np.sign(SHARES - 0.5) * np.log(TAIL),
    "logistic": np.log(SHARES / (1 - SHARES)),
    "uniform": 2 * SHARES - 1,
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_sawb_clips_where_the_squared_error_is_nearly_least(kind):
    """Its two coefficients are a fit of just that; the levels are 2**bits, evenly from -alpha to alpha."""
    weights = DISTRIBUTIONS[kind].astype(np.float32)

    def error(clip, bits):
        step = 2 * clip / (2**bits - 1)
        return np.mean((weights - (np.round((np.clip(weights, -clip, clip) + clip) / step) * step - clip)) ** 2)

    for bits in (2, 3) if kind == "uniform" else (2, 3, 4, 5):
        quantizer, kernel = weight_quantizer("sawb", bits), jnp.asarray(weights.reshape(4, -1))
        alpha = jax.jit(quantizer.statistics)(kernel).item()
        assert error(alpha, bits) <= 1.03 * min(error(clip, bits) for clip in np.linspace(0.5, 1.5, 60) * alpha)
        found = np.mean((weights - np.ravel(jax.jit(quantizer.fake_quantize)(kernel))) ** 2)
        np.testing.assert_allclose(found, error(alpha, bits), rtol=0.01)


def test_sawb_by_hand():
    kernel = jnp.asarray([[0.3, -0.1, 0.7], [-1.2, 0.05, 0.4]])
    alpha = 3.12 * np.sqrt(np.mean(np.square(kernel))) - 2.064 * np.mean(np.abs(kernel))
    fake = weight_quantizer("sawb", 2).fake_quantize(kernel)
    np.testing.assert_allclose(fake, alpha * np.asarray([[1, -1, 3], [-3, 1, 1]]) / 3, rtol=1e-5)
    np.testing.assert_allclose(np.unique(np.abs(weight_quantizer("sawb", 4).fake_quantize(jnp.full((3, 4), 0.3)))), 0.3)
