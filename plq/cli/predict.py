"""Classes of image files: ``plq predict --model PATH image.png ...``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from plq.cli.common import Parser, add_network, arguments, local_path, path_or_address
from plq.errors import UserError, printable

if TYPE_CHECKING:
    import numpy as np

    from plq.runtime.loading import Servable


def top_classes(model: Servable, image: np.ndarray, top: int) -> str:
    """ "ship 0.812, airplane 0.101": names and probabilities, the most likely first."""
    import jax
    import numpy as np

    logits = model(image[None])
    if np.shape(logits) != (1, len(model.class_names)):
        shapes = [list(np.shape(leaf)[1:]) for leaf in jax.tree.leaves(logits)]
        raise UserError(f"the model gives {', '.join(map(str, shapes))} for an image, allowed one number per class")
    probabilities = np.asarray(jax.nn.softmax(logits[0]))
    order = np.argsort(-probabilities, kind="stable")[:top]
    return ", ".join(f"{model.class_names[index]} {probabilities[index]:.3f}" for index in order)


def parser() -> Parser:
    """The arguments."""
    made = arguments("predict", "Class names and probabilities from a stripped or frozen model.")
    what = "a stripped model (a folder) or a frozen one (a file)"
    made.add_argument("--model", type=path_or_address, required=True, help=what)
    add_network(made, "a stripped model")
    made.add_argument("--top", type=int, default=3, help="how many classes to name (default: 3)")
    made.add_argument("--convert", action="store_true", help="bring images to the model's number of channels")
    made.add_argument("images", type=local_path, nargs="+", help="image files; resized to the model's input")
    return made


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line. Status 2 if any image could not be used."""
    given = parser().parse_args(argv)
    if given.top < 1:
        raise UserError(f"--top {given.top}: allowed 1 or more")
    from plq.runtime.loading import open_model, read_image

    model, failed = open_model(given.model, given.network), False
    for path in given.images:
        try:
            print(f"{printable(path)}: {top_classes(model, read_image(path, model, given.convert), given.top)}")
        except UserError as error:
            failed = True
            print(f"plq: {error}", file=sys.stderr)
    if failed:
        sys.exit(2)
