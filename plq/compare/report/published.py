"""The authors' SVHN figure: test accuracy in % of the plain low-precision network and of EXP-Net.

Read off the published figure (Zhou et al., arXiv 1905.11781), with an error of about 0.03. Trained for 200 epochs on
train and extra images together.
"""

from plq.config.schema import Config

WIDTHS = (0.125, 0.25, 0.5, 1.0)
# (weights, bits of weights, bits of activations): (plain, EXP-Net) at each width
SVHN: dict[tuple[str, int, int], tuple[tuple[float, float], ...]] = {
    ("dorefa", 1, 1): ((81.61, 82.72), (90.11, 92.15), (95.53, 95.83), (97.22, 97.33)),
    ("dorefa", 1, 2): ((84.26, 86.06), (92.49, 93.78), (96.41, 96.83), (97.58, 97.62)),
    ("xnor", 1, 1): ((81.91, 82.69), (91.20, 91.53), (95.29, 95.82), (97.09, 97.22)),
    ("xnor", 1, 2): ((85.15, 85.66), (92.75, 93.91), (96.46, 96.92), (97.53, 97.58)),
    ("syq", 2, 1): ((84.43, 85.73), (92.83, 93.88), (96.24, 96.54), (97.16, 97.29)),
    ("syq", 2, 2): ((88.38, 90.08), (94.55, 95.66), (97.04, 97.33), (97.62, 97.63)),
}


def published(chosen: Config) -> tuple[float, float] | None:
    """Plain and EXP-Net of the cell that these settings correspond to; None if there is none."""
    quant, model = chosen.quant, chosen.model
    row = SVHN.get((quant.weights, quant.weight_bits, quant.activation_bits))
    fits = chosen.data.name.split("/")[0] == "svhn_cropped" and model.name == "svhn" and model.width in WIDTHS
    return row[WIDTHS.index(model.width)] if row and fits else None
