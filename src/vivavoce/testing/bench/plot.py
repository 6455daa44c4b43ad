"""The times of every turn as a picture: for each measure, the share of turns that were as soon as that, or sooner.

Such a curve shows at once what a median and a percentile only hint at: how wide the times lie, and whether there are
two kinds of them. Plain SVG of some kilobytes, with no package behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Curve", "Panel", "svg"]

WIDTH = 760
PANEL_HEIGHT = 260
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 40, 48
TITLE_HEIGHT = 34
LEGEND_LINE = 20
TICKS_ABOUT = 8
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Told apart by colour-blind eyes as well; beyond that the lines differ in their dashes."""
DASHES = ("", "7 4", "2 3", "10 3 2 3")
GUIDES = (0.5, 0.95)
NAME_CHARS_MAX = 90


@dataclass(frozen=True, slots=True)
class Curve:
    """What one endpoint took, in ms."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure; curves without values are left out."""

    title: str
    curves: Sequence[Curve]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The panels below each other, with one legend. Raises `ValueError` where there is nothing to draw."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    drawn = [panel for panel in panels if any(curve.values for curve in panel.curves)]
    if not drawn:
        raise ValueError("there are no times to draw")
    head = TITLE_HEIGHT + LEGEND_LINE * len(names)
    height = head + PANEL_HEIGHT * len(drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">{escape(title)}</text>',
        *_legend(names),
    ]
    for number, panel in enumerate(drawn):
        parts += _panel(panel, names, head + number * PANEL_HEIGHT)
    return "\n".join([*parts, "</svg>\n"])


def _look(number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    return f'stroke="{COLOURS[number % len(COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _legend(names: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        y = TITLE_HEIGHT + LEGEND_LINE * number + 6
        shown = name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1]}…"
        yield f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + 30}" y2="{y}" {_look(number)} stroke-width="2.5"/>'
        yield f'<text x="{LEFT + 38}" y="{y + 4}">{escape(shown)}</text>'


def _panel(panel: Panel, names: Sequence[str], top: int) -> Iterator[str]:
    longest = max(max(curve.values, default=0.0) for curve in panel.curves)
    step = _step(longest)
    end = step * max(math.ceil(longest / step), 1)
    x0, x1, y0, y1 = LEFT, WIDTH - RIGHT, top + PANEL_HEIGHT - BOTTOM, top + TOP

    def x(ms: float) -> float:
        return round(x0 + max(ms, 0.0) / end * (x1 - x0), 1)

    def y(share: float) -> float:
        return round(y0 - share * (y0 - y1), 1)

    yield f'<text x="{x0}" y="{top + 26}" font-weight="600">{escape(panel.title)}</text>'
    for tick in range(round(end / step) + 1):
        at, ms = x(tick * step), tick * step
        yield f'<line x1="{at}" y1="{y0}" x2="{at}" y2="{y1}" stroke="#e4e4e4"/>'
        yield f'<text x="{at}" y="{y0 + 16}" text-anchor="middle">{ms:g}</text>'
    yield f'<text x="{(x0 + x1) / 2}" y="{y0 + 34}" text-anchor="middle">ms</text>'
    for share in (0.0, *GUIDES, 1.0):
        dash = ' stroke-dasharray="3 3"' if share in GUIDES else ""
        yield f'<line x1="{x0}" y1="{y(share)}" x2="{x1}" y2="{y(share)}" stroke="#999"{dash}/>'
        if share < 1:  # whose label would touch the one below it
            yield f'<text x="{x0 - 8}" y="{y(share) + 4}" text-anchor="end">{share:.0%}</text>'
    for curve in panel.curves:
        if curve.values:
            points = " ".join(f"{x(ms)},{y(share)}" for ms, share in _steps(curve.values, end))
            look = f'fill="none" stroke-width="2.5" {_look(names.index(curve.name))}'
            yield f'<polyline points="{points}" {look}><title>{escape(curve.name)}</title></polyline>'


def _steps(values: Sequence[float], end: float) -> Iterator[tuple[float, float]]:
    """The corners of the curve, from nobody at 0 to everybody at the end."""
    yield 0.0, 0.0
    for number, value in enumerate(sorted(values)):
        yield value, number / len(values)
        yield value, (number + 1) / len(values)
    yield end, 1.0


def _step(longest: float) -> float:
    """A round distance for the ticks: 1, 2 or 5 times a power of ten."""
    rough = max(longest, 1.0) / TICKS_ABOUT
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
