"""AlexNet as the EXP-Net authors train it on ImageNet (after the DoReFa-Net one): no local response norm, few bits."""

from functools import partial
from typing import Any

import flax.linen as nn
from jax import Array

from plq.errors import UserError
from plq.layers.factory import LayerFactory
from plq.layers.operations import flatten, max_pool

MIN_SIZE = 96
pool = partial(max_pool, window=3, stride=2, padding="SAME")
pool_valid = partial(max_pool, window=3, stride=2, padding="VALID")


class AlexNet(nn.Module):
    """Five convolutions and three dense layers; 224x224 in the paper; all widths times ``width``.

        conv0  12x12/4   96 VALID                    first layer, no batch norm
        conv1  5x5      256  2 groups, pool 3/2
        conv2  3x3      384            pool 3/2
        conv3  3x3      384  2 groups
        conv4  3x3      256  2 groups, pool 3/2 VALID
        fc0, fc1       4096                          low-precision, not expanded
        dense                                        last layer

    Input [batch, height, width, channels], at least 96 pixels a side; output logits [batch, num_classes].
    Raises UserError for a smaller image.
    """

    num_classes: int
    kit: LayerFactory
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if min(x.shape[1:3]) < MIN_SIZE:
            found = f"{x.shape[1]}x{x.shape[2]}"
            raise UserError(f"data.image_size: found images of {found}, alexnet takes {MIN_SIZE}x{MIN_SIZE} or more")
        inner, channels = self.kit.inner, lambda n: max(2, 2 * round(n * self.width / 2))
        first = partial(self.kit.first, padding="VALID", use_bias=True, use_norm=False)
        y: Any = first(channels(96), (12, 12), (4, 4), name="conv0")(x, train)
        y = inner(channels(256), (5, 5), groups=2, pool=pool, name="conv1")(y, train)
        y = inner(channels(384), (3, 3), pool=pool, name="conv2")(y, train)
        y = inner(channels(384), (3, 3), groups=2, name="conv3")(y, train)
        y = inner(channels(256), (3, 3), groups=2, pool=pool_valid, name="conv4")(y, train)
        y = self.kit.unexpanded(channels(4096), (), name="fc0")(flatten(y), train)
        y = self.kit.unexpanded(channels(4096), (), name="fc1")(y, train)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(y, train)
