"""Histograms of what was measured, and the asked-against-measured plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from data_engine.report import wording
from data_engine.report.charts import Asked, asked_measured, histogram
from data_engine.report.control import Followed, Measured, median_factor
from data_engine.report.spread import Spread, bars
from data_engine.report.tables import Clips

_MEASURES: Mapping[str, tuple[str, str, int]] = {
    "seconds": ("Length", "s", 1),
    "dnsmos_ovr": ("DNSMOS overall", "MOS 1–5", 2),
    "snr_db": ("Signal to noise", "dB", 1),
    "speaking_rate": ("Speaking rate", "syllables/s", 2),
    "f0_median_hz": ("Median pitch", "Hz", 0),
    "word_error_rate": ("Word error rate", "errors per word", 2),
    "speaker_similarity": ("Similarity to the voice", "cosine", 2),
    "score": ("Composite score", "0–1", 2),
}
"""Measure -> title, unit, decimals."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its caption."""

    title: str
    unit: str
    caption: str
    chart: Markup


def figures(clips: Clips, rows: str, limits: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Returns a histogram of each measure that has values.

    Args:
        clips: What to show.
        rows: What a row is: segments or takes.
        limits: Measure -> thresholds to mark.
    """
    drawn = (_figure(name, pair, rows, limits.get(name, ())) for name, pair in clips.spreads.items())
    return [figure for figure in drawn if figure is not None]


def _figure(name: str, pair: tuple[Spread, Spread], rows: str, limits: Sequence[float]) -> Figure | None:
    coarse = bars(pair)
    if coarse is None:
        return None
    title, unit, digits = _MEASURES[name]
    every = Spread(pair[0].low, pair[0].width, pair[0].size)
    for spread in pair:
        every.merge(spread)
    medians = f"median {wording.number(every.median, digits)}"
    if pair[0].count and pair[1].count:
        medians += f", of the kept {wording.number(pair[0].median, digits)}"
    whole = every.count + every.missing
    measured = f"{wording.count(every.count)} of {wording.count(whole)} {rows} measured"
    caption = f"{medians}; {measured if every.missing else f'n = {wording.count(whole)}'}"
    return Figure(title, unit, caption, histogram(f"{title} in {unit}", caption, coarse, every.median, limits))


def control_figure(title: str, ordered: Sequence[tuple[str, Followed]], measure: str) -> Figure | None:
    """Returns the dot plot of `tempo` or `pitch` for what was asked; None when nothing was measured."""
    rows = [row for key, followed in ordered if (row := _asked(key, getattr(followed, measure))) is not None]
    if not rows:
        return None
    said = "; ".join(f"{row.label}: asked × {row.asked:.2f}, measured × {row.measured:.2f}" for row in rows)
    return Figure(title, "factor", "", asked_measured(title, said, rows))


def _asked(key: str, measured: Measured) -> Asked | None:
    spread = measured.measured
    found = [median_factor(measured.asked), *(median_factor(spread, share) for share in (0.5, 0.1, 0.9))]
    factors = [value for value in found if value is not None]
    return Asked(key, *factors) if len(factors) == len(found) else None
