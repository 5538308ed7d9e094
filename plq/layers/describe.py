"""What a network consists of: its layers with shapes and bits, and the role of every variable.

Both are read off one abstract run of the network (`jax.eval_shape`): nothing is computed, and any Linen
network can be described.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from plq.layers.activation import Activation
from plq.layers.conv import QuantConv
from plq.layers.expanded import ExpandedPreActivation, ExpandedUnit
from plq.layers.pre_activation import PreActivation
from plq.layers.unit import Unit
from plq.quant.base import FLOAT_BITS, WeightQuantizer

CONVOLUTIONS = (QuantConv, nn.Conv, nn.Dense)
NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)
ROLES = ("conv", "dense", "ancillary", "norm", "bias", "quantizer")
Shapes = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One `Unit` or `PreActivation`: bits of its weights and of its output, kept and ancillary variables.

    ``bytes_deployed`` packs the kernel at ``weight_bits`` and leaves everything else in float32. ``macs`` are the
    multiply-accumulates of the kept convolution for one image.
    """

    name: str
    kind: str
    weight_bits: int
    activation_bits: int
    output_shape: tuple[int, ...]
    parameters: int
    ancillary_parameters: int
    bytes_now: int
    bytes_deployed: int
    macs: int


def _run(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[Shapes, dict[tuple, tuple[nn.Module, Any]]]:
    """Shapes of all variables, and for each module path the module and its output's shape."""
    seen: dict[tuple, list[tuple[nn.Module, Any]]] = {}

    def record(next_function, args, kwargs, context):
        output = next_function(*args, **kwargs)
        if context.method_name == "__call__":
            seen.setdefault(context.module.path, []).append((context.module, jax.tree.leaves(output)[0]))
        return output

    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
        shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    return shapes, {path: _innermost(found) for path, found in seen.items()}


def _innermost(found: list[tuple[nn.Module, Any]]) -> tuple[nn.Module, Any]:
    """An expanded unit shares its path with the plain unit inside it: the plain one describes the layer."""
    return next((item for item in found if not isinstance(item[0], (ExpandedUnit, ExpandedPreActivation))), found[0])


def variable_roles(network: nn.Module, image_shape: tuple[int, ...]) -> Shapes:
    """The role (one of `ROLES`) of every trained variable, in the shape of {"params": ..., "ancillary": ...}.

    Args:
        network: any Linen network called as ``network(images)``. image_shape: [height, width, channels].
    """
    shapes, modules = _run(network, image_shape)

    def role(path, leaf):
        collection, *module_path, name = (key.key for key in path)
        module = modules.get(tuple(module_path), (None, None))[0]
        return _role(module, collection, name, leaf.ndim)

    trained = {name: shapes[name] for name in ("params", "ancillary") if name in shapes}
    return jax.tree_util.tree_map_with_path(role, trained)


def _role(module: nn.Module | None, collection: str, name: str, ndim: int) -> str:
    if isinstance(module, NORMS):
        return "norm"
    if name == "bias":
        return "bias"
    if collection == "ancillary":
        return "ancillary"
    if isinstance(module, Activation) or (isinstance(module, CONVOLUTIONS) and name != "kernel"):
        return "quantizer"
    if isinstance(module, QuantConv):
        return "conv" if module.kernel_size else "dense"
    return "conv" if ndim > 2 else "dense"


def quantized_layers(network: nn.Module, image_shape: tuple[int, ...]) -> dict[str, WeightQuantizer]:
    """The weight quantizer of every `QuantConv`, by the path of its variables ("stem/conv")."""
    modules = _run(network, image_shape)[1]
    return {"/".join(path): m.weights for path, (m, _) in modules.items() if isinstance(m, QuantConv)}


def expanded_layers(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the units that have a branch, in the order in which data passes them."""
    shapes, modules = _run(network, image_shape)
    kernels = {key[1:-2] for key in flatten_dict(shapes) if key[0] == "ancillary" and key[-2] == "ancillary_conv"}
    return tuple("/".join(path) for path in modules if path in kernels)


def layer_table(network: nn.Module, image_shape: tuple[int, ...]) -> list[Layer]:
    """One row per `Unit` or `PreActivation` of the network, in the order in which data passes them."""
    shapes, modules = _run(network, image_shape)
    layers = [path for path, (module, _) in modules.items() if isinstance(module, (Unit, PreActivation))]
    return [_row(path, modules, flatten_dict(shapes)) for path in layers]


def _row(path: tuple, modules: dict[tuple, tuple[Any, Any]], variables: dict[tuple, Any]) -> Layer:
    layer, output = modules[path]
    own = {key: leaf for key, leaf in variables.items() if key[1 : 1 + len(path)] == path}
    count = lambda *collections: sum(int(np.prod(leaf.shape)) for key, leaf in own.items() if key[0] in collections)
    conv = modules.get((*path, "conv"))
    kernel = int(np.prod(variables[("params", *path, "conv", "kernel")].shape)) if conv else 0
    kept, everything = count("params", "batch_stats"), sum(int(np.prod(leaf.shape)) for leaf in own.values())
    weight_bits = layer.weights.bits if conv else FLOAT_BITS
    return Layer(
        name="/".join(path),
        kind=_kind(layer),
        weight_bits=weight_bits,
        activation_bits=getattr(layer.activation, "bits", FLOAT_BITS),
        output_shape=output.shape[1:],
        parameters=count("params"),
        ancillary_parameters=count("ancillary"),
        bytes_now=4 * everything,
        bytes_deployed=-(-kernel * weight_bits // 8) + 4 * (kept - kernel),
        macs=kernel * int(np.prod(conv[1].shape[1:-1])) if conv else 0,
    )


def _kind(layer: Unit | PreActivation) -> str:
    if isinstance(layer, PreActivation):
        return "entry"
    if not layer.kernel_size:
        return "dense"
    size = "x".join(map(str, layer.kernel_size))
    return f"conv {size}" + (f" /{layer.groups}" if layer.groups > 1 else "")
