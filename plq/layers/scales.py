"""Learned scales as parameters of the layer that quantizes, and the stage that sets them from what is there."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plq.checks import instance
from plq.layers.nnx_kind import is_nnx
from plq.layers.opaque import step
from plq.layers.variables import as_dicts, merged
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, Scales, WeightQuantizer

# Collections that are mutable in a calibration alone: each layer writes the scales that it finds into its own.
ACTIVATIONS, KERNELS = "calibrated_activations", "calibrated_kernels"


def activation_scales(layer: nn.Module, quantizer: ActivationQuantizer, x: Array) -> Scales:
    """The learned scales of a layer that quantizes activations x; none at 32 bits."""
    names = () if quantizer.bits == FLOAT_BITS else quantizer.scale_names
    found = lambda: quantizer.calibrate_scales(x.astype(jnp.float32))
    return _scales(layer, names, quantizer.initial_scales, found, ACTIVATIONS, not x.size)


def weight_scales(layer: nn.Module, quantizer: WeightQuantizer, kernel: Array) -> Scales:
    """The learned scales of a layer that quantizes this kernel."""
    kernel = kernel.astype(jnp.float32)
    initial, found = (partial(f, kernel) for f in (quantizer.initial_scales, quantizer.calibrate_scales))
    return _scales(layer, quantizer.scale_names, initial, found, KERNELS)


def quantized_kernel(layer: nn.Module, quantizer: WeightQuantizer, kernel: Array) -> Array:
    """Qw(kernel), float32, with the learned scales of the layer that quantizes it."""
    scales = weight_scales(layer, quantizer, kernel)
    return step("kernel", "/".join(layer.path), quantizer, quantizer.fake_quantize, kernel, scales)


def _scales(
    layer: nn.Module,
    names: tuple[str, ...],
    initial: Callable[[], Scales],
    found: Callable[[], Scales],
    stage: str,
    empty: bool = False,
) -> Scales:
    """``empty``: there is nothing from which scales could be found; they stay."""
    scales = {name: layer.variable("params", name, lambda name: initial()[name], name).value for name in names}
    if not names or empty or layer.is_initializing() or not layer.is_mutable_collection(stage):
        return scales
    scales = found()
    for name, value in scales.items():
        layer.put_variable(stage, name, value)
    return scales


def calibrate(network: Any, variables: Any, *args: Any, kernels: bool = False, **kwargs: Any) -> Any:
    """The variables with the learned scales of all activations set from data, layer after layer in one pass.

    Each `plq.layers.activation.Activation` sets its scales to fit what it gets and quantizes with them, so that the
    next layer sees what it will see in training. Nothing else changes, batch statistics included.

    Args:
        network: any Linen network; or an `nnx.Module`, which is called with ``variables, *args, **kwargs``, and of
            which a calibrated copy is given.
        args, kwargs: what it is called with; pass ``train=True`` (or what means it) where the batch statistics are
            still those of the initialization.
        variables: any Mapping; a dict is given back.
        kernels: set the learned scales of the weights too, from the kernels: after float weights were put in.
    Raises UserError for what is no network or no Mapping.
    """
    if is_nnx(network):
        from plq.layers.nnx_layers import calibrate_module

        return calibrate_module(network, variables, *args, kernels=kernels, **kwargs)
    instance("network", network, nn.Module, "a flax.linen.Module or a flax.nnx.Module")
    instance("variables", variables, Mapping, "a Mapping of collections")
    stages = [ACTIVATIONS, KERNELS] if kernels else [ACTIVATIONS]
    mutable = stages + [name for name in variables if name not in ("params", "ancillary")]
    variables = as_dicts(variables)
    _, changed = network.apply(variables, *args, mutable=mutable, **kwargs)
    params = variables.get("params", {})
    for stage in stages:
        params = merged(params, changed.get(stage, {}))
    return {**variables, "params": params}
