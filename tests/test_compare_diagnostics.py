"""Looks into a stripped model, against counts written out."""

import base64
import dataclasses
import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import IMAGE_SHAPE, architecture, digit_images, used_variables
from PIL import Image

from plq.compare.diagnostics import activation_codes, confusion, errors, weight_codes
from plq.compare.reestimate import reestimated
from plq.data.augment import normalize
from plq.data.loader import ArrayLoader
from plq.data.sets import Split
from plq.layers.factory import QuantConfig
from plq.models.registry import NETWORKS, Architecture
from plq.models.resnet import ResNet
from plq.runtime.stripped_model import Model

NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def model():
    network = architecture("syq", 2).plain()
    variables = used_variables(network, digit_images(100))
    return Model(network, variables, IMAGE_SHAPE, (0.0,), (256.0,), NAMES, "square", {})


def test_weight_codes_are_counted_by_layer(model):
    found = weight_codes(model)
    assert list(found) == [f"conv{i}" for i in range(1, 7)]
    kernel = np.asarray(model.variables["params"]["conv3"]["conv"]["kernel"])
    zero = np.abs(kernel) < 0.05 * np.abs(kernel).max()
    expected = [((kernel < 0) & ~zero).mean(), zero.mean(), ((kernel >= 0) & ~zero).mean(), 0.0]
    np.testing.assert_allclose(found["conv3"], expected, atol=1e-6)


def test_activation_codes_are_counted_by_layer(model):
    images = digit_images(32)
    found = activation_codes(model, images)
    assert list(found) == [f"conv{i}" for i in range(6)]  # conv6 is clipped, not quantized
    x = normalize(jnp.asarray(images), model.mean, model.std)
    _, seen = model.network.apply(model.variables, x, capture_intermediates=True)
    levels = np.asarray(seen["intermediates"]["conv2"]["act"]["__call__"][0])
    np.testing.assert_allclose(found["conv2"], [(np.round(3 * levels) == code).mean() for code in range(4)], atol=1e-6)
    assert all(sum(shares) == pytest.approx(1, abs=1e-5) for shares in found.values())


def test_codes_of_networks_with_entries_and_learned_scales(monkeypatch):
    """Pre-activation: the activations stand before the convolutions; shares are of codes that exist."""
    monkeypatch.setitem(NETWORKS, "resnet20", partial(ResNet, stages=(1, 1), small_images=True))
    precision = QuantConfig("lsq", 3, "lsq_plus", 2, last_bits=4)
    network = Architecture("resnet20", 10, precision, 0.25, 0.0, block="pre").plain()
    images = digit_images(16)
    model = Model(network, used_variables(network, images), IMAGE_SHAPE, (0.0,), (256.0,), NAMES, "square", {})
    activations, weights = activation_codes(model, images), weight_codes(model)
    assert [name for name in activations if "entry" in name] == ["stage1_block1_entry", "stage2_block1_entry"]
    assert {len(shares) for shares in activations.values()} == {4}
    assert {name: len(shares) for name, shares in weights.items() if name == "dense" or "conv2" in name} == {
        "stage1_block1_conv2": 8, "stage2_block1_conv2": 8, "dense": 16,
    }  # fmt: skip
    for shares in (*activations.values(), *weights.values()):
        assert sum(shares) == pytest.approx(1, abs=1e-5) and np.count_nonzero(shares) > 1


def test_confusion_and_the_surest_mistakes():
    labels = np.asarray([0, 0, 1, 2], np.int32)
    logits = np.asarray([[5, 0, 0], [0, 1, 0], [0, 2, 0], [9, 0, 0]], np.float32)
    assert confusion(logits, labels).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    images = digit_images(4)
    found = errors(logits, labels, ArrayLoader(Split(images, labels), 3, 0))
    assert [(error["label"], error["taken_for"]) for error in found] == [(2, 0), (0, 1)]
    assert found[1]["certain"] == pytest.approx(np.e / (np.e + 2), rel=1e-5)
    shown = Image.open(io.BytesIO(base64.b64decode(found[0]["image"].split(",")[1])))
    np.testing.assert_array_equal(np.asarray(shown), images[3, :, :, 0])


def test_statistics_taken_anew_are_those_of_the_batches(model):
    """With one batch, serving it gives what training on it computes; with two, means of both; weights stay."""
    one, two = digit_images(64)[:32], digit_images(64)[32:]
    renewed = reestimated(model, [one])
    train = lambda images: model.network.apply(
        model.variables, normalize(jnp.asarray(images), model.mean, model.std), train=True, mutable=["batch_stats"]
    )[0]
    np.testing.assert_allclose(renewed(one), jax.jit(train)(one), rtol=2e-3, atol=2e-3)
    assert not np.allclose(model(one), renewed(one), atol=0.05)
    both, other = reestimated(model, [one, two]), reestimated(model, [two])
    mean = jax.tree.map(lambda a, b: (a + b) / 2, renewed.variables["batch_stats"], other.variables["batch_stats"])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, both.variables["batch_stats"], mean)
    assert both.variables["params"] is model.variables["params"]


def test_a_network_without_batch_norm_is_left_as_it_is(model):
    bare = dataclasses.replace(model, variables={**model.variables, "batch_stats": {}})
    assert reestimated(bare, []) is bare
