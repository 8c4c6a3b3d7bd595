"""What the emotion classifier is worth for speakers it has not heard: nested leave-one-speaker-out cross-validation.

The strength of regularisation is chosen for each held-out speaker by cross-validation over the other speakers, so a
speaker decides nothing about the classifier that judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.models.emotion_classifier import EmotionClassifier, standardised
from data_engine.training.emotion_examples import Examples

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Fit = Callable[[Examples, float], EmotionClassifier]

_ITERATIONS, _TOLERANCE = 2000, 1e-6
_CONSTANT = 1e-9


def fitted(examples: Examples, strength: float) -> EmotionClassifier:
    """Returns multinomial logistic regression with an L2 penalty over clips and their copies, emotions of equal weight.

    Args:
        examples: Of at least two emotions.
        strength: Inverse of the penalty per clip: small is strict.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    from sklearn.linear_model import LogisticRegression

    versions = examples.rows.shape[1]
    rows, emotions = examples.rows.reshape(-1, len(examples.measures)), np.repeat(examples.emotions, versions)
    heard = ~np.isnan(rows).all(axis=1)
    rows, emotions = rows[heard], emotions[heard]
    mean, scale = _spread(rows)
    regression = LogisticRegression(
        C=strength / versions, class_weight="balanced", max_iter=_ITERATIONS, tol=_TOLERANCE
    )
    regression.fit(standardised(rows, mean, scale), emotions)
    weights, bias = np.asarray(regression.coef_), np.asarray(regression.intercept_)
    if len(examples.names) == 2:  # scikit-learn keeps one row for two classes
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return EmotionClassifier(examples.names, examples.measures, mean, scale, weights, bias)


def _spread(rows: Values) -> tuple[Values, Values]:
    """Returns mean and standard deviation of each measure over the clips that have it; 0 and 1 where none differ."""
    known = ~np.isnan(rows)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rows, 0.0).sum(axis=0) / counts
    scale = np.sqrt(np.square(np.where(known, rows - mean, 0.0)).sum(axis=0) / counts)
    return mean, np.where(scale > _CONSTANT, scale, 1.0)


def best_strength(examples: Examples, strengths: Sequence[float]) -> float:
    """Returns the strength with the best log likelihood when each speaker is held out; the strictest of equals.

    Likelihood, not accuracy: with few clips it is less of a lottery, and what it prefers says how sure it may be.
    """
    ordered = sorted(strengths)
    if len(ordered) == 1:
        return ordered[0]
    scores = []
    for strength in ordered:
        likelihoods = np.zeros(len(examples.emotions))
        for speaker in np.unique(examples.speakers):
            held = examples.speakers == speaker
            posteriors = fitted(examples.of(~held), strength).posteriors(examples.rows[held, 0])
            likelihoods[held] = np.log(posteriors[np.arange(held.sum()), examples.emotions[held]])
        scores.append(likelihoods.mean())
    return ordered[int(np.argmax(scores))]


def held_out_speakers(
    examples: Examples, strengths: Sequence[float], tested: Values | None = None
) -> tuple[Values, Values]:
    """Returns the posteriors each clip gets from a classifier that never heard its speaker, and the strengths chosen.

    Args:
        examples: What the classifiers learn from.
        strengths: To choose from, by cross-validation over the other speakers.
        tested: Measures to judge in place of the clips' own, [clips, measures] or [conditions, clips, measures].

    Returns:
        [..., clips, emotions] and, for each clip, the strength of its classifier, [clips].
    """
    rows = examples.rows[:, 0] if tested is None else tested
    posteriors = np.zeros((*rows.shape[:-1], len(examples.names)))
    chosen = np.zeros(len(examples.emotions))
    for speaker in np.unique(examples.speakers):
        held = examples.speakers == speaker
        others = examples.of(~held)
        chosen[held] = strength = best_strength(others, strengths)
        wanted = rows[..., held, :]
        judged = fitted(others, strength).posteriors(wanted.reshape(-1, wanted.shape[-1]))
        posteriors[..., held, :] = judged.reshape(*wanted.shape[:-1], -1)
    return posteriors, chosen


def held_out_speakers_and_texts(examples: Examples, strengths: Values) -> Values:
    """Returns the posteriors, [clips, emotions], from classifiers that heard neither the speaker nor the sentence.

    Args:
        examples: Measured clips.
        strengths: For each clip, as `held_out_speakers` chose them, [clips].
    """
    posteriors = np.zeros((len(examples.emotions), len(examples.names)))
    for speaker, text in sorted(set(zip(examples.speakers.tolist(), examples.texts.tolist(), strict=True))):
        same_speaker, same_text = examples.speakers == speaker, examples.texts == text
        held = same_speaker & same_text
        classifier = fitted(examples.of(~same_speaker & ~same_text), float(strengths[held][0]))
        posteriors[held] = classifier.posteriors(examples.rows[held, 0])
    return posteriors


def confusion(said: Counts, found: Counts, emotions: int) -> Counts:
    """Returns how many clips of each emotion (row) were taken for each (column), [emotions, emotions]."""
    return np.bincount(said * emotions + found, minlength=emotions**2).reshape(emotions, emotions)


def unweighted_accuracy(table: npt.NDArray[np.int64]) -> float:
    """Returns the mean of the recalls of the emotions there are: each counts the same however many clips it has."""
    return float(np.mean(recalls(table)))


def recalls(table: npt.NDArray[np.int64]) -> Values:
    """Returns the recall of each emotion that has clips."""
    totals = table.sum(axis=-1)
    return np.asarray(table.diagonal()[totals > 0] / totals[totals > 0])


def interval(examples: Examples, found: Counts, draws: int, seed: int) -> tuple[float, float]:
    """Returns the 95 % interval of the unweighted accuracy: percentiles over speakers drawn with replacement.

    Speakers, not clips: those of one speaker stand and fall together (Efron & Tibshirani 1993, ch. 8).
    """
    speakers = np.unique(examples.speakers)
    size = len(examples.names)
    tables = np.array([
        confusion(examples.emotions[chosen], found[chosen], size) for chosen in examples.speakers == speakers[:, None]
    ])  # fmt: skip
    times = np.random.default_rng(seed).multinomial(len(speakers), np.full(len(speakers), 1 / len(speakers)), draws)
    sums = np.einsum("ds,sij->dij", times, tables)
    totals = sums.sum(axis=2)
    with np.errstate(invalid="ignore"):
        accuracies = np.nanmean(sums.diagonal(axis1=1, axis2=2) / totals, axis=1)
    low, high = np.percentile(accuracies, [2.5, 97.5])
    return float(low), float(high)


def draw_confusion(table: Counts, names: Sequence[str], title: str, target: Path) -> None:
    """Writes the confusion matrix as a PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.0), dpi=80, layout="constrained")
    axes = figure.subplots()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(table.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(int(table[row, column])), ha="center", va="center", color=colour)
    places = range(len(names))
    axes.set(title=title, xlabel="recognized", ylabel="acted", xticks=places, yticks=places)
    axes.set_xticklabels(names)
    axes.set_yticklabels(names)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Software": None})
