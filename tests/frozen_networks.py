"""Networks as people write them, in plain Flax: images [batch, 12, 10, 3] in, five classes or a map of three out."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def norm(train):
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(norm(train)(nn.Conv(8, (3, 3), use_bias=False)(x)))
        y = nn.relu(norm(train)(nn.Conv(16, (3, 3), (2, 2))(x)))
        y = norm(train)(nn.Conv(16, (3, 3))(y))
        x = nn.relu(y + norm(train)(nn.Conv(16, (1, 1), (2, 2))(x)))
        return nn.Dense(5)(nn.Dropout(0.2, deterministic=not train)(x.mean((1, 2))))


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3))(x)
        for _ in range(2):
            x = jnp.concatenate([x, nn.Conv(4, (3, 3))(nn.relu(norm(train)(x)))], -1)
        x = nn.avg_pool(nn.relu(norm(train)(x)), (2, 2), (2, 2))
        return nn.Dense(5)(x.reshape((x.shape[0], -1)))


class SqueezeExcite(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.silu(norm(train)(nn.Conv(8, (3, 3))(x)))
        s = nn.sigmoid(nn.Dense(8)(nn.hard_swish(nn.Dense(4)(x.mean((1, 2))))))
        x = x * s[:, None, None, :]
        return nn.log_softmax(nn.Dense(5)(nn.gelu(x.mean((1, 2)))))


class InvertedResidual(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = jax.nn.relu6(norm(train)(nn.Conv(8, (3, 3), (2, 2))(x)))
        y = jax.nn.relu6(norm(train)(nn.Conv(16, (1, 1))(x)))
        y = jax.nn.relu6(norm(train)(nn.Conv(16, (3, 3), feature_group_count=16)(y)))
        x = x + norm(train)(nn.Conv(8, (1, 1))(y))
        return nn.Dense(5)(jax.nn.hard_sigmoid(x).max((1, 2)))


class GroupNorms(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.leaky_relu(nn.GroupNorm(num_groups=2)(nn.Conv(8, (3, 3))(x)))
        x = nn.elu(nn.LayerNorm()(nn.Conv(8, (3, 3), padding="VALID")(x)))
        x = nn.max_pool(x, (3, 2), (2, 1), "SAME")
        return nn.Dense(5)(nn.gelu(nn.tanh(x), approximate=False).mean((1, 2)))


class Segmentation(nn.Module):
    """A class for every pixel."""

    @nn.compact
    def __call__(self, x, train=False):
        a = nn.relu(norm(train)(nn.Conv(8, (3, 3))(x)))
        b = nn.relu(norm(train)(nn.Conv(16, (3, 3), (2, 2))(a)))
        c = nn.ConvTranspose(8, (3, 3), (2, 2))(b)
        size = (b.shape[0], *a.shape[1:3], 16)
        d, e = jax.image.resize(b, size, "bilinear"), jax.image.resize(b, size, "nearest")
        return nn.Conv(3, (1, 1))(jnp.concatenate([a, c, d, e], -1))


class OneAxis(nn.Module):
    """Rows of one channel as sequences."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(norm(train)(nn.Conv(8, (3,))(x[..., 0])))
        x = nn.max_pool(x, (2,), (2,))
        x = nn.relu(norm(train)(nn.Conv(8, (3,), kernel_dilation=2)(x)))
        return nn.Dense(5)(x.mean(1))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (2, 2), (2, 2))(x)
        x = x.reshape(x.shape[0], -1, 8)
        x = x + self.param("position", nn.initializers.normal(0.1), (1, x.shape[1], 8))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(5)(x.mean(1))


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.relu(nn.Conv(8, (3, 3))(x)), None


class Scanned(nn.Module):
    """Layers in a scan, and one that is rematerialized."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        axes = {"params": 0, "ancillary": 0, "ancillary_stats": 0}
        x, _ = nn.scan(Step, variable_axes=axes, split_rngs={"params": True}, length=2)()(x, None)
        return nn.Dense(5)(nn.remat(nn.Conv)(8, (3, 3))(x).mean((1, 2)))


class TwoHeads(nn.Module):
    """A class of the image, and a map."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(norm(train)(nn.Conv(8, (3, 3))(x)))
        return {"class": nn.Dense(5)(x.mean((1, 2))), "map": nn.Conv(2, (3, 3), (2, 2))(x)}


NETWORKS = (
    Residual, DenseNet, SqueezeExcite, InvertedResidual, GroupNorms, Segmentation, OneAxis, Attention, Scanned,
)  # fmt: skip
