"""What a network consists of: its layers with shapes and bits, and the role of every variable.

Both are read off one abstract run of the network (`jax.eval_shape`): nothing is computed, and any Linen
network can be described.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from plq.layers.activation import Activation
from plq.layers.conv import QuantConv
from plq.layers.convert import LISTED
from plq.layers.dropin import LowPrecision, Scales
from plq.layers.expanded import ExpandedPreActivation, ExpandedUnit
from plq.layers.pre_activation import PreActivation
from plq.layers.unit import Unit
from plq.layers.variables import ANCILLARY
from plq.quant.base import FLOAT_BITS, WeightQuantizer

CONVOLUTIONS = (QuantConv, *LISTED)
NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm, nn.WeightNorm)
UNITS = (Unit, PreActivation)
ROLES = ("conv", "dense", "ancillary", "norm", "bias", "quantizer")
Path = tuple[str, ...]
Shapes = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer: bits of its weights and of its activation, kept and ancillary variables.

    A layer is a `Unit` or `PreActivation`; in a network that does not consist of these a convolution or dense layer,
    converted or not, or another module that has variables. ``activation_bits``: of its output, or of the input that it
    quantizes itself (`plq.layers.dropin.LowPrecision`). ``bytes_deployed`` packs the kernel at ``weight_bits`` and
    leaves everything else in float32. ``macs`` are the multiply-accumulates of the kept product for one image.
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


class Call(NamedTuple):
    """A call of a module, and the shape of what it gave."""

    module: Any
    output: Any


class Run(NamedTuple):
    """An abstract run: shapes of all variables, and the calls of each module by its path, as they ended."""

    shapes: Shapes
    calls: dict[Path, list[Call]]

    def module(self, path: Path) -> Any:
        return self.call(path).module if path in self.calls else None

    def call(self, path: Path) -> Call:
        """An expanded unit shares its path with the plain unit inside it: the plain one describes the layer."""
        found = self.calls[path]
        plain = (call for call in found if not isinstance(call.module, (ExpandedUnit, ExpandedPreActivation)))
        return next(plain, found[0])


def run(network: nn.Module, image_shape: tuple[int, ...]) -> Run:
    """An abstract initialization of any Linen network that is called as ``network(images)``."""
    calls: dict[Path, list[Call]] = {}

    def record(next_function, args, kwargs, context):
        output = next_function(*args, **kwargs)
        if context.method_name == "__call__":
            first = next(iter(jax.tree.leaves(output)), None)
            calls.setdefault(context.module.path, []).append(Call(context.module, first))
        return output

    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
        shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    return Run(nn.meta.unbox(shapes), calls)


def variable_roles(network: nn.Module, image_shape: tuple[int, ...]) -> Shapes:
    """The role (one of `ROLES`) of every trained variable, in the shape of {"params": ..., "ancillary": ...}.

    Args:
        network: any Linen network called as ``network(images)``. image_shape: [height, width, channels].
    """
    found = run(network, image_shape)

    def role(path, leaf):
        collection, *module_path, name = (key.key for key in path)
        return _role(found.module(tuple(module_path)), collection, name, leaf.ndim)

    trained = {name: found.shapes[name] for name in ("params", "ancillary") if name in found.shapes}
    return jax.tree_util.tree_map_with_path(role, trained)


def _role(module: nn.Module | None, collection: str, name: str, ndim: int) -> str:
    if isinstance(module, NORMS):
        return "norm"
    if name == "bias":
        return "bias"
    if collection == "ancillary":
        return "ancillary"
    if isinstance(module, (Activation, Scales)) or (isinstance(module, CONVOLUTIONS) and name in _scales_of(module)):
        return "quantizer"
    if isinstance(module, (nn.Dense, nn.DenseGeneral)) or (isinstance(module, QuantConv) and not module.kernel_size):
        return "dense"
    if ndim < 2:
        return "bias"
    return "conv" if ndim > 2 else "dense"


def _scales_of(module: Any) -> tuple[str, ...]:
    """Names of what the layer's weight quantizer learns."""
    return getattr(getattr(module, "weights", None), "scale_names", ())


def quantized_layers(network: nn.Module, image_shape: tuple[int, ...]) -> dict[str, WeightQuantizer]:
    """The weight quantizer of every layer that has one, by the path of its variables ("stem/conv")."""
    found = run(network, image_shape)
    modules = {path: found.module(path) for path in found.calls}
    return {"/".join(path): m.weights for path, m in modules.items() if isinstance(m, (QuantConv, LowPrecision))}


