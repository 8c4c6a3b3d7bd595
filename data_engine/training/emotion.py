"""Trains the embedded emotion classifier: `data-engine train emotion --config configs/training/emotion.yaml`.

Few speakers, so: a linear classifier, a strong penalty whose strength nested cross-validation chooses, and copies of
each clip in other rooms, so that it learns the voice and not the studio.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from data_engine.core.config import Settings
from data_engine.core.errors import ConfigError
from data_engine.models.emotion_classifier import write_classifier
from data_engine.training.emotion_examples import Examples, measured, tagged_clips
from data_engine.training.emotion_validation import (
    best_strength,
    confusion,
    draw_confusion,
    fitted,
    held_out_speakers,
    held_out_speakers_and_texts,
    interval,
    recalls,
    unweighted_accuracy,
)
from data_engine.training.speech.augment import AugmentSettings

MODEL, REPORT, PICTURE = "model.json", "validation.json", "confusion.png"
_LEAST_SPEAKERS = 3


class EmotionSettings(Settings):
    """Settings of the training.

    Attributes:
        output: Folder of the classifier, the report and the picture.
        recordings: Folder with `manifest.jsonl`.
        sources: Repositories of the manifest whose clips train.
        emotions: Tag of the manifest -> name.
        copies: Disturbed copies of each clip.
        augment: How they are disturbed.
        strengths: Inverse penalties to choose from.
        draws: Bootstrap draws of the interval.
        seed: Of disturbances and draws.
    """

    output: Path
    recordings: Path
    sources: tuple[str, ...]
    emotions: dict[str, str]
    copies: int = Field(6, ge=0)
    augment: AugmentSettings = AugmentSettings()
    strengths: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    draws: int = Field(10_000, ge=100)
    seed: int = 1


def train(settings: EmotionSettings) -> None:
    """Trains on all speakers, and writes what held-out speakers say of such a classifier.

    Raises:
        ConfigError: There are fewer than two emotions or three speakers.
    """
    examples = read_examples(settings)
    report, table = validated(examples, settings)
    strength = best_strength(examples, settings.strengths)
    write_classifier(settings.output / MODEL, fitted(examples, strength))
    content = {"strength": strength, **report}
    (settings.output / REPORT).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    title = f"held-out speakers: {100 * report['unweighted_accuracy']:.1f} %"
    draw_confusion(table, examples.names, title, settings.output / PICTURE)


def read_examples(settings: EmotionSettings) -> Examples:
    """Returns the measured clips.

    Raises:
        ConfigError: There are fewer than two emotions or three speakers.
    """
    clips = list(tagged_clips(settings.recordings, settings.sources, settings.emotions))
    examples = measured(clips, settings.copies, settings.augment, settings.seed)
    speakers = len(np.unique(examples.speakers))
    if len(examples.names) < 2 or speakers < _LEAST_SPEAKERS:
        raise ConfigError(
            f"'{settings.recordings}' has {len(clips)} clips of {speakers} speakers and {len(examples.names)} emotions "
            f"from {', '.join(settings.sources)}; held-out speakers need at least {_LEAST_SPEAKERS} and two emotions"
        )
    return examples


def validated(examples: Examples, settings: EmotionSettings) -> tuple[dict[str, Any], Any]:
    """Returns the figures of nested cross-validation, and its confusion matrix [emotions, emotions]."""
    posteriors, strengths = held_out_speakers(examples, settings.strengths)
    found = posteriors.argmax(axis=1)
    table = confusion(examples.emotions, found, len(examples.names))
    low, high = interval(examples, found, settings.draws, settings.seed)
    apart = held_out_speakers_and_texts(examples, strengths).argmax(axis=1)
    report = {
        "clips": len(found), "speakers": len(np.unique(examples.speakers)), "emotions": list(examples.names),
        "unweighted_accuracy": unweighted_accuracy(table), "interval": [low, high],
        "recalls": dict(zip(examples.names, recalls(table).tolist(), strict=True)),
        "confusion": table.tolist(),
        "strengths": dict(zip(examples.speakers.tolist(), strengths.tolist(), strict=True)),
        "mean_confidence": float(posteriors.max(axis=1).mean()),
        "speaker_and_sentence_held_out": unweighted_accuracy(confusion(examples.emotions, apart, len(examples.names))),
    }  # fmt: skip
    return report, table
