"""A figure, what is asked of it, and its 95 % interval by the bootstrap over utterances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]
Statistic = Callable[[Weights], float]
"""How often each utterance counts to the figure."""

Sense = Literal[">=", "<="]

_TAIL = 2.5


class NotMeasuredError(Exception):
    """What a row needs is not there; says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of a figure.

    Attributes:
        sense: Whether it is to be at least or at most so much.
        floor: What it must reach.
        asked: What is aimed at.
        unit: `%` and `points` are stored as shares and shown times 100.
    """

    sense: Sense
    floor: float
    asked: float | None = None
    unit: Literal["", "%", "points", "x"] = ""

    def met(self, value: float, bound: float) -> bool:
        """Tells whether a value is on the right side of a bound."""
        return value >= bound if self.sense == ">=" else value <= bound


@dataclass(frozen=True, slots=True)
class Found:
    """A measured figure.

    Attributes:
        value: On all utterances.
        low: Lower end of the 95 % interval; None where resampling has no meaning.
        high: Upper end.
        utterances: How many it rests on.
        details: What it was computed from.
    """

    value: float
    low: float | None = None
    high: float | None = None
    utterances: int = 0
    details: dict[str, Any] = field(default_factory=dict)


def bootstrap(statistic: Statistic, utterances: int, seed: int, resamples: int = 1000) -> tuple[float, float, float]:
    """Returns a figure and its 95 % interval by the percentile bootstrap (Efron 1979), moved to the figure.

    A sample holds some utterances twice, so entropies and information come out lower or higher in it than in as many
    distinct ones; the mean of all samples is therefore moved to the figure. Rates and means do not move.

    Args:
        statistic: Figure of weighted utterances.
        utterances: How many there are.
        seed: Of the samples.
        resamples: How many samples of `utterances` utterances with replacement are drawn.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(utterances, np.full(utterances, 1 / utterances), resamples).astype(np.float64)
    values = np.array([statistic(weights) for weights in drawn])
    value = float(statistic(np.ones(utterances)))
    low, high = np.percentile(values, (_TAIL, 100 - _TAIL)) + (value - values.mean())
    return value, float(low), float(high)


def ratio_of(counted: npt.ArrayLike, total: npt.ArrayLike) -> Statistic:
    """Returns the statistic sum of `counted` over sum of `total`, one number of each per utterance."""
    above, below = np.asarray(counted, np.float64), np.asarray(total, np.float64)

    def share(weights: Weights) -> float:
        return float(weights @ above / max(float(weights @ below), 1e-12))

    return share


def mean_of(values: npt.ArrayLike) -> Statistic:
    """Returns the statistic mean, one number per utterance."""
    numbers = np.asarray(values, np.float64)
    return ratio_of(numbers, np.ones(len(numbers)))
