"""The quantizers by name: a new one is a file of its own and one line here."""

import dataclasses

from plq.checks import choice, integer
from plq.errors import UserError, nearest
from plq.quant.activations import AbsActivation, ClipActivation, ReluActivation
from plq.quant.apot import APoT, APoTActivation
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, FloatWeights, WeightQuantizer
from plq.quant.dorefa import DoReFa
from plq.quant.lsq import LSQ, LSQActivation
from plq.quant.lsq_plus import LSQPlusActivation
from plq.quant.pact import PACTActivation
from plq.quant.sawb import SAWB
from plq.quant.syq import SYQ
from plq.quant.xnor import XNOR

WEIGHTS: dict[str, type[WeightQuantizer]] = {
    "dorefa": DoReFa,
    "xnor": XNOR,
    "syq": SYQ,
    "lsq": LSQ,
    "apot": APoT,
    "sawb": SAWB,
}
ACTIVATIONS: dict[str, type[ActivationQuantizer]] = {
    "abs": AbsActivation,
    "clip": ClipActivation,
    "relu": ReluActivation,
    "pact": PACTActivation,
    "lsq": LSQActivation,
    "lsq_plus": LSQPlusActivation,
    "apot": APoTActivation,
}


def weight_quantizer(name: str, bits: int, **options) -> WeightQuantizer:
    """The weight quantizer of this name at this many bits (32: no quantization).

    Raises UserError for an unknown name, bits that the quantizer does not have, or an option it lacks.
    """
    choice("quant.weights", name, WEIGHTS)
    bits, legal = integer("quant.weight_bits", bits), WEIGHTS[name].legal_bits
    if bits not in (*legal, FLOAT_BITS):
        allowed = ", ".join(map(str, (*legal, FLOAT_BITS)))
        raise UserError(f"quant.weight_bits={bits}: weights {name} allow {allowed}")
    _check_options(name, options)
    made = WEIGHTS[name](legal[-1] if bits == FLOAT_BITS else bits, **options)
    return FloatWeights(bits) if bits == FLOAT_BITS else made


def options_of(name: str) -> set[str]:
    """Names of the options that the weight quantizer of this name has."""
    return {field.name for field in dataclasses.fields(WEIGHTS[name])} - {"bits"} if name in WEIGHTS else set()


def _check_options(name: str, options: dict) -> None:
    legal = options_of(name)
    for option, value in options.items():
        if option not in legal:
            found = f"weights {name} have no such option"
            raise UserError(f"quant.{option}={value}: {found}; allowed: {', '.join(sorted(legal)) or 'none'}")
    granularity = options.get("granularity")
    if isinstance(granularity, str) and granularity not in WEIGHTS[name].granularities:
        found = f"unknown to weights {name}"
        raise UserError(
            f"quant.granularity={granularity}: {found}; {nearest(granularity, WEIGHTS[name].granularities)}"
        )


def activation_quantizer(name: str, bits: int) -> ActivationQuantizer:
    """The activation of this name at this many bits (32: its non-linearity alone). Raises UserError."""
    choice("quant.activations", name, ACTIVATIONS)
    bits, legal = integer("quant.activation_bits", bits), ACTIVATIONS[name].legal_bits
    if bits not in legal:
        allowed = ", ".join(map(str, legal))
        raise UserError(f"quant.activation_bits={bits}: activations {name} allow {allowed}")
    return ACTIVATIONS[name](bits)
