"""Freeze a stripped model into one file: ``python -m plq.freeze --model DIR --out model.plq``.

The few-bit weights are packed, batch norm is folded, and what the file computes is compared with the model: on noise,
and on the test images if the data set is at hand. Nothing is written unless they agree (see `plq.frozen.agreement`).
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plq import __version__, inference
from plq.card import MARK, card
from plq.checkpoint.model_file import read_model
from plq.data.augment import normalize
from plq.data.feed import Feed
from plq.data.sets import default_splits
from plq.devices import devices
from plq.door import arguments, path_or_address, run
from plq.errors import UserError, printable
from plq.evaluate import open_labelled, trained_on
from plq.experiment import all_logits, evaluation
from plq.frozen import file
from plq.frozen.agreement import LOGITS, TIE, Reference, changed_by_last_bits, differences
from plq.frozen.file import Frozen
from plq.frozen.model import FrozenModel, from_frozen
from plq.frozen.record import record
from plq.info import layer_table, summary
from plq.output import require_file, write_text_atomic
from plq.remote.address import Address, named
from plq.remote.opened import reading, writing

OTHER_CLASS = 0.01  # share of test images to which ties may give another class; more in unstable models
NOISE = 8
AT_ONCE = 8  # images whose results are compared layer by layer


@dataclasses.dataclass(frozen=True)
class Source:
    """A stripped model as it is served, and with products in float32, which is what is frozen: often the same one."""

    served: inference.Model
    exact: inference.Model


def read_source(path: Path) -> Source:
    """Raises UserError for anything that is not a whole, stripped model."""
    served, (variables, description) = inference.load(path), read_model(path)
    architecture = description["architecture"]
    if architecture["precision"]["dtype"] == "float32":
        return Source(served, served)
    exact = {**architecture, "precision": {**architecture["precision"], "dtype": "float32"}}
    return Source(served, inference.from_variables(variables, {**description, "architecture": exact}, str(path)))


def freeze(model: inference.Model) -> Frozen:
    """The model as a graph of few-bit integers, with what is needed to feed it. Raises UserError if it has no graph.

    Folders of the machine at hand are left out of its training configuration.
    """
    variables = jax.device_get(model.variables)
    graph = record(model.network, variables, model.image_shape, model.mean, model.std)
    return Frozen(graph, model.class_names, model.fit, _without_folders(model.training))


def _without_folders(training: dict[str, Any]) -> dict[str, Any]:
    config = {name: dict(fields) for name, fields in training.get("config", {}).items()}
    for section, field in (("data", "data_dir"), ("data", "cache_dir"), ("model", "init_from")):
        if field in config.get(section, {}):
            config[section][field] = ""
    return {**training, **({"config": config} if config else {})}


def compare_on_noise(frozen: FrozenModel, exact: inference.Model) -> None:
    """Raise UserError unless both compute the same, layer by layer, for images of random pixels."""
    images = np.random.default_rng(0).integers(0, 256, (NOISE, *exact.image_shape), np.uint8)
    _require_ties(frozen, exact, images, "noise image")


def compare_on_data(frozen: FrozenModel, source: Source, feed: Feed) -> dict[str, Any]:
    """Accuracy before and after, and how often the class is another one.

    Raises UserError if that is for more images than `OTHER_CLASS`, or twice as many as the model does to itself
    (`unstable_images`, which is then among what is returned), or for any image without a tie.
    """
    unstable = {}
    served, labels = all_logits(source.served, feed)
    exact = served if source.exact is source.served else all_logits(source.exact, feed)[0]
    found, _ = all_logits(frozen, feed)
    other = np.flatnonzero(found.argmax(1) != exact.argmax(1))
    if len(other) > OTHER_CLASS * len(labels):
        unstable["changed_by_last_bits"] = unstable_images(source.exact, exact, feed)
        allowed = max(int(OTHER_CLASS * len(labels)), 2 * unstable["changed_by_last_bits"])
        if len(other) > allowed:
            raise UserError(
                f"frozen and stripped model give another class to {len(other):,} of {len(labels):,} images, "
                f"allowed {allowed:,}; nothing was written"
            )
    _require_ties(frozen, source.exact, _images(feed, other), "test image")
    return {
        "images": len(labels),
        "accuracy_before": evaluation(served, labels)["accuracy"],
        "accuracy_after": evaluation(found, labels)["accuracy"],
        "other_class": len(other),
        "largest_difference": float(np.abs(found - exact).max()),
        **unstable,
    }


def unstable_images(exact: inference.Model, logits: np.ndarray, feed: Feed) -> int:
    """To how many images the model itself gives another class when its last bits change (`changed_by_last_bits`).

    Args:
        logits: what ``exact`` gives to the images of ``feed``.
    """
    run = jax.jit(lambda variables, images: exact.network.apply(variables, normalize(images, exact.mean, exact.std)))
    classes_with = lambda variables: all_logits(partial(run, variables), feed)[0].argmax(1)
    return changed_by_last_bits(classes_with, exact.variables, logits.argmax(1))


def _images(feed: Feed, indices: np.ndarray) -> np.ndarray:
    """The first images of a feed, and those at these indices, uint8 [batch, *image_shape]."""
    wanted, seen, chosen = {*range(AT_ONCE), *indices.tolist()}, 0, []
    for images, _, mask in feed.in_order():
        for image in images[mask > 0]:
            if seen in wanted:
                chosen.append(image)
            seen += 1
    return np.stack(chosen)


def _require_ties(frozen: FrozenModel, exact: inference.Model, images: np.ndarray, what: str) -> None:
    reference = Reference(exact.network, exact.variables, exact.mean, exact.std)
    for start in range(0, len(images), AT_ONCE):
        for found in differences(frozen, reference, images[start : start + AT_ONCE]):
            if not found.tie:
                where = f"at {found.node}, in {found.codes} codes" if found.codes else "in the logits"
                amount = f"by {found.apart:.2g}, allowed {TIE if found.codes else LOGITS:.2g}; nothing was written"
                raise UserError(f"frozen and stripped model differ beyond ties for a {what}, first {where}, {amount}")


def open_test(model: inference.Model, split: str, data_dir: str) -> tuple[Feed, dict[str, str]]:
    """The test images of a model, and what they are. Raises UserError if they are not at hand."""
    data = trained_on(model, "the model")
    split = split or data.test_split or default_splits(data.name)[1]
    feed = open_labelled(model, dataclasses.replace(data, data_dir=data_dir or data.data_dir), split)
    return feed, {"data": data.name, "split": split}


def _check_out(out: Path, model: Path | Address) -> Path:
    """Where the card goes. Raises UserError for a path that cannot be written to, before anything is computed."""
    if out.suffix != ".plq":
        raise UserError(f"--out {out}: allowed a name that ends in .plq")
    require_file(out, {"--model": model}, file.is_frozen, "a frozen model")
    beside = out.with_suffix(".md")
    is_card = lambda path: path.read_text("utf-8", errors="replace").startswith(MARK)
    require_file(beside, {"--model": model}, is_card, "a model card", f"--out {out}: the card")
    return beside


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first lines."""
    parser = arguments("plq.freeze", "Pack a stripped model into one file, checked against it, with a model card.")
    parser.add_argument("--model", type=path_or_address, required=True, help="a stripped model (a folder)")
    parser.add_argument(
        "--out", type=path_or_address, required=True, help="the file to write, NAME.plq; the card is NAME.md"
    )
    parser.add_argument("--split", default="", help="to compare on, in TFDS syntax (default: the test split)")
    parser.add_argument("--data_dir", default="", help="of TFDS (default: as in training, else $TFDS_DATA_DIR)")
    given = parser.parse_args(argv)
    devices()
    with writing(given.out, ".md") as out:
        _freeze(given, out)


def _freeze(given: argparse.Namespace, out: Path) -> None:
    beside = _check_out(out, given.model)
    with reading(given.model) as path:
        source = read_source(path)
    frozen = freeze(source.exact)
    model = from_frozen(file.decode(file.encode(frozen)))
    compare_on_noise(model, source.exact)
    facts: dict[str, Any] = {"plq": __version__}
    try:
        feed, about = open_test(source.served, given.split, given.data_dir)
    except UserError as error:
        if given.split or given.data_dir:
            raise
        print(f"not compared on test images: {error}")
    else:
        facts |= {**about, **compare_on_data(model, source, feed)}
    frozen = dataclasses.replace(frozen, training={**frozen.training, "freezing": facts})
    data = file.encode(frozen)
    file.write(out, data)
    write_text_atomic(beside, card(frozen, out.name, len(data)))
    print(layer_table(frozen))
    print()
    print(summary(frozen, len(data)))
    print("\n" + printable(named(f"wrote {out} and {beside}")))


if __name__ == "__main__":
    run(main)
