"""Figures as SVG text: axes, lines, bands and dots, coloured by CSS classes so that they follow light and dark."""

import dataclasses
import math
from collections.abc import Sequence
from html import escape

Points = Sequence[tuple[float, float]]


def picture(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """The figure; ``label`` says to those who cannot see it what it shows."""
    size = f'viewBox="0 0 {number(width)} {number(height)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start", style: str = "") -> str:
    """``anchor``: which end of the words is at x, "start", "middle" or "end"."""
    place = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
    return f'<text {place} class="{css}"{_style(style)}>{escape(words)}</text>'


def _style(style: str) -> str:
    return f' style="{style}"' if style else ""


def segment(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} class="{css}"/>'


def rectangle(x: float, y: float, width: float, height: float, css: str, title: str = "") -> str:
    size = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {size} class="{css}">{_title(title)}</rect>'


def circle(x: float, y: float, radius: float, css: str, title: str = "") -> str:
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="{css}">{_title(title)}</circle>'


def _title(words: str) -> str:
    """Shown while the pointer is over the shape."""
    return f"<title>{escape(words)}</title>" if words else ""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from low to high: multiples of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 10, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * k, 12) for k in range(first, last + 1)]


def span(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Lowest and highest with room around them."""
    low, high = min(values), max(values)
    room = margin * (high - low) or abs(high) * margin or 1.0
    return low - room, high + room


@dataclasses.dataclass(frozen=True)
class Axes:
    """A rectangle of a figure, in pixels, and the ranges of x and y that it shows."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in pixels."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + self.height - up * self.height

    def horizontal(self, labels: bool = True, count: int = 5) -> str:
        """Grid lines for y, with their numbers at the left."""
        parts = []
        for value in ticks(*self.y, count):
            y = self.at(self.x[0], value)[1]
            parts.append(segment(self.left, y, self.left + self.width, y, "grid"))
            parts.append(text(self.left - 6, y + 4, f"{value:g}", "tick", "end") if labels else "")
        return "".join(parts)

    def vertical(self, labels: bool = True, name: str = "", count: int = 6) -> str:
        """The line below, the numbers of x, and what x is."""
        bottom = self.top + self.height
        parts = [segment(self.left, bottom, self.left + self.width, bottom, "axis")]
        if labels:
            parts += [text(self.at(x, 0)[0], bottom + 15, f"{x:g}", "tick", "middle") for x in ticks(*self.x, count)]
            parts.append(text(self.left + self.width / 2, bottom + 30, name, "name", "middle"))
        return "".join(parts)

    def line(self, points: Points, css: str, style: str = "") -> str:
        """A polyline; what lies outside the range of y is drawn at its edge."""
        inside = [self.at(x, min(max(y, self.y[0]), self.y[1])) for x, y in points]
        path = " ".join(f"{number(x)},{number(y)}" for x, y in inside)
        return f'<polyline points="{path}" class="line {css}"{_style(style)}/>'

    def band(self, points: Sequence[tuple[float, float, float]], css: str) -> str:
        """The area between low and high: points are (x, low, high)."""
        clip = lambda y: min(max(y, self.y[0]), self.y[1])
        edge = [self.at(x, clip(high)) for x, _, high in points] + [self.at(x, clip(low)) for x, low, _ in points[::-1]]
        path = " ".join(f"{number(x)},{number(y)}" for x, y in edge)
        return f'<polygon points="{path}" class="band {css}"/>'
