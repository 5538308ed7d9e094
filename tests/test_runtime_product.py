"""Products of integers: every sum exact, whatever the geometry, and refused where it could not be."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plq.errors import UserError
from plq.runtime import product
from plq.runtime.graph import Graph
from plq.runtime.grid import Grid
from plq.runtime.nodes import Activation, Conv, Dense, Flatten, Normalize
from plq.runtime.product import integer_product, multiply

SIGNED = Grid(8, -127.5)
BYTE = Grid(8)


def graph_of(node, shape, codes, scale, inputs=BYTE, unit=1.0) -> Graph:
    """One product behind one activation "a", whose codes of ``inputs`` are worth ``unit`` each; "f": flattened."""
    activation = Activation("a", ("n",), "identity", inputs, unit, unit)
    tensors = {"w/kernel": codes, "w/scale": np.asarray(scale, np.float32)}
    before = (Normalize("n", ("image",), (0.0,), (1.0,)), activation, Flatten("f", ("a",)))
    return Graph(shape, (*before, node), tensors)


def expected(node: Conv, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution in int64 and float64, written out."""
    x = np.pad(x, ((0, 0), *node.padding, (0, 0)))
    rows, columns = (
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(x.shape[1:3], node.kernel_size, node.dilation, node.strides, strict=True)
    )
    per_group = kernel.shape[2]
    y = np.zeros((len(x), rows, columns, node.features), kernel.dtype)
    for group in range(node.groups):
        outs = slice(group * (node.features // node.groups), (group + 1) * (node.features // node.groups))
        ins = slice(group * per_group, (group + 1) * per_group)
        for i, j in np.ndindex(*node.kernel_size):
            top, left = i * node.dilation[0], j * node.dilation[1]
            part = x[:, top:, left:][:, :: node.strides[0], :: node.strides[1]][:, :rows, :columns, ins]
            y[..., outs] += part @ kernel[i, j, :, outs]
    return y


@st.composite
def convolutions(draw):
    size, groups = (draw(st.integers(1, 4)), draw(st.integers(1, 3))), draw(st.integers(1, 3))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))
    grid = draw(st.sampled_from([Grid(1, -0.5), Grid(2, -1.5), Grid(2, -1.0), Grid(3, 0.0, (-4, -1, 0, 1, 4)), SIGNED]))
    features = groups * draw(st.integers(1, 2))
    return Conv("w", ("a",), features, grid, size, pair(1, 2), pads, pair(1, 2), groups)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(convolutions(), st.sampled_from(["layer", "channel", "row", "position"]), st.integers(0, 2**31))
def test_sums_are_exact_for_any_geometry(node, scales, seed):
    generator, per_group = np.random.default_rng(seed), 2
    shape = (9, 8, per_group * node.groups)
    codes = generator.integers(0, node.grid.codes, node.kernel_shape(shape[2])).astype(np.uint8)
    full = {"layer": (1, 1, 1, 1), "channel": (1, 1, 1, node.features), "row": (node.kernel_size[0], 1, 1, 1)}
    scale = 2.0 ** generator.integers(-3, 3, full.get(scales, (*node.kernel_size, 1, 1)))
    inputs = Grid(4, -3.0)
    planned = integer_product(graph_of(node, shape, codes, scale, inputs, 0.5), node)
    x = generator.choice(inputs.integers, (2, *shape))
    weights = node.grid.integers[codes] / node.grid.multiple * scale
    wanted = expected(node, x / 2, weights)  # scales are powers of two: float64 is exact
    np.testing.assert_array_equal(computed(planned, x), wanted)
    for other in ("cuda", "default"):
        with mock.patch.object(product.lax, "platform_dependent", lambda *given, **ways: ways[other](*given)):  # noqa: B023
            np.testing.assert_array_equal(computed(planned, x), wanted)


