"""Whether an exported file computes what the frozen model does: it is run on real images, and compared.

The rule: in each image the logits are equal to `LOGITS` of the largest one, and with them the top-1 class, but for
classes as close as that; or else the first codes that differ, in the order of the network, are ties. A tie is a number
in the middle between two codes, to `TIE` of the grid's span: float arithmetic in another order, as of a first layer in
float, may round it to the other side, and what follows changes with it. A unit with misplaced steps
(`plq.exporters.requantize`) takes these one sum too early or too late; there a tie is as wide as that. Because of ties
top-1 classes may change in `TOP1` of the images, or in twice as many as where the model gives another class itself when
the last bits of its numbers change.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from plq.errors import UserError
from plq.runtime.frozen import FrozenModel
from plq.runtime.nodes import Activation
from plq.runtime.verification import changed_by_last_bits, distances

LOGITS = TIE = 2.0**-14
TOP1 = 0.02
BATCH = 64

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
    top1           in how many the most likely class is the same; ``places``: of how many, if images have several
    largest        difference of logits in images without such a tie, in units of the largest logit
    """

    images: int
    ties: int
    top1: int
    largest: float
    places: str = ""

    def __str__(self) -> str:
        ties = f"; in {self.ties} a tie was rounded to the other side" if self.ties else ""
        equal = f"top-1 equal in {self.top1:,}{self.places}, logits to {self.largest:.1e} of the largest"
        return f"run on {self.images:,} images: {equal}{ties}"


def compare(model: FrozenModel, exported: Exported, images: np.ndarray) -> Verdict:
    """Hold the exported file to the rule. Raises UserError, in one line, if an image breaks it.

    Args:
        images: uint8 [count, *image_shape], at least one.
    """
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    wanted, found = (np.concatenate([run(batch) for batch in batches]) for run in (model.flat, exported.logits))
    if found.shape != wanted.shape:
        raise UserError(f"gives logits {list(found.shape)}, allowed {list(wanted.shape)}")
    apart = distances(found, wanted)
    same = found.argmax(-1) == wanted.argmax(-1)
    suspects = np.flatnonzero(~(apart <= LOGITS) | ~_top1_agrees(wanted, found).reshape(len(images), -1).all(1))
    for start in range(0, len(suspects), BATCH):
        _require_ties(model, exported, images, suspects[start : start + BATCH])
    others = int((~same).sum())
    if others > TOP1 * same.size:
        allowed = max(int(TOP1 * same.size), 2 * unstable_images(model, batches, wanted.argmax(-1)))
        if others > allowed:
            what = "images" if same.ndim == 1 else "places"
            raise UserError(f"top-1 differs in {others} of {same.size} {what}, allowed {allowed}")
    largest = float(np.delete(apart, suspects).max(initial=0))
    places = "" if same.ndim == 1 else f" of {same.size:,} places"
    return Verdict(len(images), len(suspects), int(same.sum()), largest, places)


def _top1_agrees(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Whether the likeliest class of ``found`` is that of ``wanted``, or as likely there as `LOGITS` can tell."""
    chosen = np.take_along_axis(wanted, found.argmax(-1)[..., None], -1)[..., 0]
    most = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
    return ~(chosen < wanted.max(-1) - 2 * LOGITS * most)


def unstable_images(model: FrozenModel, batches: list[np.ndarray], classes: np.ndarray) -> int:
    """In how many images the model itself gives another class when its last bits change (`changed_by_last_bits`)."""
    run = jax.jit(model.runner.logits)
    classes_with = lambda arrays: np.concatenate([run(arrays, batch) for batch in batches]).argmax(-1)
    return changed_by_last_bits(classes_with, model.runner.arrays, classes)


def _require_ties(model: FrozenModel, exported: Exported, images: np.ndarray, suspects: np.ndarray) -> None:
    """Raise UserError unless in each of these images the first codes that differ are ties."""
    if exported.integers is None:
        raise UserError(f"image {suspects[0]}: logits differ by more than {LOGITS:.1e} of the largest")
    results, rounded = jax.device_get(jax.jit(model.runner.results)(model.runner.arrays, images[suspects]))
    found, open_suspects = exported.integers(images[suspects]), set(range(len(suspects)))
    for node in model.frozen.graph.nodes:
        if not isinstance(node, Activation) or node.grid is None:
            continue
        allowed = max(TIE * float(np.ptp(node.grid.integers)), 1.01 * exported.slack.get(node.name, 0.0))
        differs = found[node.name] != results[node.name]
        for image in sorted(open_suspects):
            here = differs[image]
            if not here.any():
                continue
            farthest = float(_from_middle(node, rounded[node.name][image][here]).max())
            if farthest > allowed:
                count = f"{int(here.sum()):,} of {here.size:,} codes of {node.name} differ"
                where = f"image {suspects[image]}: {count}, up to {farthest:.2g} of a step from a tie"
                raise UserError(f"{where}, allowed {allowed:.2g}")
            open_suspects.remove(image)
    if open_suspects:
        image = suspects[min(open_suspects)]
        raise UserError(f"image {image}: no code differs, but logits do by more than {LOGITS:.1e} of the largest")


def _from_middle(node: Activation, v: np.ndarray) -> np.ndarray:
    """How far numbers before rounding are from the nearest middle between two levels."""
    assert node.grid is not None
    integers = node.grid.integers.astype(np.float32)
    middles = (integers[1:] + integers[:-1]) / 2 - (node.grid.offset if node.grid.levels else 0)
    return np.abs(v[..., None] - middles).min(-1)
