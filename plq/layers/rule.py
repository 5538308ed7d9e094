"""Rules that say what the layers of a network become, by their paths."""

import dataclasses
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from jax import Array

from plq.checks import shown, typed
from plq.errors import UserError
from plq.quant.base import FLOAT_BITS
from plq.quant.registry import activation_quantizer, weight_quantizer


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
            for field in dataclasses.fields(self):
                object.__setattr__(self, field.name, typed(field.name, getattr(self, field.name), field.type))
            self.fields()
            if self.granularity and self.weight_bits == FLOAT_BITS:
                raise UserError(f"granularity={self.granularity}: has no effect on weights of 32 bits")
        except UserError as error:
            raise UserError(f"rule {shown(self.pattern)}: {str(error).removeprefix('quant.')}") from error

    def fields(self, factor: Array | float | None = None) -> dict[str, Any]:
        """The fields that make a `plq.layers.dropin` layer of a Linen one, for ``partial(Conv, **fields)``."""
        activation = activation_quantizer(self.activations, self.activation_bits)
        options = {"granularity": self.granularity} if self.granularity else {}
        return {
            "weights": weight_quantizer(self.weights, self.weight_bits, **options),
            "activation": None if self.activation_bits == FLOAT_BITS else activation,
            "factor": factor if self.expand else None,
        }

    def matches(self, path: Sequence[str]) -> bool:
        """Whether the rule is for a layer at this path."""
        return fnmatchcase("/".join(path), self.pattern)


def as_rules(rules: Iterable[Rule] | Rule) -> tuple[Rule, ...]:
    """The rules as a tuple; a single one is a tuple of one. Raises UserError for what is not a `Rule`."""
    if isinstance(rules, Rule):
        return (rules,)
    if isinstance(rules, str) or not isinstance(rules, Iterable):
        raise UserError(f"rules={shown(rules)}: found {type(rules).__name__}, allowed Rules in a list")
    found = tuple(rules)
    for index, rule in enumerate(found):
        if not isinstance(rule, Rule):
            raise UserError(f"rules[{index}]={shown(rule)}: found {type(rule).__name__}, allowed a Rule")
    return found


def refuse_unused(unused: Sequence[Rule]) -> None:
    """Raise UserError, naming their patterns, if there are such rules."""
    if unused:
        patterns = ", ".join(repr(rule.pattern) for rule in unused)
        raise UserError(f"rules {patterns}: found no layer that they are the first to match, allowed at least one each")