def expanded_layers(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the layers that have a branch, in the order in which data passes them."""
    has_branch = lambda module: isinstance(module, ExpandedUnit) or getattr(module, "factor", None) is not None
    layers = (ExpandedUnit, LowPrecision)
    calls = run(network, image_shape).calls.items()
    return tuple(
        "/".join(path)
        for path, found in calls
        if any(isinstance(call.module, layers) and has_branch(call.module) for call in found)
    )


def owners(found: Run) -> dict[Path, Sequence[tuple[str, ...]]]:
    """The variables of each row of a table of layers, by the path of the module that the row is for.

    A unit, or a convolution or dense layer outside of one, owns all that is below it, and what `LowPrecision` has in
    a ``home``. What is left is the modules' own in which it lies.
    """
    rows: dict[Path, list[tuple[str, ...]]] = {}
    inside: dict[Path, Path] = {}
    units = [path for path in found.calls if isinstance(found.module(path), UNITS)]
    for path in sorted(units, key=len) + [path for path in found.calls if isinstance(found.module(path), LISTED)]:
        if _owner(path, inside) is None:
            inside[path] = path
            home = getattr(found.module(path), "home", None)
            inside |= {} if home is None else {home.path: path}
    for path in found.calls:
        if inside.get(path) == path:
            rows[path] = []
    for variable in flatten_dict(found.shapes):
        owner = _owner(variable[1:-1], inside)
        rows.setdefault(variable[1:-1] if owner is None else owner, []).append(variable)
    order = {path: place for place, path in enumerate(found.calls)}
    return dict(sorted(rows.items(), key=lambda row: order.get(row[0], len(order))))


def _owner(path: Path, inside: dict[Path, Path]) -> Path | None:
    return next((inside[path[:n]] for n in range(len(path) + 1) if path[:n] in inside), None)


def layer_table(network: nn.Module, image_shape: tuple[int, ...]) -> list[Layer]:
    """One row per layer of the network, in the order in which data passes them."""
    found = run(network, image_shape)
    return [_row(path, found, variables) for path, variables in owners(found).items()]


def _row(path: Path, found: Run, variables: Sequence[Path]) -> Layer:
    leaves = {variable: int(np.prod(flatten_dict(found.shapes)[variable].shape)) for variable in variables}
    count = lambda keep: sum(size for variable, size in leaves.items() if keep(variable[0]))
    layer, product = found.module(path), _product(path, found)
    kernel = leaves.get(("params", *product, "kernel"), 0) if product is not None else 0
    bits = getattr(getattr(layer, "weights", None), "bits", FLOAT_BITS) if kernel else FLOAT_BITS
    kept = count(lambda collection: collection not in ANCILLARY)
    return Layer(
        name="/".join(path) or "(network)",
        kind=_kind(layer),
        weight_bits=bits,
        activation_bits=getattr(getattr(layer, "activation", None), "bits", FLOAT_BITS),
        output_shape=found.call(path).output.shape[1:] if path in found.calls else (),
        parameters=count(lambda collection: collection == "params"),
        ancillary_parameters=count(lambda collection: collection == "ancillary"),
        bytes_now=4 * sum(leaves.values()),
        bytes_deployed=-(-kernel * bits // 8) + 4 * (kept - kernel),
        macs=kernel * _applications(product, found) if product is not None else 0,
    )


def _product(path: Path, found: Run) -> Path | None:
    """The module that holds the kernel of a layer; None if there is no kernel."""
    if isinstance(found.module(path), UNITS):
        return (*path, "conv") if (*path, "conv") in found.calls else None
    return path if isinstance(found.module(path), LISTED) else None


def _applications(product: Path, found: Run) -> int:
    """At how many places of one image the kernel of a layer is applied, over all calls of it."""
    calls = found.calls[product]
    converted = {id(call.module): call for call in calls if isinstance(call.module, LowPrecision)}
    traces: dict[int, int] = {}  # a transformation of JAX may run what is inside it several times: each has its root
    for call in converted.values() or calls:  # a converted layer calls itself as Linen's, and for Linen's
        places = 1 if isinstance(call.module, nn.ConvLocal) else int(np.prod(call.output.shape[:-1]))
        root = id(call.module.scope.root)
        traces[root] = traces.get(root, 0) + places
    return max(traces.values())


def _kind(layer: Any) -> str:
    if isinstance(layer, PreActivation):
        return "entry"
    if isinstance(layer, nn.Dense) or (isinstance(layer, Unit) and not layer.kernel_size):
        return "dense"
    if not isinstance(layer, (Unit, nn.Conv)):
        return type(layer).__name__ if layer is not None else "variables"
    size = (layer.kernel_size,) if isinstance(layer.kernel_size, int) else layer.kernel_size
    groups = layer.groups if isinstance(layer, Unit) else layer.feature_group_count
    return f"conv {'x'.join(map(str, size))}" + (f" /{groups}" if groups > 1 else "")
