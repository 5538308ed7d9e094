"""Low-precision `Conv` and `Dense` in the places of flax.linen's: same fields, same parameters, same names.

A network that takes its layers as arguments gets them so, and keeps its variables where they are:

    fields = Rule("*", 2, 2).fields                                 # see `plq.layers.convert`; or name them yourself
    expanded = Network(conv=partial(Conv, **fields(factor)))        # train, f from 1 to 0
    served = Network(conv=partial(Conv, **fields()))                # the same variables after `plq.prune`
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import Scope
from jax import Array

from plq.errors import UserError
from plq.layers.activation import Activation
from plq.layers.conv import default_kernel_init
from plq.layers.depthwise import convolve
from plq.layers.expanded import AncillaryNorm, InAncillary, checked_factor
from plq.layers.scales import quantized_kernel
from plq.layers.unit import Unit
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, FloatWeights, WeightQuantizer

OWN_FIELDS = ("weights", "activation", "factor", "axis_name", "axis_index_groups", "home")
LIFT = "variable_axes={'ancillary': 0, 'ancillary_stats': 0}"


class LowPrecision(nn.Module):
    """What a Linen layer needs to become this one, beside its own fields:

        y = layer(Qa(x), Qw(kernel)) + bias                        factor None: the network that is served
        y = layer(Qa(x), Qw(kernel)) + bias + f * BN_anc(layer(x, A))     the expanded layer

    ``weights`` is Qw, ``activation`` is Qa (None: x as it is) and ``factor`` is f, a scalar in [0, 1], traced
    or not. At f = 0 both are equal bit for bit. A and the variables of BN_anc live in the collections ``ancillary``
    and ``ancillary_stats``. BN_anc uses the batch's statistics, and updates its own, when ``ancillary_stats``
    is mutable: train with ``mutable=["batch_stats", "ancillary_stats"]``. Where ``batch_stats`` alone is
    mutable a UserError is raised.

    This is not the paper's unit (`plq.layers.expanded`). There Qa comes last, after batch norm, pooling and merge:
    low and ancillary are added behind the norm of each, and the sum is not quantized. Here Qa acts on the input, so
    that the layer stands alone, and the merge is before whatever norm follows: that norm sees both branches, and
    the next layer's Qa quantizes their sum. A and the branch get x itself, before Qa.

    ``axis_name`` and ``axis_index_groups`` are those of `nn.BatchNorm`, for BN_anc. ``home``: a scope for everything
    but the Linen layer's own parameters; None: that of the layer.

    Qa has no values below 0 (but for "lsq_plus"): feed it what comes out of a ReLU. Where the kernel is quantized it
    is so in float32; the product runs in the types that the Linen layer would use, and so does the branch's.
    """

    weights: WeightQuantizer = FloatWeights(FLOAT_BITS)
    activation: ActivationQuantizer | None = None
    factor: Array | float | None = None
    axis_name: Any = None
    axis_index_groups: Any = None
    home: Scope | None = None

    def __post_init__(self):
        self.factor = checked_factor(self.factor)
        super().__post_init__()

    def param(self, *args: Any, **kwargs: Any) -> Any:
        """The parameter; of ``kernel`` the quantized values, in the parameter's own type."""
        value = super().param(*args, **kwargs)
        if args[0] != "kernel" or self.weights.bits == FLOAT_BITS:
            return value
        home: Any = self.home
        kernel = Scales(self.weights, parent=home)(value) if home else quantized_kernel(self, self.weights, value)
        return kernel.astype(value.dtype)

    def quantized_input(self, x: Any) -> Array:
        """Qa(x): x's own type if that is a float, else float32."""
        x = jnp.asarray(x)
        if self.activation is None:
            return x
        y = Activation(self.activation, **self._place("act"))(x)
        return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else y

    def merged(self, low: Array, x: Any, branch: type[nn.Module]) -> Array:
        """low + f * BN_anc(branch(x)), or ``low`` without a factor."""
        if self.factor is None:
            return low
        return low + (self.factor * self.ancillary(x, branch)).astype(low.dtype)

    def ancillary(self, x: Any, branch: type[nn.Module]) -> Array:
        """BN_anc(branch(x)), without the factor."""
        training = self._trains_branch()
        fields = {**layer_fields(self), "use_bias": False, "kernel_init": default_kernel_init}
        layer: Any = branch(**fields, **self._place("ancillary_conv"))
        axes = {"axis_name": self.axis_name, "axis_index_groups": self.axis_index_groups}
        config = {"momentum": Unit.momentum, "epsilon": Unit.epsilon, **axes}
        norm = AncillaryNorm(**config, **self._place("ancillary_norm"))
        return norm(layer(x), use_running_average=not training)

    def _place(self, name: str) -> dict[str, Any]:
        """The fields that make a module with this name a child of the layer, or of its ``home``."""
        return {"name": name} if self.home is None else {"parent": self.home.push(name, reuse=True)}

    def _trains_branch(self) -> bool:
        """Whether BN_anc uses the statistics of the batch. Raises UserError where the branch cannot run as asked."""
        scope, where = self.home or self.scope, "/".join(self.path) or "the layer"
        assert scope is not None
        training = scope.is_mutable_collection("ancillary_stats")
        there = scope.has_variable("ancillary", "ancillary_conv")
        if not there and not (training and scope.is_mutable_collection("ancillary")):
            found = "has a branch, found no collections 'ancillary' and 'ancillary_stats' for it"
            raise UserError(f"{where}: {found}; name them in nn.scan or nn.vmap, {LIFT}, and in a mutable of init")
        if scope.is_mutable_collection("batch_stats") and not training:
            found = "found 'batch_stats' without 'ancillary_stats', allowed both (training) or neither"
            raise UserError(f"mutable: {found} while {where} has a branch")
        return training