@pytest.mark.parametrize(("groups", "platform", "operations"), [
    (4, "cpu", {"while"}), (4, "cuda", {"while", "dot_general"}), (4, "tpu", {"convolution"}),
    (2, "cpu", {"convolution"}), (2, "rocm", {"while", "dot_general"}), (2, "tpu", {"convolution"}),
])  # fmt: skip
def test_an_exported_product_is_computed_as_suits_what_it_runs_on(groups, platform, operations):
    node = Conv("w", ("a",), 4, SIGNED, (3, 3), groups=groups)
    x, kernel = jnp.zeros((2, 6, 6, 4)), jnp.zeros((3, 3, 4 // groups, 4))
    program = jax.export.export(jax.jit(lambda x, k: multiply(node, x, k)), platforms=[platform])(x, kernel)
    names = ("while", "dot_general", "convolution")
    assert {name for name in names if f"stablehlo.{name}" in program.mlir_module()} == operations


def computed(planned, x) -> np.ndarray:
    """What the plan gives for integers x."""
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(planned.kernel), planned.multipliers
    return np.asarray(jax.jit(lambda x, kernel, multipliers: planned(x, kernel, multipliers))(*arrays))


@pytest.mark.parametrize("groups", [1, 2])
def test_sums_beyond_float32_are_exact_too(groups):
    """The input channels are taken in parts, each below 2**24, and added as int32; a plain float32 sum is wrong."""
    generator, channels = np.random.default_rng(groups), 150 * groups
    node = Conv("w", ("a",), 2 * groups, SIGNED, (3, 3), groups=groups)
    codes = generator.integers(200, 256, (3, 3, 150, 2 * groups)).astype(np.uint8)
    x = generator.integers(200, 256, (2, 4, 5, channels))
    planned = integer_product(graph_of(node, (4, 5, channels), codes, np.ones((1, 1, 1, 1))), node)
    kernel = SIGNED.integers[codes].astype(np.int64)
    sums = expected(node, x.astype(np.int64), kernel)
    assert np.abs(sums).max() > 2**25 and planned.largest >= np.abs(sums).max()
    np.testing.assert_array_equal(computed(planned, x), (sums / 2).astype(np.float32))
    naive = multiply(node, jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    assert (np.asarray(naive, np.int64) != sums.astype(np.float32)).any()


def test_parts_are_as_large_as_they_may_be():
    node = Dense("w", ("f",), 1, BYTE)
    codes = np.full((1000, 1), 255, np.uint8)
    planned = integer_product(graph_of(node, (1, 1, 1000), codes, np.ones((1, 1))), node)
    cuts = [cut[-1] for cut in planned.groups[0]]
    assert cuts[0] == (0, 2**24 // 255**2) and cuts[-1][1] == 1000
    assert all((stop - start) * 255**2 <= 2**24 for start, stop in cuts)
    x = np.full((1, 1000), 255)
    assert computed(planned, x)[0, 0] == np.float32(1000 * 255**2)


def test_sums_that_int32_does_not_hold_are_refused():
    wide = Dense("w", ("f",), 1, BYTE)
    codes = np.full((40_000, 1), 255, np.uint8)
    with pytest.raises(UserError, match=r"node w \(dense\): found sums of up to 2,601,000,000, allowed 2\*\*31 in all"):
        integer_product(graph_of(wide, (1, 1, 40_000), codes, np.ones((1, 1))), wide)
    large = Conv("w", ("a",), 1, BYTE, (17, 17))
    codes = np.full((17, 17, 1, 1), 255, np.uint8)
    with pytest.raises(UserError, match=r"found sums of up to 18,792,225, allowed .* 2\*\*24 for one input channel"):
        integer_product(graph_of(large, (20, 20, 1), codes, np.ones((1, 1, 1, 1))), large)


def test_scales_that_float32_does_not_hold_are_refused():
    node = Dense("w", ("f",), 1, BYTE)
    graph = graph_of(node, (1, 1, 3), np.ones((3, 1), np.uint8), np.full((1, 1), 1e30), unit=1e10)
    with pytest.raises(UserError, match=r"node w \(dense\): found scales up to 1e\+40 with the input's, allowed 3.4e"):
        integer_product(graph, node)


@pytest.mark.parametrize(("grid", "dtype"), [(Grid(1, -0.5), np.int8), (Grid(8, -128.0), np.int16), (BYTE, np.int16)])
def test_weights_take_the_smallest_type(grid, dtype):
    node = Dense("w", ("f",), 3, grid)
    codes = np.zeros((5, 3), np.uint8)
    planned = integer_product(graph_of(node, (1, 1, 5), codes, np.ones((1, 3))), node)
    assert planned.kernel.dtype == dtype and planned.multipliers[0].shape == (3,)
