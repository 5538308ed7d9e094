"""What is compared: one config as it is, without the branch, and without quantization."""

from typing import Any

from plq.config.schema import Config
from plq.quant.base import FLOAT_BITS

NAMES = {"plain": "plain", "expanded": "EXP-Net", "float": "float"}  # as tables and figures call them
BITS = ("weight_bits", "activation_bits", "gradient_bits", "first_bits", "last_bits")


def _defaults(section: str) -> dict[str, Any]:
    """All fields of a section, as they are when nobody sets them."""
    return {f"{section}.{field}": value for field, value in Config().to_json()[section].items()}


PLAIN = {**_defaults("expansion"), **_defaults("factor"), "factor.name": "constant", "factor.value": 0.0}
FLOAT = {
    **PLAIN,
    **{name: value for name, value in _defaults("quant").items() if name not in ("quant.activations", "quant.dtype")},
    **{f"quant.{field}": FLOAT_BITS for field in BITS},
}
# The fields that a variant sets; the others are the config's. ``plain`` is EXP-Net with f = 0 throughout; ``float``
# is ``plain`` in 32 bits, its activations being the non-linearity of the quantized ones.
VARIANTS: dict[str, dict[str, Any]] = {"plain": PLAIN, "expanded": {}, "float": FLOAT}


def variant_of(chosen: Config) -> str:
    """Which of the variants a training is."""
    if chosen.factor.over(1).end_step != 0:
        return "expanded"
    bits = {getattr(chosen.quant, field) for field in BITS}
    bits |= {rule[field] for rule in chosen.quant.rules for field in BITS if field in rule}
    return "float" if bits == {FLOAT_BITS} else "plain"
