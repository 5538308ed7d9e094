"""Whether an exported file computes what the frozen model does: it is run on real images, and compared.

The rule: in each image the logits are equal to `LOGITS` of the largest one, and with them the top-1 class; or else the
first codes that differ, in the order of the network, are ties. A tie is a number in the middle between two codes, to
`TIE` of the grid's span: float arithmetic in another order, as of a first layer in float, may round it to the other
side, and what follows changes with it. A unit with misplaced steps (`plq.export.requantize`) takes these one sum too
early or too late; there a tie is as wide as that.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from plq.errors import UserError
from plq.frozen.model import FrozenModel
from plq.frozen.nodes import Activation

LOGITS = TIE = 2.0**-14

Integers = dict[str, np.ndarray]  # by the name of an activation: level + offset, channels last


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported file in use. Both functions take uint8 images [batch, height, width, channels].

    logits     float32 [batch, classes]
    integers   what the quantized activations give; None where a file gives logits only
    slack      by the name of an activation: how wide its ties are, in steps, if that is more than `TIE`
    """

    logits: Callable[[np.ndarray], np.ndarray]
    integers: Callable[[np.ndarray], Integers] | None = None
    slack: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the comparison found.

    images, ties   how many, and in how many of them a tie fell to the other side
    top1           in how many the most likely class is the same
    largest        difference of logits in images without such a tie, in units of the largest logit
    """

    images: int
    ties: int
    top1: int
    largest: float

    def __str__(self) -> str:
        ties = f"; in {self.ties} a tie was rounded to the other side" if self.ties else ""
        equal = f"top-1 equal in {self.top1:,}, logits to {self.largest:.1e} of the largest"
        return f"run on {self.images:,} images: {equal}{ties}"


def compare(model: FrozenModel, exported: Exported, images: np.ndarray) -> Verdict:
    """Hold the exported file to the rule. Raises UserError, in one line, if an image breaks it.

    Args:
        images: uint8 [count, *image_shape], at least one.
    """
    wanted, found = np.asarray(model(images)), np.asarray(exported.logits(images))
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise UserError(f"the exported file gives logits {list(found.shape)}, or such that are not finite")
    apart = np.abs(found - wanted).max(1) / max(np.abs(wanted).max(), 1e-30)
    same = found.argmax(1) == wanted.argmax(1)
    suspects = np.flatnonzero((apart > LOGITS) | ~same)
    for image in suspects:
        reason = _why(model, exported, images[image : image + 1])
        if reason:
            raise UserError(f"the exported file differs from the model: image {image}, {reason}")
    rest = np.delete(apart, suspects)
    return Verdict(len(images), len(suspects), int(same.sum()), float(rest.max(initial=0)))


def _why(model: FrozenModel, exported: Exported, image: np.ndarray) -> str:
    """What breaks the rule in this image, whose logits differ; empty if nothing does."""
    if exported.integers is None:
        return f"logits differ by more than {LOGITS:.1e} of the largest"
    results, rounded = jax.device_get(jax.jit(model.runner.results)(model.runner.arrays, image))
    found = exported.integers(image)
    for node in model.frozen.graph.nodes:
        if not isinstance(node, Activation) or node.grid is None:
            continue
        differs = found[node.name] != results[node.name]
        if differs.any():
            farthest = float(_from_middle(node, rounded[node.name][differs]).max())
            span = float(node.grid.integers[-1] - node.grid.integers[0])
            allowed = max(TIE * span, 1.01 * exported.slack.get(node.name, 0.0))
            if farthest <= allowed:
                return ""
            count = f"{int(differs.sum()):,} of {differs.size:,} codes of {node.name}"
            return f"{count} differ, by up to {farthest:.2g} of a step from a tie, allowed {allowed:.2g}"
    return f"no code differs, but logits do by more than {LOGITS:.1e} of the largest"


def _from_middle(node: Activation, v: np.ndarray) -> np.ndarray:
    """How far numbers before rounding are from the nearest middle between two levels."""
    assert node.grid is not None
    integers = node.grid.integers.astype(np.float32)
    middles = (integers[1:] + integers[:-1]) / 2 - (node.grid.offset if node.grid.levels else 0)
    return np.abs(v[..., None] - middles).min(-1)
