"""Prepare a TFDS data set once: ``plq prepare imagenet2012 --manual_dir ~/archives``."""

from plq.cli.common import Parser, arguments, local_path

DESCRIPTION = """Prepare a TFDS data set from its archives, once: it is written to the TFDS folder as array_record,
which training reads without TensorFlow. After an interruption the same command begins to write the set again,
but does not check the archives a second time.
"""
EPILOG = "Exit status: 0 done, now or before; 2 after one line that says what is missing or wrong."


def parser() -> Parser:
    """The arguments."""
    made = arguments("prepare", DESCRIPTION, EPILOG)
    made.add_argument("name", help="of the data set, as in data.name")
    archives = "folder of the archives, under their own names"
    made.add_argument("--manual_dir", type=local_path, required=True, help=archives)
    made.add_argument("--data_dir", default="", help="default: $TFDS_DATA_DIR, else ~/tensorflow_datasets")
    return made


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parser().parse_args(argv)
    from plq.data.preparation import prepare

    prepare(given.name, given.manual_dir, given.data_dir)
