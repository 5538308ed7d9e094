"""The rules of a configuration: those that it states, or usual ones for a network's layers."""

import dataclasses
import glob
from collections.abc import Mapping, Sequence
from typing import Any

from plq.checks import shown
from plq.errors import UserError, nearest
from plq.layers.rule import Rule
from plq.quant.base import FLOAT_BITS

# What a rule of a configuration may state: the field of `Rule`, and that of the section quant where it does not.
FIELDS: dict[str, tuple[str, str]] = {
    "pattern": ("pattern", ""),
    "weight_bits": ("weight_bits", "weight_bits"),
    "activation_bits": ("activation_bits", "activation_bits"),
    "weight_quantizer": ("weights", "weights"),
    "activation_quantizer": ("activations", "activations"),
    "expand": ("expand", ""),
    "granularity": ("granularity", ""),
}


def stated_rules(rules: Sequence[Mapping[str, Any]], usual: Any) -> tuple[Rule, ...]:
    """The rules that a configuration states. Raises UserError, naming the rule and what is wrong with it.

    Args:
        usual: the section quant, which has bits and quantizers where a rule does not state them.
    """
    return tuple(_stated(f"quant.rules[{index}]", rule, usual) for index, rule in enumerate(rules))


def _stated(name: str, rule: Mapping[str, Any], usual: Any) -> Rule:
    for field in rule:
        if field not in FIELDS:
            raise UserError(f"{name}.{field}: unknown field; {nearest(str(field), FIELDS)}")
    if "pattern" not in rule:
        raise UserError(f"{name}={shown(dict(rule))}: lacks pattern; allowed: {', '.join(FIELDS)}")
    inherited = {own: getattr(usual, section) for own, section in FIELDS.values() if section}
    fields = {**inherited, **{FIELDS[field][0]: value for field, value in rule.items()}}
    if "granularity" not in fields and fields["weights"] == usual.weights and fields["weight_bits"] != FLOAT_BITS:
        fields["granularity"] = usual.granularity
    try:
        return Rule(**fields)
    except UserError as error:
        text = str(error)
        for stated, (own, _) in FIELDS.items():
            text = text.replace(f": {own}=", f": {stated}=")
        raise UserError(f"{name}: {text}") from error


def usual_rules(layers: Sequence[str], usual: Any) -> tuple[Rule, ...]:
    """Rules for the layers of these paths, first to last, as the section quant says:

    the first has weights of ``first_bits`` (LSQ) and takes the image as it is; the last has weights of ``last_bits``
    (LSQ) and an input of as many; neither has a branch. All others have ``weight_bits`` and ``activation_bits``, and a
    branch. Of a single layer it is the last. Raises UserError if there is none.
    """
    if not layers:
        raise UserError("quant.rules: found no nn.Conv and no nn.Dense in the network, allowed a network with one")

    def rule(pattern: str, bits: int, input_bits: int, weights: str, expand: bool) -> Rule:
        granularity = usual.granularity if weights == usual.weights and bits != FLOAT_BITS else ""
        return Rule(pattern, bits, input_bits, weights, usual.activations, expand, granularity)

    first, last = glob.escape(layers[0]), glob.escape(layers[-1])
    rules = [
        rule(first, usual.first_bits, FLOAT_BITS, "lsq", False),
        rule(last, usual.last_bits, usual.last_bits, "lsq", False),
        rule("*", usual.weight_bits, usual.activation_bits, usual.weights, True),
    ]
    return tuple(rules[1:2] if len(layers) == 1 else rules[: len(layers)])


def rules_to_json(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """As a configuration states them, read back by `rules_from_json`."""
    return [{name: getattr(rule, field) for name, (field, _) in FIELDS.items()} for rule in rules]


def rules_from_json(rules: Any) -> tuple[Rule, ...]:
    """The rules of a model's description. Raises UserError unless each is whole and legal."""
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and set(rule) == set(FIELDS) for rule in rules):
        raise UserError(f"rules={shown(rules)}: allowed rules with {', '.join(FIELDS)}")
    return tuple(Rule(**{FIELDS[name][0]: value for name, value in rule.items()}) for rule in rules)


def unused_fields(quant: Any) -> list[str]:
    """Fields of the section quant that are set and that no layer of a converted network uses."""
    everywhere = {section for name, (_, section) in FIELDS.items() if all(name in rule for rule in quant.rules)}
    unused = {"gradient_bits", "dtype", "eta", *({"first_bits", "last_bits", *everywhere} if quant.rules else ())}
    fields = [field for field in dataclasses.fields(quant) if field.name in unused]
    return [field.name for field in fields if getattr(quant, field.name) != field.default]