class Scales(nn.Module):
    """Qw(kernel), float32, with the learned scales of the kernel in the scope of this module."""

    weights: WeightQuantizer

    @nn.compact
    def __call__(self, kernel: Array) -> Array:
        return quantized_kernel(self, self.weights, kernel)


def layer_fields(layer: nn.Module) -> dict[str, Any]:
    """The fields of a Linen layer that a copy of it needs, without those that `LowPrecision` adds."""
    names = [field.name for field in dataclasses.fields(layer) if field.init]
    return {name: getattr(layer, name) for name in names if name not in ("parent", "name", *OWN_FIELDS)}


class _AncillaryConv(InAncillary, nn.Conv):
    """The branch of `Conv`."""


class _AncillaryDense(InAncillary, nn.Dense):
    """The branch of `Dense`."""


class Conv(LowPrecision, nn.Conv):
    """`nn.Conv` in low precision, with a branch beside it if there is a ``factor``; see `LowPrecision`.

    Input [*batch, *spatial, in], output [*batch, *spatial', features], for any number of spatial axes, strides,
    paddings, ``kernel_dilation`` and groups of `nn.Conv`. Raises UserError for an ``input_dilation``. On processors
    quantized depthwise ones are faster than Linen's, unless ``conv_general_dilated`` says how to convolve.
    """

    def __post_init__(self):
        quantized = self.weights.bits != FLOAT_BITS or self.activation is not None
        if quantized and self.conv_general_dilated is None:
            self.conv_general_dilated = convolve
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        if self.input_dilation not in (None, 1) and set(_sequence(self.input_dilation)) != {1}:
            where = "/".join(self.path) or "the layer"
            raise UserError(f"input_dilation of {where}: found {self.input_dilation}, allowed 1 in low precision")
        low = super().__call__(self.quantized_input(inputs))
        return self.merged(low, inputs, _AncillaryConv)


class Dense(LowPrecision, nn.Dense):
    """`nn.Dense` in low precision, with a branch beside it if there is a ``factor``; see `LowPrecision`.

    Input [*batch, in], output [*batch, features].
    """

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        low = super().__call__(self.quantized_input(inputs))
        return self.merged(low, inputs, _AncillaryDense)


def _sequence(value: Any) -> tuple:
    return (value,) if isinstance(value, int) else tuple(value or ())
