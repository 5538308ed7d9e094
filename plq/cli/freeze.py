"""Freeze a stripped model into one file: ``plq freeze --model DIR --out model.plq``.

The few-bit weights are packed, batch norm is folded, and what the file computes is compared with the model: on noise,
and on the test images if the data set is at hand. Nothing is written unless they agree (`plq.runtime.verification`).
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from plq import __version__
from plq.cli.common import Parser, add_network, arguments, path_or_address
from plq.errors import UserError, printable
from plq.storage.address import named
from plq.storage.output import require_apart, require_file, write_text_atomic
from plq.storage.staging import staged_input, staged_output


def _check_out(given: argparse.Namespace, out: Path) -> Path:
    """Where the card goes; ``out`` is --out or the local copy of that address.

    Raises UserError for a path that cannot be written to, before anything is computed.
    """
    from plq.report.model_card import MARK
    from plq.runtime.file_format import is_frozen

    if out.suffix != ".plq":
        raise UserError(f"--out {out}: allowed a name that ends in .plq")
    require_apart(given.out, {"--model": given.model})
    require_file(out, {}, is_frozen, "a frozen model")
    beside = out.with_suffix(".md")
    is_card = lambda path: path.read_text("utf-8", errors="replace").startswith(MARK)
    require_file(beside, {}, is_card, "a model card", f"--out {out}: the card")
    return beside


def parser() -> Parser:
    """The arguments."""
    made = arguments("freeze", "Pack a stripped model into one file, checked against it, with a model card.")
    made.add_argument("--model", type=path_or_address, required=True, help="a stripped model (a folder)")
    made.add_argument(
        "--out", type=path_or_address, required=True, help="the file to write, NAME.plq; the card is NAME.md"
    )
    add_network(made, "a model")
    made.add_argument("--split", default="", help="to compare on, in TFDS syntax (default: the test split)")
    made.add_argument("--data_dir", default="", help="as data.data_dir (default: as in training, else $TFDS_DATA_DIR)")
    return made


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first lines."""
    given = parser().parse_args(argv)
    from plq.distributed.devices import devices

    devices()
    with staged_output(given.out, ".md") as out:
        _freeze(given, out)


def _freeze(given: argparse.Namespace, out: Path) -> None:
    from plq.report.frozen_summary import layer_table, summary
    from plq.report.model_card import card
    from plq.runtime import file_format
    from plq.runtime.freezing import compare_on_noise, freeze_model, read_source
    from plq.runtime.frozen import from_frozen
    from plq.trainer.image_comparison import compare_on_data, open_test

    beside = _check_out(given, out)
    with staged_input(given.model) as path:
        source = read_source(path, given.network)
    frozen = freeze_model(source.exact)
    model = from_frozen(file_format.decode(file_format.encode(frozen)))
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
    data = file_format.encode(frozen)
    file_format.write(out, data)
    write_text_atomic(beside, card(frozen, out.name, len(data)))
    print(layer_table(frozen))
    print()
    print(summary(frozen, len(data)))
    print("\n" + printable(named(f"wrote {out} and {beside}")))
