"""ResNet-20 and -18 as plq has them, with plain Flax layers for qwix and with PyTorch's or brevitas's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

STAGES = {"resnet20": (3, 3, 3), "resnet18": (2, 2, 2, 2)}
BASE = {"resnet20": 16, "resnet18": 64}


class FlaxResNet(nn.Module):
    """Images [batch, height, width, channels] to logits; the layers between "stem" and "dense" are called "unit*"."""

    name_of: str
    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        norm = lambda: nn.BatchNorm(use_running_average=not train, momentum=0.9)
        base, number = BASE[self.name_of], iter(range(99))

        def unit(x, channels, size, stride=1):
            around, name = ((size // 2, size // 2),) * 2, f"unit{next(number)}"
            conv = nn.Conv(channels, (size, size), (stride, stride), around, use_bias=False, name=name)
            return norm()(conv(x))

        if self.name_of == "resnet20":
            x = nn.relu(norm()(nn.Conv(base, (3, 3), use_bias=False, name="stem")(x)))
        else:
            x = norm()(nn.Conv(base, (7, 7), (2, 2), ((3, 3), (3, 3)), use_bias=False, name="stem")(x))
            x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(STAGES[self.name_of]):
            for block in range(blocks):
                channels, stride = base * 2**stage, 2 if stage and not block else 1
                shortcut = x if stride == 1 else unit(x, channels, 1, stride)
                y = nn.relu(unit(x, channels, 3, stride))
                x = nn.relu(unit(y, channels, 3) + shortcut)
        return nn.Dense(self.num_classes, name="dense")(jnp.mean(x, (1, 2)))


def torch_resnet(name: str, num_classes: int, conv: Callable[..., Any] | None, relu: Callable[[], Any] | None) -> Any:
    """The same in PyTorch, images [batch, channels, height, width]. ``conv`` and ``relu`` make the inner layers."""
    import torch
    from torch import nn as tnn

    conv, relu = conv or partial(tnn.Conv2d, bias=False), relu or tnn.ReLU
    base = BASE[name]
    unit = lambda before, channels, size, stride: tnn.Sequential(
        conv(before, channels, size, stride=stride, padding=size // 2), tnn.BatchNorm2d(channels)
    )

    class Block(tnn.Module):
        def __init__(self, before: int, channels: int, stride: int):
            super().__init__()
            self.first, self.second = unit(before, channels, 3, stride), unit(channels, channels, 3, 1)
            self.shortcut = tnn.Identity() if stride == 1 else unit(before, channels, 1, stride)
            self.middle, self.last = relu(), relu()

        def forward(self, x):
            return self.last(self.second(self.middle(self.first(x))) + self.shortcut(x))

    small = name == "resnet20"
    stem = tnn.Conv2d(3, base, 3 if small else 7, stride=1 if small else 2, padding=1 if small else 3, bias=False)
    layers: list[Any] = [stem, tnn.BatchNorm2d(base)]
    layers += [relu()] if small else [tnn.MaxPool2d(3, 2, 1), relu()]
    before = base
    for stage, blocks in enumerate(STAGES[name]):
        for block in range(blocks):
            channels = base * 2**stage
            layers.append(Block(before, channels, 2 if stage and not block else 1))
            before = channels
    layers += [tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Linear(before, num_classes)]
    return tnn.Sequential(*layers).to(memory_format=torch.channels_last)
