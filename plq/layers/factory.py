"""The layers that a network is built from, injected so that each network is written once."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from plq.checks import choice, require_types
from plq.errors import UserError
from plq.layers.config_rules import stated_rules
from plq.layers.expanded import (
    MERGES,
    ConcatConv,
    ExpandedPreActivation,
    ExpandedUnit,
    LayerFactor,
    checked_layer_factor,
    factor_at,
)
from plq.layers.pre_activation import PreActivation
from plq.layers.unit import Unit
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, WeightQuantizer
from plq.quant.registry import activation_quantizer, options_of, weight_quantizer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class QuantConfig:
    """Bits and quantizers of a network, as plain values: what the config says and a model file stores.

    The first convolution and the last dense layer have bits of their own and are never expanded. Their weights are
    quantized by LSQ, whatever the inner ones are: it has every number of bits, and it leaves the magnitude of a kernel
    as it is, which matters where no batch norm follows. ``granularity``: of learned weight scales; empty takes the
    quantizer's usual one.
    """

    weights: str = "dorefa"  # quantizer of the inner layers' weights: dorefa, xnor, syq, lsq, apot, sawb
    weight_bits: int = 1  # of the inner layers' weights; 32: float
    activations: str = "clip"  # quantizer of activations: abs, clip, relu (float only), pact, lsq, lsq_plus, apot
    activation_bits: int = 2  # of all activations; 32: float
    gradient_bits: int = FLOAT_BITS  # of the inner layers' gradients (DoReFa), 1 to 31; 32: float
    first_bits: int = FLOAT_BITS  # of the first convolution's weights, 1 to 8 (LSQ); 32: float
    last_bits: int = FLOAT_BITS  # of the last dense layer's weights, 1 to 8 (LSQ); 32: float
    granularity: str = ""  # of weight scales; lsq: layer, channel; syq: position, row, layer; empty: the first of these
    eta: float = 0.05  # syq at 2 bits: a weight below this share of the largest magnitude becomes 0
    dtype: str = "float32"  # in which layers compute: float32, bfloat16
    rules: tuple[dict, ...] = dataclasses.field(default=(), hash=False)  # of one's own network; see docs/own_network.md

    def weight_quantizer(self) -> WeightQuantizer:
        """The inner layers' weight quantizer. Raises UserError, as all of this class does."""
        return weight_quantizer(self.weights, self.weight_bits, **self._options())

    def edge_quantizer(self, bits: int) -> WeightQuantizer:
        """The weight quantizer of the first or the last layer."""
        return weight_quantizer("lsq", bits, **(self._options() if self.weights == "lsq" else {}))

    def _options(self) -> dict[str, Any]:
        given = {"granularity": self.granularity, "eta": self.eta}
        return {name: given[name] for name in options_of(self.weights) if given[name] != ""}

    def has_granularity(self) -> bool:
        """Whether some layer's weights have scales of a granularity to choose."""
        layers = (self.weight_bits, *((self.first_bits, self.last_bits) if self.weights == "lsq" else ()))
        return "granularity" in options_of(self.weights) and min(layers) < FLOAT_BITS

    def activation(self, bits: int | None = None) -> ActivationQuantizer:
        """The activation at ``activation_bits``, or at ``bits``."""
        return activation_quantizer(self.activations, self.activation_bits if bits is None else bits)

    def check(self) -> None:
        """Raise UserError unless every field has its type and is legal, alone and together."""
        require_types("quant", self)
        self.weight_quantizer()
        self.activation()
        for field in ("first_bits", "last_bits"):
            bits = getattr(self, field)
            if bits not in (*range(1, 9), FLOAT_BITS):
                raise UserError(f"quant.{field}={bits}: found {bits}, allowed 1 to 8, or 32 for float")
        if not 1 <= self.gradient_bits <= FLOAT_BITS:
            raise UserError(f"quant.gradient_bits={self.gradient_bits}: allowed 1 to 31, or 32 for float")
        choice("quant.dtype", self.dtype, DTYPES)
        stated_rules(self.rules, self)


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """What a network gets: makers of its units, and the activation left in float.

    ``first``, ``inner``, ``unexpanded`` (inner, never with a branch) and ``last`` take the fields of `Unit`
    (features, kernel_size, ...) and a ``name``. ``entry`` and ``exit`` take those of `PreActivation` and a ``name``:
    between a stream in float and ``inner`` units, and at its end with the float activation.
    """

    first: Callable[..., nn.Module]
    inner: Callable[..., nn.Module]
    unexpanded: Callable[..., nn.Module]
    last: Callable[..., nn.Module]
    entry: Callable[..., nn.Module]
    exit: Callable[..., nn.Module]
    float_activation: ActivationQuantizer


def plain_factory(precision: QuantConfig) -> LayerFactory:
    """Low-precision layers and nothing beside them: the network that is served."""
    precision.check()
    unit = partial(Unit, dtype=DTYPES[precision.dtype], activation=precision.activation())
    inner = partial(unit, weights=precision.weight_quantizer(), gradient_bits=precision.gradient_bits)
    return LayerFactory(
        first=partial(unit, weights=precision.edge_quantizer(precision.first_bits)),
        inner=inner,
        unexpanded=inner,
        last=partial(unit, weights=precision.edge_quantizer(precision.last_bits), use_norm=False, activation=None),
        entry=partial(PreActivation, activation=precision.activation()),
        exit=partial(PreActivation, activation=precision.activation(FLOAT_BITS)),
        float_activation=precision.activation(FLOAT_BITS),
    )


def expanded_factory(precision: QuantConfig, merge: str, factor: LayerFactor, norm: bool = True) -> LayerFactory:
    """The same layers with an ancillary branch beside each inner one, scaled by ``factor`` (EXP-Net).

    A mapping gives each layer a factor of its own, by its name. ``norm``: whether branches have a batch norm.
    """
    choice("expansion.merge", merge, MERGES)
    checked_layer_factor(factor)
    plain = plain_factory(precision)

    def inner(*args, name: str, **kwargs) -> ExpandedUnit:
        low: Any = plain.inner(*args, conv=ConcatConv, parent=None, **kwargs)
        return ExpandedUnit(low, merge, factor_at(factor, name), norm, name=name)

    def entry(make: Callable[..., Any], fork: bool, *, name: str, **kwargs: Any) -> ExpandedPreActivation:
        return ExpandedPreActivation(make(parent=None, **kwargs), fork, name=name)

    return dataclasses.replace(
        plain,
        inner=inner,
        unexpanded=partial(plain.unexpanded, conv=ConcatConv),
        last=partial(plain.last, conv=ConcatConv),
        entry=partial(entry, plain.entry, True),
        exit=partial(entry, plain.exit, False),
    )
