"""Write a data set as array_record: ``plq prepare NAME --manual_dir DIR``, ``plq prepare folder DIR --out OUT``."""

import argparse
import shlex

from plq.cli.common import Parser, arguments, local_path
from plq.errors import UserError

DESCRIPTION = """Prepare a data set, once: it is written as array_record, which training reads without TensorFlow.

  plq prepare NAME --manual_dir DIR     a set that TFDS knows, from its archives, into the TFDS folder
  plq prepare folder DIR --out OUT      your own pictures, as data.name=folder takes them, into OUT

After an interruption the same command begins to write the set again, but does not check archives a second time.
"""
EPILOG = "Exit status: 0 done, now or before; 2 after one line that says what is missing or wrong."


def parser() -> Parser:
    """The arguments."""
    made = arguments("prepare", DESCRIPTION, EPILOG)
    made.add_argument("name", help="of the data set, as in data.name; folder for your own pictures")
    made.add_argument("folder", metavar="DIR", nargs="?", help="with folder: where the pictures are")
    archives = "folder of the archives, under their own names"
    made.add_argument("--manual_dir", type=local_path, help=archives)
    made.add_argument("--data_dir", help="default: $TFDS_DATA_DIR, else ~/tensorflow_datasets")
    made.add_argument("--out", type=local_path, help="with folder: where the set is written; data.data_dir of training")
    made.add_argument("--name", dest="set_name", metavar="NAME", help="with folder: of the set (default: DIR's)")
    made.add_argument("--labels", metavar="FILE", help="with folder: as data.labels")
    made.add_argument("--holdout", metavar="SHARE", type=float, help="with folder: as data.holdout")
    made.add_argument("--corrupt_share", metavar="SHARE", type=float, help="with folder: as data.corrupt_share")
    return made


OF_FOLDER = {"DIR": "folder", "--out": "out", "--name": "set_name", "--labels": "labels", "--holdout": "holdout",
             "--corrupt_share": "corrupt_share"}  # fmt: skip
OF_TFDS = {"--manual_dir": "manual_dir", "--data_dir": "data_dir"}


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parser().parse_args(argv)
    if given.name == "folder":
        _require(given, {"DIR": "folder", "--out": "out"}, OF_TFDS)
        _prepare_folder(given)
        return
    _require(given, {"--manual_dir": "manual_dir"}, OF_FOLDER)
    from plq.data.preparation import prepare

    prepare(given.name, given.manual_dir, given.data_dir or "")


def _require(given: argparse.Namespace, needed: dict[str, str], others: dict[str, str]) -> None:
    missing = [option for option, name in needed.items() if getattr(given, name) is None]
    if missing:
        raise UserError(f"plq prepare {given.name}: {' and '.join(missing)} missing (see --help)")
    unused = [option for option, name in others.items() if getattr(given, name) is not None]
    if unused:
        raise UserError(f"plq prepare {given.name}: {unused[0]} has no effect; leave it out")


def _prepare_folder(given: argparse.Namespace) -> None:
    from plq.config.schema import Data
    from plq.data.folder_preparation import prepare_folder
    from plq.trainer.evaluation import folder_of

    fields = {"labels": given.labels, "holdout": given.holdout, "corrupt_share": given.corrupt_share}
    set_fields = {field: value for field, value in fields.items() if value is not None}
    data = Data(name="folder", data_dir=given.folder, **set_fields)
    data.check()
    folder = folder_of(data)
    folder.report(data.corrupt_share)
    name = prepare_folder(folder, given.out, given.set_name or "")
    print(f"train with --config.data.name={name} --config.data.data_dir={shlex.quote(str(given.out))}")
