"""What a frozen model holds: ``plq info model.plq``."""

from plq.cli.common import Parser, arguments, path_or_address
from plq.storage.staging import staged_input


def parser() -> Parser:
    """The arguments."""
    made = arguments("info", "Layers, sizes, preprocessing and origin of a frozen model.")
    made.add_argument("model", type=path_or_address, help="a frozen model (model.plq)")
    return made


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parser().parse_args(argv)
    from plq.report.frozen_summary import layer_table, summary
    from plq.runtime.file_format import read

    with staged_input(given.model) as path:
        frozen, size = read(path), path.stat().st_size
    print(layer_table(frozen))
    print()
    print(summary(frozen, size))
