"""Order, augmentation and prefetching are functions of seed and step."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import digit_images

from plq.data.augment import Augmentation, augment, normalize
from plq.data.order import batch_indices, steps_per_epoch
from plq.data.prefetch import padded_batches, prefetch
from plq.data.sets import Split
from plq.errors import UserError


@given(seed=st.integers(0, 2**31 - 1), examples=st.integers(1, 300), batch=st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_each_epoch_is_a_permutation(seed, examples, batch):
    if batch > examples:
        with pytest.raises(UserError, match="data.batch_size"):
            steps_per_epoch(examples, batch)
        return
    steps = steps_per_epoch(examples, batch)
    for epoch in (0, 3):
        seen = np.concatenate([batch_indices(seed, epoch * steps + s, examples, batch) for s in range(steps)])
        assert len(set(seen)) == len(seen) == steps * batch and seen.max() < examples


def test_order_depends_on_seed_and_epoch_alone():
    first = batch_indices(1, 0, 1000, 100).copy()
    for step in range(30):
        batch_indices(7, step, 1000, 100)
    np.testing.assert_array_equal(batch_indices(1, 0, 1000, 100), first)
    assert not np.array_equal(batch_indices(2, 0, 1000, 100), first)
    assert not np.array_equal(batch_indices(1, 10, 1000, 100), first)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(digit_images(64))


def run(augmentation, images, key=0):
    return jax.jit(lambda k, x: augment(k, x, augmentation))(jax.random.key(key), images)


def test_off_is_a_cast(images):
    np.testing.assert_array_equal(run(Augmentation(), images), images.astype(jnp.float32))


def test_flip_mirrors_about_half(images):
    out = np.asarray(run(Augmentation(flip=True), images))
    x = np.asarray(images, np.float32)
    mirrored = [(image == other[:, ::-1]).all() for image, other in zip(out, x, strict=True)]
    same = [(image == other).all() for image, other in zip(out, x, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True)) and 16 <= sum(mirrored) <= 48


def test_pad_crop_shifts_within_the_padding(images):
    """Each result is a crop of the padded image, and the corners vary."""
    out, padded = np.asarray(run(Augmentation(pad=2), images)), np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    corners = set()
    for image, source in zip(out, padded, strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if (source[i : i + 40, j : j + 40] == image).all()]
        assert found
        corners.add(found[0])
    assert len(corners) > 10


def test_brightness_adds_one_number_per_image(images):
    middle = jnp.full_like(images, 100)
    change = np.asarray(run(Augmentation(brightness=30.0), middle)) - 100
    assert np.ptp(change, axis=(1, 2, 3)).max() == 0
    assert np.abs(change).max() <= 30 and np.ptp(change) > 30
    extreme = np.asarray(run(Augmentation(brightness=300.0), images))
    assert extreme.min() == 0 and extreme.max() == 255


def test_contrast_scales_around_the_mean(images):
    gentle = images // 8 + 100
    out = np.asarray(run(Augmentation(contrast=(0.5, 1.5)), gentle))
    x = np.asarray(gentle, np.float32)
    mean = x.mean((1, 2), keepdims=True)
    scale = ((out - mean) * (x - mean)).sum((1, 2, 3)) / ((x - mean) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(out, (x - mean) * scale[:, None, None, None] + mean, atol=1e-2)
    assert scale.min() >= 0.5 and scale.max() <= 1.5 and np.ptp(scale) > 0.5


def test_key_decides(images):
    augmentation = Augmentation(pad=2, flip=True, brightness=20.0, contrast=(0.8, 1.2))
    np.testing.assert_array_equal(run(augmentation, images, 5), run(augmentation, images, 5))
    assert not np.array_equal(run(augmentation, images, 5), run(augmentation, images, 6))


def test_normalize_per_channel_or_for_all():
    x = np.full((1, 1, 1, 3), 100, np.uint8)
    np.testing.assert_allclose(normalize(x, (0.0,), (256.0,)), 100 / 256)
    np.testing.assert_allclose(normalize(x, (0.0, 50.0, 100.0), (1.0, 2.0, 3.0)).ravel(), [100, 25, 0])


def assert_no_threads():
    """None is left once those that are at work are done."""
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10])
def test_prefetch_gives_every_step_in_order_and_ends_its_thread(length):
    assert list(prefetch(lambda step: step * step, 3, 3 + length)) == [s * s for s in range(3, 3 + length)]
    assert_no_threads()


def test_prefetch_hands_errors_on_and_stops_early():
    def make(step):
        if step == 2:
            raise OSError("gone")
        return step

    batches = prefetch(make, 0, 5)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(batches)
    endless = prefetch(lambda step: step, 0, 10**9)
    next(endless)
    endless.close()
    assert_no_threads()


@given(examples=st.integers(1, 50), batch=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_evaluation_counts_each_example_once(examples, batch):
    split = Split(np.arange(examples, dtype=np.uint8)[:, None, None, None], np.arange(examples, dtype=np.int32))
    batches = list(padded_batches(split, batch))
    assert all(len(images) == len(labels) == len(mask) == batch for images, labels, mask in batches)
    seen = np.concatenate([labels[mask > 0] for _, labels, mask in batches])
    np.testing.assert_array_equal(seen, np.arange(examples))
