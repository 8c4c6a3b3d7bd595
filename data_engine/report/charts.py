"""Charts as inline SVG. Colours come from the style sheet of the page; every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from data_engine.report.spread import Bars

WIDTH, HEIGHT = 340, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 18, 22
_ROW, _LABELS = 24, 92


def histogram(title: str, description: str, bars: Bars, median: float | None, limits: Sequence[float] = ()) -> Markup:
    """Returns a histogram of stacked bars.

    Args:
        title: Its accessible name.
        description: What it shows, in a sentence.
        bars: Counts; the first row stands at the bottom.
        median: Marked with a line.
        limits: Thresholds, marked with dashed lines.
    """
    top, plot = max(int(bars.counts.sum(axis=0).max()), 1), HEIGHT - _TOP - _BOTTOM
    step = (WIDTH - _LEFT - _RIGHT) / bars.counts.shape[1]
    shapes = [_line("grid", _LEFT, _TOP, WIDTH - _RIGHT, _TOP), _text(_LEFT, _TOP - 4, f"{top:,}", "start")]
    for place in range(bars.counts.shape[1]):
        base = float(HEIGHT - _BOTTOM)
        for layer, counts in enumerate(bars.counts):
            height = plot * int(counts[place]) / top
            base -= height
            if height:
                shapes.append(_bar(f"layer{layer}", _LEFT + place * step, base, max(step - 1, 0.5), height))
    shapes.append(_line("axis", _LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT, HEIGHT - _BOTTOM))
    shapes += [_tick(bars, value) for value in ticks(bars.low, bars.high)]
    shapes += [_mark(bars, limit, "limit") for limit in limits if bars.low < limit < bars.high]
    shapes += [_mark(bars, median, "median")] if median is not None else []
    return _svg(title, description, HEIGHT, shapes)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round values from `low` to `high`, at most `most` of them."""
    rough = (high - low) / most
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10, 20) if size * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _place(bars: Bars, value: float) -> float:
    inside = min(max(value, bars.low), bars.high)
    return _LEFT + (inside - bars.low) / (bars.high - bars.low) * (WIDTH - _LEFT - _RIGHT)


def _tick(bars: Bars, value: float) -> Markup:
    place = _place(bars, value)
    anchor = "start" if place < 16 else "end" if place > WIDTH - 16 else "middle"
    base = HEIGHT - _BOTTOM
    return _line("axis", place, base, place, base + 4) + _text(place, base + 16, f"{value:g}", anchor)


def _mark(bars: Bars, value: float, kind: str) -> Markup:
    return _line(kind, _place(bars, value), _TOP - 4, _place(bars, value), HEIGHT - _BOTTOM)


@dataclass(frozen=True, slots=True)
class Asked:
    """A row of `asked_measured`: factors; `low` and `high` are the 10th and 90th percentile of the measured."""

    label: str
    asked: float
    measured: float
    low: float
    high: float


def asked_measured(title: str, description: str, rows: Sequence[Asked]) -> Markup:
    """Returns a dot plot on a logarithmic axis: a ring for what was asked, a dot for what was measured."""
    values = [value for row in rows for value in (row.asked, row.measured, row.low, row.high)]
    low, high = min(0.7, *values) / 1.05, max(1.4, *values) * 1.05
    height = _ROW * len(rows) + 40

    def place(value: float) -> float:
        return _LABELS + math.log(value / low) / math.log(high / low) * (WIDTH - _LABELS - 14)

    shapes = []
    for value in (v for v in (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0) if low < v < high):
        shapes.append(_line("one" if value == 1 else "grid", place(value), 8, place(value), height - 24))
        shapes.append(_text(place(value), height - 8, f"×{value:g}", "middle"))
    for number, row in enumerate(rows):
        y = 20 + number * _ROW
        shapes.append(_text(0, y + 4, row.label, "start"))
        shapes.append(_line("whisker", place(row.low), y, place(row.high), y))
        shapes.append(Markup('<circle class="dot" cx="{:.1f}" cy="{}" r="4"/>').format(place(row.measured), y))
        shapes.append(Markup('<circle class="ring" cx="{:.1f}" cy="{}" r="6"/>').format(place(row.asked), y))
    return _svg(title, description, height, shapes)


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    return shape.format(kind, x, y, width, height)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    shape = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return shape.format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _svg(title: str, description: str, height: int, shapes: Sequence[Markup]) -> Markup:
    head = Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>'
    )
    label = f"{title}. {description}"
    return head.format(WIDTH, height, label, title, description, Markup("").join(shapes))
