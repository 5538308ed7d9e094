"""Tables and sizes in plain text."""

from typing import Any


def format_table(header: list[str], rows: list[list[Any]], total: list[Any] | None = None) -> str:
    """Aligned columns: numbers to the right with thousands separators, text to the left."""
    cells = [[_cell(value) for value in row] for row in ([*rows, total] if total else rows)]
    widths = [max(len(row[column]) for row in [header, *cells]) for column in range(len(header))]
    right = [bool(rows) and isinstance(rows[0][column], (int, float)) for column in range(len(header))]

    def line(row: list[str]) -> str:
        aligned = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    rule = "  ".join("-" * width for width in widths)
    body = [line(row) for row in cells]
    return "\n".join([line(header), rule, *body[:-1], rule, body[-1]] if total else [line(header), rule, *body])


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def human_bytes(size: int) -> str:
    """1536 -> "1.5 KiB"."""
    scaled, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if scaled < 1024:
            break
        scaled, unit = scaled / 1024, larger
    return f"{scaled:.1f} {unit}" if unit != "B" else f"{size} B"
