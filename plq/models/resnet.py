"""Residual networks (He et al., arXiv 1512.03385): ResNet-20 to -56 for small images, -18, -34 and -50 for ImageNet.

A block is one of three:

    post      y = Qa(BN(conv(.)) + shortcut): the sum is quantized, the stream from block to block is low-bit
    pre       y = conv(Qa(BN(.))) + shortcut: the stream stays in float (He et al., arXiv 1603.05027)
    bireal    the same with a shortcut around every 3x3 convolution, as in Bi-Real Net (Liu et al., arXiv 1808.00278;
              there each is sign, convolution, batch norm, and signs are -1 and 1)

With a branch f * ancillary joins what the last unit of the block gives: in "post" after the activation, as in
EXP-Net's chains of layers; in the others it joins the stream, which branches read before BN and Qa.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from plq.errors import UserError
from plq.layers.factory import LayerFactory
from plq.layers.operations import global_mean, max_pool, zero_pad_shortcut

SHORTCUTS = ("projection", "padding")
BLOCKS = ("post", "pre", "bireal")
INTO_STREAM: dict[str, Any] = {"use_norm": False, "activation": None}  # the next entry normalizes and quantizes


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average, dense.

    ``stages``: blocks per stage; from the second stage on the width doubles and the size halves.
    ``small_images``: a 3x3 stem of 16 channels instead of one of 7x7, 64 channels, and pooling.
    ``bottleneck``: 1x1, 3x3, 1x1 blocks of four times the width, the stride in the 3x3 ("v1.5").
    ``shortcut`` where shapes change: a 1x1 convolution, with batch norm in "post" blocks, or none: every other pixel,
    and channels of zeros ("padding", the paper's option A). ``block``: one of `BLOCKS`, see the module.

    Input [batch, height, width, channels], output logits [batch, num_classes]. Raises UserError for "bireal" with
    ``bottleneck``.
    """

    num_classes: int
    kit: LayerFactory
    stages: Sequence[int]
    small_images: bool = False
    bottleneck: bool = False
    width: float = 1.0
    shortcut: str = "projection"
    block: str = "post"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if self.bottleneck and self.block == "bireal":
            raise UserError("model.block=bireal: found a network of bottleneck blocks, allowed post or pre there")
        base = max(1, round((16 if self.small_images else 64) * self.width))
        y: Any = self._stem(base)(x, train)
        blocks = BOTTLENECKS if self.bottleneck else BASIC
        for stage, count in enumerate(self.stages):
            for index in range(count):
                layers = _Layers(self.kit, f"stage{stage + 1}_block{index + 1}", train, self.shortcut)
                y = blocks[self.block](layers, y, base * 2**stage, 2 if stage > 0 and index == 0 else 1)
        if self.block != "post":
            y = self.kit.exit(epsilon=1e-5, name="exit")(y, train)
        return self.kit.last(self.num_classes, (), use_bias=True, name="dense")(global_mean(y), train)

    def _stem(self, features: int) -> nn.Module:
        """The first convolution; before a stream in float its output is in float too."""
        make = partial(self.kit.first, features, epsilon=1e-5, name="stem")
        if self.small_images:
            return make((3, 3), **({} if self.block == "post" else INTO_STREAM))
        pool = partial(max_pool, window=3, stride=2, padding=((1, 1), (1, 1)))
        activation = {} if self.block == "post" else {"activation": self.kit.float_activation}
        return make((7, 7), (2, 2), ((3, 3), (3, 3)), pool=pool, **activation)


@dataclasses.dataclass(frozen=True)
class _Layers:
    """The layers of one block, whose name theirs begin with."""

    kit: LayerFactory
    block: str
    train: bool
    shortcuts: str

    def unit(self, name: str, x: Any, features: int, size: int, stride: int = 1, residual: Any = None, **fields) -> Any:
        """A convolution, padded as in the published networks."""
        padding = ((size // 2, size // 2),) * 2
        geometry = (features, (size, size), (stride, stride), padding)
        unit = self.kit.inner(*geometry, epsilon=1e-5, name=f"{self.block}_{name}", **fields)
        return unit(x, self.train, residual)

    def entry(self, name: str, x: Any) -> Any:
        return self.kit.entry(epsilon=1e-5, name=f"{self.block}_{name}")(x, self.train)

    def shortcut(self, x: Any, entered: Any, features: int, stride: int, **fields) -> Any:
        """The stream x in the shape of the block's output; a projection takes what entered the block."""
        channels = jax.tree.leaves(x)[0].shape[-1]
        if channels == features and stride == 1:
            return x
        if self.shortcuts == "projection":
            return self.unit("shortcut", entered, features, 1, stride, **{"activation": None, **fields})
        return zero_pad_shortcut(x, stride=stride, channels=features)


def _basic(layers: _Layers, x: Any, features: int, stride: int) -> Any:
    residual = layers.shortcut(x, x, features, stride)
    y = layers.unit("conv1", x, features, 3, stride)
    return layers.unit("conv2", y, features, 3, residual=residual)


def _basic_pre(layers: _Layers, x: Any, features: int, stride: int) -> Any:
    entered = layers.entry("entry", x)
    residual = layers.shortcut(x, entered, features, stride, **INTO_STREAM)
    y = layers.unit("conv1", entered, features, 3, stride)
    return layers.unit("conv2", y, features, 3, residual=residual, **INTO_STREAM)


def _bireal(layers: _Layers, x: Any, features: int, stride: int) -> Any:
    entered = layers.entry("entry1", x)
    residual = layers.shortcut(x, entered, features, stride, **INTO_STREAM)
    y = layers.unit("conv1", entered, features, 3, stride, residual=residual, **INTO_STREAM)
    return layers.unit("conv2", layers.entry("entry2", y), features, 3, residual=y, **INTO_STREAM)


def _bottleneck(layers: _Layers, x: Any, features: int, stride: int) -> Any:
    residual = layers.shortcut(x, x, 4 * features, stride)
    y = layers.unit("conv1", x, features, 1)
    y = layers.unit("conv2", y, features, 3, stride)
    return layers.unit("conv3", y, 4 * features, 1, residual=residual)


def _bottleneck_pre(layers: _Layers, x: Any, features: int, stride: int) -> Any:
    entered = layers.entry("entry", x)
    residual = layers.shortcut(x, entered, 4 * features, stride, **INTO_STREAM)
    y = layers.unit("conv1", entered, features, 1)
    y = layers.unit("conv2", y, features, 3, stride)
    return layers.unit("conv3", y, 4 * features, 1, residual=residual, **INTO_STREAM)


BASIC = {"post": _basic, "pre": _basic_pre, "bireal": _bireal}
BOTTLENECKS = {"post": _bottleneck, "pre": _bottleneck_pre}
