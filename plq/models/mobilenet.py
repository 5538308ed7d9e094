"""MobileNetV1 (Howard et al., arXiv 1704.04861): depthwise and pointwise convolutions, all of them expanded."""

from typing import Any

import flax.linen as nn
import jax
from jax import Array

from plq.layers.kit import Kit
from plq.layers.operations import global_mean

LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """A stem of 32 channels, 13 pairs of depthwise 3x3 and pointwise 1x1 convolutions, global average, dense.

    Input [batch, height, width, channels], 32 pixels a side or more; output logits [batch, num_classes].
    """

    num_classes: int
    kit: Kit
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        channels = lambda n: max(1, round(n * self.width))
        around = ((1, 1), (1, 1))
        y: Any = self.kit.first(channels(32), (3, 3), (2, 2), around, epsilon=1e-5, name="stem")(x, train)
        for index, (features, stride) in enumerate(LAYERS):
            before = jax.tree.leaves(y)[0].shape[-1]
            depthwise = {"groups": before, "epsilon": 1e-5, "name": f"depthwise{index}"}
            y = self.kit.inner(before, (3, 3), (stride, stride), around, **depthwise)(y, train)
            y = self.kit.inner(channels(features), (1, 1), epsilon=1e-5, name=f"pointwise{index}")(y, train)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(global_mean(y), train)
