"""The expanded unit: a low-precision unit, a full-precision one beside it, and the factor f between them.

Everything that leaves with the ancillary branch lives in two collections of its own, ``ancillary``
(trained) and ``ancillary_stats`` (batch statistics): to remove the branch is to remove these two.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.checks import choice, shown
from plq.errors import UserError
from plq.layers.conv import QuantConv
from plq.layers.pre_activation import PreActivation
from plq.layers.unit import Unit

MERGES = ("add", "subtract", "concat")
LayerFactor = Array | float | Mapping[str, Array]  # f of all layers, or of each by its path


@flax.struct.dataclass
class Concat:
    """Two halves of one tensor along its channels: ``low`` stays, ``ancillary`` leaves with the branch.

    Kept apart because conv(concat(l, a), concat(W, V)) = conv(l, W) + conv(a, V): with a = 0 the first term
    is the pure network's to the last bit. Functions of one channel at a time (dropout, reshape) are mapped
    over both halves with ``jax.tree.map``.
    """

    low: Array
    ancillary: Array


@flax.struct.dataclass
class BranchInput:
    """One input of an expanded unit: ``low``, on the activation's grid, and ``full``, what the branch takes."""

    low: Any
    full: Any


class ConcatConv(QuantConv):
    """A `QuantConv` that also takes a `Concat`: the kernel's extra input channels are ancillary.

    They are quantized on the grid of the kept channels (their statistics and scales), so that
    removing them does not move a single kept weight.
    """

    def product(self, x: Any) -> Array:
        if not isinstance(x, Concat):
            return super().product(x)
        kernel, scales = self.kernel_and_scales(x.low.shape[-1])
        extra = self.extra_kernel(x.ancillary.shape[-1])
        statistics = self.weights.statistics(kernel)
        low = self.contract(x.low, self.weights.fake_quantize(kernel, scales, statistics))
        return low + self.contract(x.ancillary, self.weights.fake_quantize(extra, scales, statistics))

    def extra_kernel(self, channels: int) -> Array:
        shape = self.kernel_shape(channels)
        init = lambda: self.kernel_init(self.make_rng("params"), shape, jnp.float32)
        return self.variable("ancillary", "extra_kernel", init).value


class InAncillary(nn.Module):
    """Mixin: a Linen layer whose parameters and batch statistics live in the ancillary collections."""

    def param(self, *args: Any, **kwargs: Any) -> Any:
        name, init, *rest = args
        return self.variable("ancillary", name, lambda: init(self.make_rng("params"), *rest, **kwargs)).value

    def variable(self, *args: Any, **kwargs: Any) -> Any:
        collection, *rest = args
        return super().variable("ancillary_stats" if collection == "batch_stats" else collection, *rest, **kwargs)


class AncillaryConv(InAncillary, ConcatConv):
    """The paper's FPconv."""


class AncillaryNorm(InAncillary, nn.BatchNorm):
    """Batch norm of the ancillary branch."""


def checked_factor(factor: Any) -> Any:
    """f, or None. Raises UserError unless it is a scalar in [0, 1]; the value of a traced one is not known."""
    if factor is None:
        return None
    if not isinstance(factor, jax.Array | np.ndarray | np.generic | int | float) or isinstance(factor, bool):
        raise UserError(f"factor={shown(factor)}: found {type(factor).__name__}, allowed a number, 0 to 1, or None")
    if jnp.shape(factor) or jnp.result_type(factor).kind in "bc":
        found = f"found {jnp.result_type(factor).name}{list(jnp.shape(factor))}"
        raise UserError(f"factor: {found}, allowed a real scalar, 0 to 1, or None")
    if not isinstance(factor, jax.core.Tracer) and not 0 <= np.asarray(factor) <= 1:
        raise UserError(f"factor={factor}: allowed 0 to 1, or None")
    return factor


def checked_layer_factor(factor: Any) -> Any:
    """`checked_factor` of a `LayerFactor`."""
    if isinstance(factor, Mapping):
        return {path: checked_factor(own) for path, own in factor.items()}
    return checked_factor(factor)


def factor_at(factor: Any, path: str) -> Any:
    """f of the layer at this path. Raises UserError if there is none for it."""
    if not isinstance(factor, Mapping):
        return factor
    if path not in factor:
        raise UserError(f"factor: found none for the layer {path}, allowed one for each layer with a branch")
    return factor[path]


class ExpandedUnit(nn.Module):
    """y = merge(low, f * ancillary), EXP-Net's expanded layer:

        low       = Qa(pool(BN_low(conv(x, Qw(W)))))        `low`, a `Unit`, with its residual if there is one
        ancillary = pool(BN_anc(conv(x, A)))                full precision, no activation
        merge     = add | subtract | concat

    The kept variables have the names they have in the plain unit. ``factor`` is f, a scalar in [0, 1], traced
    or not. At f = 0 the output is that of ``low`` bit for bit (concat: with zeros beside it) and the ancillary
    parameters get a zero gradient. Output: an array like ``low``'s, or a `Concat` of two. ``use_norm`` False leaves
    BN_anc out. Input: an array, a `Concat`, or a `BranchInput` of them.
    """

    low: Unit
    merge: str
    factor: Array | float
    use_norm: bool = True

    def setup(self):
        choice("expansion.merge", self.merge, MERGES)
        checked_factor(self.factor)
        nn.share_scope(self, self.low)
        self.ancillary_conv = AncillaryConv(**self.low.conv_arguments())
        if self.use_norm:
            self.ancillary_norm = AncillaryNorm(momentum=self.low.momentum, epsilon=self.low.epsilon)

    def __call__(self, x: Any, train: bool, residual: Any = None) -> Any:
        fork = x if isinstance(x, BranchInput) else BranchInput(x, x)
        low = self.low(fork.low, train, residual.low if isinstance(residual, Concat) else residual)
        ancillary = jnp.asarray(self.factor, jnp.float32) * self.ancillary(fork.full, train)
        if self.merge == "concat":
            return Concat(low, ancillary)
        return low - ancillary if self.merge == "subtract" else low + ancillary

    def ancillary(self, x: Any, train: bool) -> Array:
        y = self.ancillary_conv(x)
        if self.use_norm:
            y = self.ancillary_norm(y, use_running_average=not train)
        return y if self.low.pool is None else self.low.pool(y)


class ExpandedPreActivation(nn.Module):
    """An `PreActivation` before expanded units: their branches get the stream itself, before batch norm and Qa.

    Of a `Concat` the ancillary half passes as it is. ``fork`` False: the low-precision input alone, where no unit
    with a branch follows.
    """

    low: PreActivation
    fork: bool = True

    def setup(self):
        nn.share_scope(self, self.low)

    def __call__(self, x: Any, train: bool) -> Any:
        concat = isinstance(x, Concat)
        low = Concat(self.low(x.low, train), x.ancillary) if concat else self.low(x, train)
        return BranchInput(low, x) if self.fork else low
