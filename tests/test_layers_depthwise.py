"""Depthwise convolutions on processors, against the library's own."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plq.layers.conv import QuantConv
from plq.layers.depthwise import depthwise
from plq.layers.dropin import Conv
from plq.quant.registry import weight_quantizer

CASES = {
    "same": ((9, 7), (3, 3), 5, 1, (1, 1), "SAME", (1, 1)),
    "stride, even size": ((8, 9), (3, 3), 4, 1, (2, 2), "SAME", (1, 1)),
    "several for each": ((6, 6), (3, 3), 2, 3, (1, 1), "SAME", (1, 1)),
    "5x3, dilated, valid": ((12, 9), (5, 3), 3, 1, (2, 1), "VALID", (2, 3)),
    "lopsided padding": ((9, 9), (3, 3), 4, 1, (2, 2), ((1, 0), (2, 1)), (1, 2)),
    "padding below 0": ((6, 6), (3, 3), 2, 1, (1, 1), ((-1, 0), (1, -1)), (1, 1)),
    "1-D": ((11,), (4,), 6, 2, (3,), "SAME", (1,)),
    "3-D": ((4, 5, 6), (2, 3, 1), 2, 1, (1, 2, 1), "SAME", (1, 1, 1)),
}


def library(x, kernel, strides, padding, dilation):
    spatial = "DHW"[-len(strides) :]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=numbers, feature_group_count=x.shape[-1]
    )


def operands(size, window, channels, each):
    """Small integers, whose sums are exact in any order."""
    random = np.random.default_rng(0)
    numbers = lambda *shape: random.integers(-3, 4, shape).astype(np.float32)
    return numbers(2, *size, channels), numbers(*window, 1, channels * each)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_and_its_gradients_are_those_of_the_library(case):
    size, window, channels, each, strides, padding, dilation = case
    x, kernel = operands(size, window, channels, each)
    wanted, back = jax.vjp(lambda *given: library(*given, strides, padding, dilation), x, kernel)
    found, own_back = jax.vjp(lambda *given: depthwise(*given, strides, padding, dilation), x, kernel)
    np.testing.assert_array_equal(found, wanted)
    ones = jnp.round(wanted / 4)  # integers again
    for own, theirs in zip(own_back(ones), back(ones), strict=True):
        np.testing.assert_array_equal(own, theirs)


def test_operands_and_result_are_of_their_type_and_sums_in_float32():
    x, kernel = operands((9, 9), (3, 3), 4, 1)
    small = jnp.bfloat16
    found = depthwise((x * 100).astype(small), kernel.astype(small), (1, 1), "SAME")
    wanted = depthwise((x * 100).astype(small).astype(np.float32), kernel, (1, 1), "SAME").astype(small)
    assert found.dtype == small
    np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))


def test_it_stays_a_loop_apart_from_its_neighbours():
    """Unrolled it would be merged with what is multiplied and added behind it."""
    x, kernel = operands((9, 9), (3, 3), 4, 1)
    program = jax.jit(lambda x, k: depthwise(2 * x, k, (1, 1), "SAME") * 3 + 1).lower(x, kernel).compile().as_text()
    assert " while(" in program


def test_a_neighbour_more_does_not_change_a_bit():
    """As of a branch with f = 0: batch norm and activation behind the product are merged with what is added there."""
    random = np.random.default_rng(0)
    x, gain, shift = random.normal(size=(16, 14, 14, 24)), random.normal(size=24), random.normal(size=24)
    kernels = random.normal(size=(2, 3, 3, 1, 24)).astype(np.float32)
    x, gain, shift = (each.astype(np.float32) for each in (x, gain, shift))
    low = lambda k: depthwise(jnp.clip(x, 0, 1), k[0], (1, 1), "SAME") * gain + shift
    alone = jax.jit(lambda k, f: jnp.clip(low(k), 0, 1))
    branch = lambda k: depthwise(jnp.clip(x, 0, 1), k[1], (1, 1), "SAME") * shift - gain
    both = jax.jit(lambda k, f: jnp.clip(low(k) + f * branch(k), 0, 1))
    np.testing.assert_array_equal(alone(kernels, 0.0), both(kernels, 0.0))
    assert np.abs(alone(kernels, 0.0) - both(kernels, 0.5)).max() > 0.1


LAYERS = {
    "QuantConv": lambda groups: QuantConv(6, (3, 3), strides=(2, 2), groups=groups),
    "Conv": lambda groups: Conv(
        6, (3, 3), strides=2, feature_group_count=groups, weights=weight_quantizer("dorefa", 8)
    ),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(("groups", "called"), [(6, True), (3, False), (1, False)])
def test_a_layer_uses_it_on_processors_where_each_channel_is_a_group(layer, groups, called, monkeypatch):
    seen = []
    module = sys.modules["plq.layers.depthwise"]
    monkeypatch.setattr(module, "depthwise", lambda *given: seen.append(given) or depthwise(*given))
    x = operands((5, 5), (3, 3), 6, 1)[0]
    variables = layer(groups).init(jax.random.key(0), x)
    seen.clear()
    y = layer(groups).apply(variables, x)
    assert y.shape == (2, 3, 3, 6) and bool(seen) == called
    seen.clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    np.testing.assert_allclose(layer(groups).apply(variables, x), y, rtol=1e-5, atol=1e-5)
    assert not seen


def test_a_layer_of_linen_convolves_as_it_was_told():
    """Its branch too."""
    told = []
    own = lambda *given, **options: told.append(given) or lax.conv_general_dilated(*given, **options)
    few_bits = weight_quantizer("dorefa", 2)
    layer = Conv(6, (3, 3), feature_group_count=6, weights=few_bits, factor=0.5, conv_general_dilated=own)
    layer.init(jax.random.key(0), operands((5, 5), (3, 3), 6, 1)[0])
    assert len(told) == 2
