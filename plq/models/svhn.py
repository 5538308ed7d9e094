"""The EXP-Net authors' SVHN network (after the DoReFa-Net digit network)."""

from functools import partial

import flax.linen as nn
import jax
from jax import Array

from plq.errors import UserError
from plq.layers.factory import LayerFactory
from plq.layers.operations import flatten, max_pool_2x2
from plq.modes import in_32_bits

MIN_SIZE = 40


class SVHNNet(nn.Module):
    """Seven convolutions and a dense layer, 40x40 images in the paper; all widths times ``width``.

        conv0 5x5   48 VALID, bias, pool 2   first layer
        conv1 3x3   64
        conv2 3x3   64       pool 2
        conv3 3x3  128 VALID
        conv4 3x3  128
        conv5 3x3  128 VALID
        dropout
        conv6 5x5  512 VALID                 its activation is clipped, not quantized
        dense                                last layer

    Input [batch, height, width, channels], height and width at least 40; output logits [batch, num_classes].
    Raises UserError for a smaller image.
    """

    num_classes: int
    kit: LayerFactory
    width: float = 1.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if min(x.shape[1:3]) < MIN_SIZE:
            found = f"{x.shape[1]}x{x.shape[2]}"
            raise UserError(f"data.image_size: found images of {found}, svhn takes {MIN_SIZE}x{MIN_SIZE} or more")
        inner, channels = self.kit.inner, lambda n: max(1, round(n * self.width))
        first = partial(self.kit.first, padding="VALID", use_bias=True, use_norm=False)
        x = first(channels(48), (5, 5), pool=max_pool_2x2, name="conv0")(x, train)
        x = inner(channels(64), (3, 3), name="conv1")(x, train)
        x = inner(channels(64), (3, 3), pool=max_pool_2x2, name="conv2")(x, train)
        x = inner(channels(128), (3, 3), padding="VALID", name="conv3")(x, train)
        x = inner(channels(128), (3, 3), name="conv4")(x, train)
        x = inner(channels(128), (3, 3), padding="VALID", name="conv5")(x, train)
        with in_32_bits():
            x = jax.tree.map(nn.Dropout(self.dropout, deterministic=not train), x)
        top = partial(inner, padding="VALID", activation=self.kit.float_activation)
        x = top(channels(512), (5, 5), name="conv6")(x, train)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(flatten(x), train)
