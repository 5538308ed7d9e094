"""Residual networks (He et al., arXiv 1512.03385): ResNet-20 to -56 for small images, -18, -34 and -50 for ImageNet.

A block ends as y = Qa(BN(conv(x)) + shortcut), and with a branch as merge(y, f * ancillary): the ancillary output
joins after the activation, as it does in EXP-Net's chains of layers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from plq.layers.kit import Kit
from plq.layers.operations import global_mean, max_pool, shrink

SHORTCUTS = ("projection", "padding")


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average, dense.

    ``stages``: blocks per stage; from the second stage on the width doubles and the size halves.
    ``small_images``: a 3x3 stem of 16 channels instead of one of 7x7, 64 channels, and pooling.
    ``bottleneck``: 1x1, 3x3, 1x1 blocks of four times the width, the stride in the 3x3 ("v1.5").
    ``shortcut`` where shapes change: a 1x1 convolution with batch norm, or none: every other pixel, and channels
    of zeros ("padding", the paper's option A).

    Input [batch, height, width, channels], output logits [batch, num_classes].
    """

    num_classes: int
    kit: Kit
    stages: Sequence[int]
    small_images: bool = False
    bottleneck: bool = False
    width: float = 1.0
    shortcut: str = "projection"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        base = max(1, round((16 if self.small_images else 64) * self.width))
        y: Any = _stem(self.kit, base, self.small_images)(x, train)
        block = _bottleneck_block if self.bottleneck else _basic_block
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                unit = partial(_unit, self.kit, f"stage{stage + 1}_block{index + 1}", train)
                stride = 2 if stage > 0 and index == 0 else 1
                y = block(unit, y, base * 2**stage, stride, self.shortcut)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(global_mean(y), train)


def _stem(kit: Kit, features: int, small_images: bool) -> nn.Module:
    if small_images:
        return kit.first(features, (3, 3), epsilon=1e-5, name="stem")
    pool = partial(max_pool, window=3, stride=2, padding=((1, 1), (1, 1)))
    return kit.first(features, (7, 7), (2, 2), ((3, 3), (3, 3)), pool=pool, epsilon=1e-5, name="stem")


def _unit(kit: Kit, block: str, train: bool, name: str, x: Any, features: int, size: int, stride: int = 1, **fields):
    """One convolution of a block with its batch norm, padded as in the published networks."""
    residual = fields.pop("residual", None)
    padding = ((size // 2, size // 2),) * 2
    unit = kit.inner(features, (size, size), (stride, stride), padding, epsilon=1e-5, name=f"{block}_{name}", **fields)
    return unit(x, train, residual)


def _basic_block(unit: Any, x: Any, features: int, stride: int, shortcut: str) -> Any:
    residual = _shortcut(unit, x, features, stride, shortcut)
    y = unit("conv1", x, features, 3, stride)
    return unit("conv2", y, features, 3, residual=residual)


def _bottleneck_block(unit: Any, x: Any, features: int, stride: int, shortcut: str) -> Any:
    residual = _shortcut(unit, x, 4 * features, stride, shortcut)
    y = unit("conv1", x, features, 1)
    y = unit("conv2", y, features, 3, stride)
    return unit("conv3", y, 4 * features, 1, residual=residual)


def _shortcut(unit: Any, x: Any, features: int, stride: int, shortcut: str) -> Any:
    """The block's input in the shape of its output."""
    channels = jax.tree.leaves(x)[0].shape[-1]
    if channels == features and stride == 1:
        return x
    if shortcut == "projection":
        return unit("shortcut", x, features, 1, stride, activation=None)
    return shrink(x, stride=stride, channels=features)
