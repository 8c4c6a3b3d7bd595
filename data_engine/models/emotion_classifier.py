"""Emotions from the measures of `models.prosody`: a linear classifier that is a JSON file of coefficients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError

Values = npt.NDArray[np.float64]

FORMAT = "prosody-emotion-1"
MOST_DEVIATIONS = 3.5
"""A measure further from the mean counts as that far: one freak value must not decide alone."""

_DIGITS = 6


@dataclass(frozen=True, slots=True, eq=False)
class EmotionClassifier:
    """Multinomial logistic regression over standardised measures.

    Attributes:
        emotions: Names of the classes.
        measures: Names of the measures, in the order of the columns.
        mean: Of each measure over the training clips, [measures].
        scale: Standard deviation, [measures].
        weights: [emotions, measures].
        bias: [emotions].
    """

    emotions: tuple[str, ...]
    measures: tuple[str, ...]
    mean: Values
    scale: Values
    weights: Values
    bias: Values

    def posteriors(self, rows: Values) -> Values:
        """Returns the posterior of each emotion, [clips, emotions].

        Args:
            rows: Measures of the clips, [clips, measures]; NaN counts as the mean.
        """
        deviations = standardised(rows, self.mean, self.scale)
        # Not a matrix product: its order of sums, and with it the last bit, depends on the number of clips.
        scores = (deviations[:, None, :] * self.weights).sum(axis=2) + self.bias
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def rows(self, measured: list[Mapping[str, float]]) -> Values:
        """Returns the measures of clips in the order of this classifier, [clips, measures]."""
        values = [[clip[name] for name in self.measures] for clip in measured]
        return np.array(values, np.float64).reshape(len(measured), len(self.measures))


def standardised(rows: Values, mean: Values, scale: Values) -> Values:
    """Returns deviations from the mean in standard deviations, within +-3.5; 0 where a measure is missing."""
    deviations = np.nan_to_num((rows - mean) / scale, nan=0.0)
    return np.asarray(np.clip(deviations, -MOST_DEVIATIONS, MOST_DEVIATIONS))


def write_classifier(path: Path, classifier: EmotionClassifier) -> None:
    """Writes the coefficients, rounded to 6 decimals, as JSON."""
    coefficients = {
        name: {
            "mean": round(float(mean), _DIGITS),
            "scale": round(float(scale), _DIGITS),
            "weights": [round(float(weight), _DIGITS) for weight in weights],
        }
        for name, mean, scale, weights in zip(
            classifier.measures, classifier.mean, classifier.scale, classifier.weights.T, strict=True
        )
    }
    content = {
        "format": FORMAT, "emotions": list(classifier.emotions),
        "bias": [round(float(value), _DIGITS) for value in classifier.bias], "measures": coefficients,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_classifier(path: Path) -> EmotionClassifier:
    """Returns a classifier that `write_classifier` wrote.

    Raises:
        ConfigError: The file is missing or is no such classifier.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        measures = content["measures"]
        columns = [np.array([one[key] for one in measures.values()], np.float64) for key in ("mean", "scale")]
        weights = np.array([one["weights"] for one in measures.values()], np.float64).T
        bias = np.array(content["bias"], np.float64)
        fits = content["format"] == FORMAT and weights.shape == (len(content["emotions"]), len(measures))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"cannot read the emotion classifier '{path}': {type(error).__name__}: {error}") from error
    if not fits or len(bias) != len(weights):
        raise ConfigError(f"'{path}' is no emotion classifier in the format {FORMAT}")
    return EmotionClassifier(
        tuple(content["emotions"]), tuple(measures), columns[0], columns[1], np.ascontiguousarray(weights), bias
    )
