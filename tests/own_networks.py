"""Networks as other people write them: plain Flax, without a word about bits."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class SqueezeExcite(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = nn.relu(nn.Dense(2, name="squeeze")(x.mean((1, 2))))
        return x * nn.sigmoid(nn.Dense(x.shape[-1], name="excite")(scale))[:, None, None]


class Residual(nn.Module):
    """Batch norm, dropout, a shortcut, squeeze-and-excitation, and an argument that has no default."""

    num_classes: int
    channels: tuple[int, ...] = (4, 6)
    dropout: float = 0.2
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x, train: bool):
        norm = lambda: nn.BatchNorm(not train, momentum=0.9)
        x = self.activation(norm()(nn.Conv(4, (3, 3), name="stem")(x)))
        for place, channels in enumerate(self.channels):
            y = norm()(nn.Conv(channels, (3, 3), 1 + place, use_bias=False, name=f"conv{place}")(x))
            y = SqueezeExcite(name=f"gate{place}")(self.activation(y))
            x = y if x.shape != y.shape else x + y
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes, name="head")(x)


Narrow = partial(Residual, channels=(2,))


class Bare(nn.Module):
    """No argument, no batch norm, and a name of its own for the number of classes."""

    classes: int = 1000

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv0")(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class _Told(nn.Module):
    """Gives 1 in each logit in training, 0 in evaluation, as batch norm and dropout are told."""

    def logits(self, x, train):
        x = nn.Conv(10, (3, 3), name="conv")(x).mean((1, 2))
        return nn.Dense(10, name="head")(x) * 0 + float(train)


class Train(_Told):
    @nn.compact
    def __call__(self, x, train=False):
        return self.logits(x, train)


class Training(_Told):
    @nn.compact
    def __call__(self, x, *, training):
        return self.logits(x, training)


class Deterministic(_Told):
    @nn.compact
    def __call__(self, inputs, deterministic: bool = True):
        return self.logits(inputs, not deterministic)


class UseRunningAverage(_Told):
    @nn.compact
    def __call__(self, x, use_running_average):
        return self.logits(x, not use_running_average)


class IsTraining(_Told):
    @nn.compact
    def __call__(self, x, is_training):
        return self.logits(x, is_training)


class Counting(nn.Module):
    """A collection of its own, and random numbers under a name of their own."""

    @nn.compact
    def __call__(self, x, train=False):
        count = self.variable("counter", "steps", lambda: jnp.zeros((), jnp.int32))
        if train:
            count.value = count.value + 1
            x = x + 0.01 * jax.random.normal(self.make_rng("noise"), x.shape)
        x = nn.relu(nn.Conv(4, (3, 3), name="conv0")(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


class Sowing(nn.Module):
    """A collection that grows with each step."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        self.sow("penalties", "size", jnp.abs(x).mean())
        return nn.Dense(10)(x.mean((1, 2)))


class AlwaysWriting(nn.Module):
    """A collection that is written to in evaluation."""

    @nn.compact
    def __call__(self, x):
        self.variable("memory", "last", jnp.zeros, ()).value = x.mean()
        return nn.Dense(10)(nn.Conv(4, (3, 3))(x).mean((1, 2)))


class Maps(nn.Module):
    """A map of logits for each image."""

    @nn.compact
    def __call__(self, x):
        return nn.Conv(10, (1, 1))(x)


class Pair(nn.Module):
    """Logits, and something else."""

    @nn.compact
    def __call__(self, x):
        return {"logits": nn.Dense(10)(x.mean((1, 2))), "loss": x.mean()}


class Labelled(nn.Module):
    @nn.compact
    def __call__(self, x, labels):
        return nn.Dense(10)(x.mean((1, 2))) + labels


class Fixed(nn.Module):
    """Told by a field, which a training cannot change."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.BatchNorm(not self.train)(x).mean((1, 2)))


class Uncalled(nn.Module):
    def encode(self, x):
        return x


class Broken(nn.Module):
    @nn.compact
    def __call__(self, x):
        raise RuntimeError("two\nlines")


class Mathematics(nn.Module):
    """Nothing that has a counterpart in low precision."""

    @nn.compact
    def __call__(self, x):
        return x.mean((1, 2)) * self.param("scale", nn.initializers.ones, (10,))


class Wanting(nn.Module):
    """A field that has no default and is not the number of classes."""

    features: int
    depth: int = 1

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.Conv(self.features, (3, 3))(x).mean((1, 2)))


class Half(nn.Module):
    """Parameters and products in bfloat16."""

    @nn.compact
    def __call__(self, x):
        conv = partial(nn.Conv, 4, (3, 3), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
        x = nn.relu(conv(name="conv1")(nn.relu(conv(name="conv0")(x))))
        return nn.Dense(10, dtype=jnp.bfloat16, name="head")(x.mean((1, 2)))


class Twice(nn.Module):
    """A layer that is called twice, and one inside a transformation of Flax."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        shared = nn.Conv(4, (3, 3), name="shared")
        x = nn.relu(shared(nn.relu(shared(x))))
        x = nn.relu(nn.WeightNorm(nn.Conv(4, (3, 3), name="wrapped"))(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


NOT_A_CLASS = 3
