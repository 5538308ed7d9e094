"""A small residual network with squeeze-and-excitation, as anyone might write it, in plain Flax."""

from collections.abc import Sequence

import flax.linen as nn


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole image says about it (Hu et al., arXiv 1709.01507)."""

    ratio: int = 4

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        scale = nn.relu(nn.Dense(channels // self.ratio, name="squeeze")(x.mean((1, 2))))
        return x * nn.sigmoid(nn.Dense(channels, name="excite")(scale))[:, None, None]


class Block(nn.Module):
    """Two convolutions and a gate around a shortcut."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train):
        norm = lambda name: nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)
        conv = lambda size, stride, name: nn.Conv(self.channels, (size, size), stride, use_bias=False, name=name)
        y = nn.relu(norm("norm1")(conv(3, self.stride, "conv1")(x)))
        y = norm("norm2")(conv(3, 1, "conv2")(y))
        y = SqueezeExcite(name="gate")(y)
        if x.shape != y.shape:
            x = norm("norm3")(conv(1, self.stride, "shortcut")(x))
        return nn.relu(x + y)


class SEResNet(nn.Module):
    """Images [batch, height, width, channels] to logits [batch, num_classes]."""

    num_classes: int
    widths: Sequence[int] = (16, 32)

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(self.widths[0], (3, 3), use_bias=False, name="stem")(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x))
        for place, width in enumerate(self.widths):
            x = Block(width, stride=2 if place else 1, name=f"block{place + 1}")(x, train)
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))
