"""MobileNets (Howard et al., arXiv 1704.04861; Sandler et al., arXiv 1801.04381): all inner convolutions expanded.

``stride`` is that of the whole network: 32 for ImageNet; for small images the first strides are left out until 16, 8
or 4 is left.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from plq.layers.factory import LayerFactory
from plq.layers.operations import global_mean

STRIDES = (4, 8, 16, 32)
AROUND = ((1, 1), (1, 1))
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
BLOCKS = (  # expansion, channels, number of blocks, stride of the first one
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def relaxed(strides: Sequence[int], total: int) -> list[int]:
    """The strides with the first ones made 1 until the product is ``total``.

    >>> relaxed([2, 1, 2, 2], 4)
    [1, 1, 2, 2]
    """
    kept = list(strides)
    for index in range(len(kept)):
        if math.prod(kept) > total:
            kept[index] = 1
    return kept


class MobileNetV1(nn.Module):
    """A stem of 32 channels, 13 pairs of depthwise 3x3 and pointwise 1x1 convolutions, global average, dense.

    Input [batch, height, width, channels]; output logits [batch, num_classes].
    """

    num_classes: int
    kit: LayerFactory
    width: float = 1.0
    stride: int = 32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        channels = lambda n: max(1, round(n * self.width))
        first, *strides = relaxed([2, *(stride for _, stride in LAYERS)], self.stride)
        y: Any = self.kit.first(channels(32), (3, 3), (first, first), AROUND, epsilon=1e-5, name="stem")(x, train)
        for index, ((features, _), stride) in enumerate(zip(LAYERS, strides, strict=True)):
            before = jax.tree.leaves(y)[0].shape[-1]
            depthwise = {"groups": before, "epsilon": 1e-5, "name": f"depthwise{index}"}
            y = self.kit.inner(before, (3, 3), (stride, stride), AROUND, **depthwise)(y, train)
            y = self.kit.inner(channels(features), (1, 1), epsilon=1e-5, name=f"pointwise{index}")(y, train)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(global_mean(y), train)


class MobileNetV2(nn.Module):
    """A stem of 32 channels, 17 inverted residual blocks, 1x1 convolution to 1280 channels, global average, dense.

    A block widens (1x1), filters (depthwise 3x3) and projects back (1x1, no activation: the linear bottleneck), and
    adds its input where shapes allow. So the stream from block to block is in float and has both signs; an
    `PreActivation` without batch norm brings it to the activation's grid before the next convolution.
    The paper's ReLU6 is whatever the activation is. Channels are multiples of 8, and the last convolution never has
    fewer than 1280, as published.

    Input [batch, height, width, channels]; output logits [batch, num_classes].
    """

    num_classes: int
    kit: LayerFactory
    width: float = 1.0
    stride: int = 32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        rows = [(t, c, s if i == 0 else 1) for t, c, count, s in BLOCKS for i in range(count)]
        first, *strides = relaxed([2, *(stride for *_, stride in rows)], self.stride)
        stem = self.kit.first(self._channels(32), (3, 3), (first, first), AROUND, epsilon=1e-5, name="stem")
        y: Any = stem(x, train)
        for index, ((expansion, features, _), stride) in enumerate(zip(rows, strides, strict=True)):
            y = self._block(f"block{index}", y, train, expansion, self._channels(features), stride)
        y = self._entry("top", y, train)
        y = self.kit.inner(self._channels(1280, max(1.0, self.width)), (1, 1), epsilon=1e-5, name="top")(y, train)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(global_mean(y), train)

    def _channels(self, features: int, width: float | None = None) -> int:
        """The nearest multiple of 8 that is not below 90 %."""
        wanted = features * (self.width if width is None else width)
        nearest = max(8, int(wanted + 4) // 8 * 8)
        return nearest if nearest >= 0.9 * wanted else nearest + 8

    def _entry(self, name: str, x: Any, train: bool) -> Any:
        return self.kit.entry(use_norm=False, name=f"{name}_entry")(x, train)

    def _block(self, name: str, x: Any, train: bool, expansion: int, features: int, stride: int) -> Any:
        before = jax.tree.leaves(x)[0].shape[-1]
        wide, y = before * expansion, x
        if expansion > 1:
            y = self._entry(name, x, train)
            y = self.kit.inner(wide, (1, 1), epsilon=1e-5, name=f"{name}_widen")(y, train)
        fields = {"groups": wide, "epsilon": 1e-5, "name": f"{name}_depthwise"}
        y = self.kit.inner(wide, (3, 3), (stride, stride), AROUND, **fields)(y, train)
        residual = x if before == features and stride == 1 else None
        project = self.kit.inner(features, (1, 1), activation=None, epsilon=1e-5, name=f"{name}_project")
        return project(y, train, residual)
