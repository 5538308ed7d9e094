"""Pieces of HTML: tables, figures, foldable parts. All words are escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from plq.compare.report.figures import Figure

RunConfig = Any


def table(header: Sequence[str], rows: Iterable[Sequence[RunConfig]], total: Sequence[RunConfig] | None = None) -> str:
    """Numbers, and whatever stands in the other columns than the first, to the right."""
    head = "".join(f"<th{_right(column)}>{escape(name)}</th>" for column, name in enumerate(header))
    body = "".join(_row(row) for row in rows) + (_row(total, "total") if total else "")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(cells: Sequence[RunConfig], css: str = "") -> str:
    inner = "".join(f"<td{_right(column)}>{escape(_words(cell))}</td>" for column, cell in enumerate(cells))
    return f'<tr class="{css}">{inner}</tr>' if css else f"<tr>{inner}</tr>"


def _right(column: int) -> str:
    return ' class="n"' if column else ""


def _words(cell: RunConfig) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def figure(found: Figure) -> str:
    return f"<figure><b>{escape(found.title)}</b>{found.svg}<figcaption>{escape(found.caption)}</figcaption></figure>"


def figures(found: Iterable[Figure | None]) -> str:
    """Side by side where there is room; None is left out."""
    return f'<div class="figures">{"".join(figure(each) for each in found if each is not None)}</div>'


def folded(title: str, inner: str, note: str = "", css: str = "", is_open: bool = False) -> str:
    """A part that opens when its title is clicked."""
    preflight = " open" if is_open else ""
    remark = f" <span>{escape(note)}</span>" if note else ""
    return f'<details class="{css}"{preflight}><summary>{escape(title)}{remark}</summary>{inner}</details>'


def paragraph(words: str, css: str = "") -> str:
    return f'<p class="{css}">{escape(words)}</p>' if css else f"<p>{escape(words)}</p>"


def code(words: str) -> str:
    return f"<pre>{escape(words)}</pre>"


def tiles(found: Iterable[tuple[str, str]]) -> str:
    """Large figures, each with what it is; what follows a space in a figure is smaller."""
    one = '<div class="tile"><b>{} <small>{}</small></b><span>{}</span></div>'
    inner = "".join(one.format(*map(escape, (*value.partition(" ")[::2], name))) for value, name in found)
    return f'<div class="tiles">{inner}</div>'


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Rows are true classes; the darker a field, the larger its share of the row."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(_shaded(count, sum(row), i == j) for j, count in enumerate(row))}</tr>"
        for i, (name, row) in enumerate(zip(names, counts, strict=True))
    )
    return f'<div class="wide"><table class="confusion"><tr><th></th>{head}</tr>{rows}</table></div>'


def _shaded(count: int, total: int, right: bool) -> str:
    share = 100 * count / total if total else 0.0
    colour = "var(--expanded)" if right else "var(--warn)"
    shade = min(75.0, share * (0.6 if right else 2.0))
    style = f"background: color-mix(in srgb, {colour} {shade:.0f}%, transparent)"
    return f'<td style="{style}" title="{share:.1f} %">{count or "·"}</td>'


def keys(classes: Mapping[str, str]) -> str:
    """Names behind the colours of their CSS classes."""
    inner = "".join(f'<span class="{css}"><i></i><b>{escape(name)}</b></span>' for css, name in classes.items())
    return f'<p class="keys">{inner}</p>'


def images(found: Iterable[tuple[str, str]]) -> str:
    """(data URI, caption) in rows."""
    inner = "".join(f'<div><img src="{uri}" alt="{escape(words)}">{escape(words)}</div>' for uri, words in found)
    return f'<div class="errors">{inner}</div>'
