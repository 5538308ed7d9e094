"""Any Linen network in low precision, with or without the ancillary branches, its code left as it is.

    rules = [Rule("head", 8, 8, expand=False), Rule("block*", 2, 2)]
    expanded = convert(network, rules, factor)      # train, f from 1 to 0
    served = convert(network, rules)                # the same variables after plq.checkpoint.prune.prune

Quantizers that learn ("lsq", "apot", "pact", ...) have their scales among the parameters. Those of activations start
as constants: set them from a batch before training, and with ``kernels=True`` those of weights too where the kernels
come from a float network of one's own:

    variables = plq.layers.scales.calibrate(convert(network, rules), variables, images, kernels=True)

`nn.intercept_methods` hands over each call of an `nn.Conv` or `nn.Dense` that a rule matches to its counterpart in
`plq.layers.dropin`, which works in the scope of the layer: every variable stays where the network has it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from plq.errors import UserError
from plq.layers.dropin import Conv, Dense, LowPrecision, layer_fields
from plq.quant.base import FLOAT_BITS
from plq.quant.registry import activation_quantizer, weight_quantizer

COUNTERPARTS: dict[type[nn.Module], type[LowPrecision]] = {nn.Conv: Conv, nn.Dense: Dense}
LISTED = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral, nn.Einsum)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What the layers become whose path matches: bits and quantizers, and whether they get a branch.

    ``pattern`` is in the style of file names, on the path of a layer ("block1/conv2"); ``*`` matches ``/`` too, and
    case counts. 32 bits leave weights, or the input, as they are. ``granularity``: of learned weight scales ("channel"
    for "lsq", "row" for "syq", ...); empty takes the quantizer's usual one. Raises UserError for bits or names that
    do not exist.
    """

    pattern: str
    weight_bits: int
    activation_bits: int
    weights: str = "dorefa"
    activations: str = "clip"
    expand: bool = True
    granularity: str = ""

    def __post_init__(self):
        try:
            self.fields()
            if self.granularity and self.weight_bits == FLOAT_BITS:
                raise UserError(f"granularity={self.granularity}: has no effect on weights of 32 bits")
        except UserError as error:
            raise UserError(f"rule {self.pattern!r}: {str(error).removeprefix('quant.')}") from error

    def fields(self, factor: Array | float | None = None) -> dict[str, Any]:
        """The fields that make a `plq.layers.dropin` layer of a Linen one, for ``partial(Conv, **fields)``."""
        activation = activation_quantizer(self.activations, self.activation_bits)
        options = {"granularity": self.granularity} if self.granularity else {}
        return {
            "weights": weight_quantizer(self.weights, self.weight_bits, **options),
            "activation": None if self.activation_bits == FLOAT_BITS else activation,
            "factor": factor if self.expand else None,
        }


class Converted(nn.Module):
    """The network that `convert` returns; variables and random numbers are those of ``network`` itself."""

    network: nn.Module
    rules: tuple[Rule, ...]
    factor: Array | float | None = None

    def setup(self):
        nn.share_scope(self, self.network)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        network: Any = self.network
        with converting(self.rules, self.factor, self.path) as used:
            output = network(*args, **kwargs)
        if self.is_initializing():
            _refuse([rule for rule in self.rules if rule not in used])
        return output


def convert(network: nn.Module, rules: Sequence[Rule], factor: Array | float | None = None) -> Converted:
    """The network with each `nn.Conv` and `nn.Dense` computed as the first rule that matches its path says.

    Takes the arguments of ``network``; see `plq.layers.dropin.LowPrecision` for what a layer computes and for when
    the branch trains. ``init`` gives ``params`` equal to the network's own, and beside them the learned scales.

    Args:
        factor: f, traced or not: one compilation serves all values. None: no branch, the network that is served.
    Raises UserError in ``init`` if a rule matches nothing (see `unused_rules`). Subclasses of the two layers are left
    as they are. A network made with `nn.scan` or `nn.vmap` must name the ancillary collections in ``variable_axes``;
    within `nn.jit` the factor would be fixed: remove it.
    """
    return Converted(network, tuple(rules), factor)


@contextlib.contextmanager
def converting(
    rules: Sequence[Rule], factor: Array | float | None = None, root: tuple[str, ...] = ()
) -> Iterator[set[Rule]]:
    """`convert` for whatever runs inside: ``network.apply(variables, x, method="encode")``.

    ``root`` is what the paths of all layers begin with and the patterns do not. Gives the rules used so far.
    """
    used: set[Rule] = set()

    def interceptor(next_function, args, kwargs, context):
        module = context.module
        rule = _rule_for(module, rules, root) if context.method_name == "__call__" else None
        if rule is None:
            return next_function(*args, **kwargs)
        used.add(rule)
        layer: Any = COUNTERPARTS[type(module)]
        return layer(**layer_fields(module), **rule.fields(factor), parent=module.scope)(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield used


def _rule_for(module: nn.Module, rules: Sequence[Rule], root: tuple[str, ...] = ()) -> Rule | None:
    """The first rule that matches; None also for a layer that has no counterpart."""
    if type(module) not in COUNTERPARTS:
        return None
    path = "/".join(module.path[len(root) :])
    return next((rule for rule in rules if fnmatchcase(path, rule.pattern)), None)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What one layer became. ``rule`` None: it is left as it is (no rule, or no counterpart in low precision)."""

    path: str
    kind: str
    rule: Rule | None

    def __str__(self) -> str:
        if self.rule is None:
            return f"{self.path}: {self.kind}, left as it is"
        bits = f"W{self.rule.weight_bits}/A{self.rule.activation_bits}"
        return f"{self.path}: {self.kind}, {bits}{', expanded' if self.rule.expand else ''} ({self.rule.pattern})"


def conversion_table(
    network: nn.Module, rules: Sequence[Rule], image_shape: tuple[int, ...], **arguments: Any
) -> list[Conversion]:
    """One row per convolution or dense layer of the network, in the order in which they are called.

    Args:
        image_shape: of one example. arguments: what the network is called with beside a batch (train=False).
    """
    rows: dict[str, Conversion] = {}

    def record(next_function, args, kwargs, context):
        module, path = context.module, "/".join(context.module.path)
        if context.method_name == "__call__" and isinstance(module, LISTED):
            rows.setdefault(path, Conversion(path, _kind(module), _rule_for(module, rules)))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(record):
        batch = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
        jax.eval_shape(partial(network.init, **arguments), jax.random.key(0), batch)
    return list(rows.values())


def unused_rules(
    network: nn.Module, rules: Sequence[Rule], image_shape: tuple[int, ...], strict: bool = False, **arguments: Any
) -> list[Rule]:
    """The rules that are no layer's first match. Arguments as for `conversion_table`.

    Raises UserError naming them if ``strict``.
    """
    table = conversion_table(network, rules, image_shape, **arguments)
    unused = [rule for rule in rules if rule not in {row.rule for row in table}]
    if strict:
        _refuse(unused)
    return unused


def _refuse(unused: Sequence[Rule]) -> None:
    if unused:
        patterns = ", ".join(repr(rule.pattern) for rule in unused)
        raise UserError(f"rules {patterns}: found no layer that they are the first to match, allowed at least one each")


def _kind(module: Any) -> str:
    name = type(module).__name__
    if not isinstance(module, nn.Conv):
        return name
    size = (module.kernel_size,) if isinstance(module.kernel_size, int) else module.kernel_size
    groups = module.feature_group_count
    return f"{name} {'x'.join(map(str, size))}" + (f" /{groups}" if groups > 1 else "")
