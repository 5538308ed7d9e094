"""Augmentation and normalization of a batch, on the device, inside the training step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Applied in this order; each is off by default. Pixel units are 0..255.

    pad: zeros on every side, then a random crop of the old size. flip: left-right, half of the images.
    brightness: adds Uniform(-d, d). contrast: scales around each channel's mean by Uniform(low, high).
    """

    pad: int = 0
    flip: bool = False
    brightness: float = 0.0
    contrast: tuple[float, ...] = (1.0, 1.0)


def augment(key: Array, images: Array, augmentation: Augmentation) -> Array:
    """float32 [batch, height, width, channels] in 0..255, from uint8 images and one random key.

    The numbers of an image depend on the key and its place in the batch, not on how the batch is sharded.
    """
    crop_key, flip_key, brightness_key, contrast_key = jax.random.split(key, 4)
    per_image = (images.shape[0], 1, 1, 1)
    x = images
    if augmentation.pad:
        x = _pad_crop(crop_key, x, augmentation.pad)
    if augmentation.flip:
        x = jnp.where(jax.random.bernoulli(flip_key, np.float32(0.5), per_image), x[:, :, ::-1], x)
    x = x.astype(jnp.float32)
    if augmentation.brightness:
        d = augmentation.brightness
        x = jnp.clip(x + jax.random.uniform(brightness_key, per_image, jnp.float32, -d, d), 0, 255)
    if augmentation.contrast != (1.0, 1.0):
        low, high = augmentation.contrast
        scale = jax.random.uniform(contrast_key, per_image, jnp.float32, low, high)
        mean = x.mean((1, 2), keepdims=True)
        x = jnp.clip((x - mean) * scale + mean, 0, 255)
    return x


def _pad_crop(key: Array, images: Array, pad: int) -> Array:
    batch, height, width, channels = images.shape
    corners = jnp.pad(jax.random.randint(key, (batch, 2), 0, 2 * pad + 1, jnp.int32), ((0, 0), (0, 1)))
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    crop = lambda image, corner: jax.lax.dynamic_slice(image, corner, (height, width, channels))
    return jax.vmap(crop)(padded, corners)


def normalize(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """(x - mean) / std in float32, per channel or with one number for all; units of 0..255."""
    return (images.astype(jnp.float32) - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
