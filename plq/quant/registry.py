"""The quantizers by name: a new one is a file of its own and one line here."""

import dataclasses

from plq.errors import UserError, nearest
from plq.quant.activations import UniformActivation, abs_activation, clip_activation, relu_activation
from plq.quant.base import FLOAT_BITS, FloatWeights, WeightQuantizer
from plq.quant.dorefa import DoReFa
from plq.quant.syq import GRANULARITIES, SYQ
from plq.quant.xnor import XNOR

WEIGHTS: dict[str, type[WeightQuantizer]] = {"dorefa": DoReFa, "xnor": XNOR, "syq": SYQ}
ACTIVATIONS = {
    "abs": (abs_activation, (1, 2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)),
    "clip": (clip_activation, (1, 2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)),
    "relu": (relu_activation, (FLOAT_BITS,)),
}


def weight_quantizer(name: str, bits: int, **options) -> WeightQuantizer:
    """The weight quantizer of this name at this many bits (32: no quantization).

    Raises UserError for an unknown name, bits that the quantizer does not have, or an option it lacks.
    """
    if name not in WEIGHTS:
        raise UserError(f"quant.weights={name}: unknown; {nearest(name, WEIGHTS)}")
    legal = WEIGHTS[name].legal_bits
    if bits not in (*legal, FLOAT_BITS):
        allowed = ", ".join(map(str, (*legal, FLOAT_BITS)))
        raise UserError(f"quant.weight_bits={bits}: weights {name} allow {allowed}")
    _check_options(name, options)
    return FloatWeights(bits) if bits == FLOAT_BITS else WEIGHTS[name](bits, **options)


def _check_options(name: str, options: dict) -> None:
    legal = {field.name for field in dataclasses.fields(WEIGHTS[name])} - {"bits"}
    for option, value in options.items():
        if option not in legal:
            found = f"weights {name} have no such option"
            raise UserError(f"quant.{option}={value}: {found}; allowed: {', '.join(sorted(legal)) or 'none'}")
    granularity = options.get("granularity", "layer")
    if granularity not in GRANULARITIES:
        raise UserError(f"quant.granularity={granularity}: unknown; {nearest(granularity, GRANULARITIES)}")
    eta = options.get("eta", 0.0)
    if not 0 <= eta < 1:
        raise UserError(f"quant.eta={eta}: found {eta}, allowed 0 <= eta < 1")


def activation_quantizer(name: str, bits: int) -> UniformActivation:
    """The activation of this name at this many bits (32: the clipping alone). Raises UserError."""
    if name not in ACTIVATIONS:
        raise UserError(f"quant.activations={name}: unknown; {nearest(name, ACTIVATIONS)}")
    make, legal = ACTIVATIONS[name]
    if bits not in legal:
        allowed = ", ".join(map(str, legal))
        raise UserError(f"quant.activation_bits={bits}: activations {name} allow {allowed}")
    return make(bits)
