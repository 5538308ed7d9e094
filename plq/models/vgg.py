"""VGG-small, the chain of convolutions on which few-bit CIFAR-10 results are often given (arXiv 1807.10029)."""

from typing import Any

import flax.linen as nn
from jax import Array

from plq.errors import UserError
from plq.layers.factory import LayerFactory
from plq.layers.operations import flatten, max_pool_2x2

MIN_SIZE = 8
LAYERS = (128, 128, 256, 256, 512, 512)


class VGGSmall(nn.Module):
    """Six 3x3 convolutions of 128, 128, 256, 256, 512 and 512 channels, halved after every second one, and dense.

    Input [batch, height, width, channels], 8 pixels a side or more; output logits [batch, num_classes].
    Raises UserError for a smaller image.
    """

    num_classes: int
    kit: LayerFactory
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if min(x.shape[1:3]) < MIN_SIZE:
            found = f"{x.shape[1]}x{x.shape[2]}"
            raise UserError(f"data.image_size: found images of {found}, vgg_small takes {MIN_SIZE}x{MIN_SIZE} or more")
        y: Any = x
        for index, features in enumerate(LAYERS):
            make = self.kit.inner if index else self.kit.first
            pool = max_pool_2x2 if index % 2 else None
            y = make(max(1, round(features * self.width)), (3, 3), pool=pool, name=f"conv{index}")(y, train)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(flatten(y), train)
