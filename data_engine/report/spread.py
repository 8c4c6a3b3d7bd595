"""How values are spread: counts in fixed fine bins, added up over parts, so memory does not grow with rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
_FEWEST, _TARGET = 8, 24
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(slots=True)
class Spread:
    """Counts of values in bins of equal width from `low` to `high`; the end bins take what lies beyond.

    Attributes:
        low: Lower end.
        width: Width of a bin.
        size: Number of bins.
        missing: Values that were null or not finite.
        counts: Values per bin.
        sums: Their sum per bin.
    """

    low: float
    width: float
    size: int
    missing: int = 0
    counts: npt.NDArray[np.int64] = field(init=False)
    sums: Values = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.size, np.int64)
        self.sums = np.zeros(self.size)

    @property
    def count(self) -> int:
        """Values that were measured."""
        return int(self.counts.sum())

    def add(self, values: Values) -> None:
        """Adds values; NaN stands for null.

        Args:
            values: float64 [rows].
        """
        good = values[np.isfinite(values)]
        self.missing += len(values) - len(good)
        places = np.clip(np.floor((good - self.low) / self.width + 1e-9), 0, self.size - 1).astype(np.int64)
        self.counts += np.bincount(places, minlength=self.size)
        self.sums += np.bincount(places, good, self.size)

    def merge(self, other: Spread) -> None:
        """Adds the values of a spread with the same bins."""
        self.missing += other.missing
        self.counts += other.counts
        self.sums += other.sums

    def quantile(self, share: float) -> float | None:
        """Returns a quantile: the mean of the values in its bin, so exact to a bin; None without values.

        Args:
            share: 0..1; 0.5 is the (lower) median.
        """
        if not self.count:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.count, side="left"))
        return float(self.sums[place] / self.counts[place])

    @property
    def median(self) -> float | None:
        """Median, exact to a bin; None without values."""
        return self.quantile(0.5)


@dataclass(frozen=True, slots=True)
class Bars:
    """Coarse counts for a chart.

    Attributes:
        low: Left edge of the first bar.
        width: Width of a bar.
        counts: One row of counts per spread, int64 [spreads, bars].
    """

    low: float
    width: float
    counts: npt.NDArray[np.int64]

    @property
    def high(self) -> float:
        """Right edge of the last bar."""
        return self.low + self.width * int(self.counts.shape[1])


def bars(spreads: Sequence[Spread]) -> Bars | None:
    """Returns common bars over the occupied range of spreads with equal bins; None without values.

    About twice the square root of the number of values, 8 to 40 bars, in steps of 1, 2, 5, 10 ... bins.
    """
    grid: Any = np.stack([spread.counts for spread in spreads])
    occupied = np.flatnonzero(grid.sum(axis=0))
    if not len(occupied):
        return None
    target = float(np.clip(2 * np.sqrt(grid.sum()), _FEWEST, _TARGET))
    span = occupied[-1] - occupied[0] + 1
    steps = [step for step in _STEPS if step * _FEWEST <= grid.shape[1]]
    step = min(steps, key=lambda s: abs(math.log(span / s / target)))
    first, last = _widened(occupied[0] // step, occupied[-1] // step + 1, -(-grid.shape[1] // step))
    padded = np.pad(grid, ((0, 0), (0, -grid.shape[1] % step)))
    coarse = padded.reshape(len(spreads), -1, step).sum(axis=2)[:, first:last]
    return Bars(spreads[0].low + first * step * spreads[0].width, step * spreads[0].width, coarse)


def _widened(first: int, last: int, size: int) -> tuple[int, int]:
    """Returns a range of bars that is at least `_FEWEST` wide, around the given one and within 0..size."""
    missing = max(_FEWEST - (last - first), 0)
    first = max(min(first - missing // 2, size - _FEWEST), 0) if missing else first
    return first, max(last, min(first + _FEWEST, size))
