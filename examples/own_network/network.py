"""A small residual network for digits as anyone might write it: plain Flax, without a word about bits."""

import flax.linen as nn
import jax.numpy as jnp


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole image says about it."""

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        scale = nn.relu(nn.Dense(channels // 4, name="squeeze")(x.mean((1, 2))))
        return x * nn.sigmoid(nn.Dense(channels, name="excite")(scale))[:, None, None]


class Block(nn.Module):
    """A depthwise, a grouped and a dilated convolution around a shortcut."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train):
        norm = lambda: nn.BatchNorm(use_running_average=not train, momentum=0.9)
        depthwise = nn.Conv(x.shape[-1], (3, 3), self.stride, feature_group_count=x.shape[-1], use_bias=False)
        y = nn.relu(norm()(depthwise(x)))
        y = nn.relu(norm()(nn.Conv(self.channels, (3, 3), feature_group_count=2, use_bias=False)(y)))
        y = norm()(nn.Conv(self.channels, (3, 3), kernel_dilation=2, use_bias=False)(y))
        y = SqueezeExcite()(y)
        if x.shape != y.shape:
            x = norm()(nn.Conv(self.channels, (1, 1), self.stride, use_bias=False, name="shortcut")(x))
        return nn.relu(x + y)


class Digits(nn.Module):
    """Images [batch, 8, 8, 1] with values from 0 to 1 to logits [batch, 10]."""

    @nn.compact
    def __call__(self, images, train=False):
        norm = lambda: nn.BatchNorm(use_running_average=not train, momentum=0.9)
        x = nn.relu(norm()(nn.Conv(16, (3, 3), name="stem")(images)))
        for channels, stride in ((16, 1), (32, 2)):
            x = Block(channels, stride)(x, train)
        rows = nn.relu(norm()(nn.Conv(16, (3,), name="rows")(images[..., 0])))  # each image as eight rows
        return nn.Dense(10, name="head")(jnp.concatenate([x.mean((1, 2)), rows.mean(1)], axis=-1))
