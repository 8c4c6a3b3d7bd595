"""The measures of curation as rows of one table: `make evaluate`, `python -m tests.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure.

    Attributes:
        measure: What was measured, with the back end's name.
        on: On which recordings; one file, or a set.
        value: As a share, or in the unit the measure names.
        asked: The figure asked for; None for a figure that only explains another.
        sense: Whether `value` is to be at most or at least `asked`.
        unit: `%` shows the value as a percentage; else it follows the value.
        low: Lower end of the 95 % interval, when there is one.
        high: Upper end.
    """

    measure: str
    on: str
    value: float
    asked: float | None = None
    sense: Literal["<=", ">="] = "<="
    unit: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the figure asked for is reached; None when none was."""
        if self.asked is None:
            return None
        return self.value <= self.asked if self.sense == "<=" else self.value >= self.asked


Measurement = Callable[[Path], Iterable[Figure]]
"""Gets the folder of the speech files, returns figures per file and in total."""


def shown(value: float, unit: str) -> str:
    """Returns a value as the table shows it."""
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.4g} {unit}".rstrip()


def lines(figures: Iterable[Figure]) -> Iterator[str]:
    """Yields the table as Markdown."""
    yield "| measure | on | measured | asked | |"
    yield "|---|---|---|---|---|"
    for one in figures:
        span = "" if one.low is None or one.high is None else (
            f" ({shown(one.low, one.unit)} to {shown(one.high, one.unit)})"
        )  # fmt: skip
        asked = "" if one.asked is None else f"{one.sense} {shown(one.asked, one.unit)}"
        verdict = {None: "", True: "reached", False: "missed"}[one.met]
        yield f"| {one.measure} | {one.on} | {shown(one.value, one.unit)}{span} | {asked} | {verdict} |"
