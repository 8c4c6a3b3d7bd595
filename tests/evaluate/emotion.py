"""Accuracy of the embedded emotion classifier for speakers it has not heard, as trained by its own command.

The classifiers judged here are those of nested leave-one-speaker-out cross-validation, with the shipped settings: the
shipped one has heard all speakers. Below them, what explains the figure: recalls, sentences held out too, and what is
left of it when the held-out clips are coded or band-limited.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends.emotion_prosody import ProsodyEmotion
from data_engine.core.config import read_yaml, validate
from data_engine.core.errors import RecordError
from data_engine.models.prosody import prosody
from data_engine.training.emotion import EmotionSettings
from data_engine.training.emotion_examples import EmotionClip, Examples, measured, tagged_clips
from data_engine.training.emotion_validation import (
    confusion,
    held_out_speakers,
    held_out_speakers_and_texts,
    interval,
    recalls,
    unweighted_accuracy,
)
from tests.evaluate.disturbances import DISTURBANCES
from tests.evaluate.duplicates import mono
from tests.evaluate.table import Figure

CONFIG = Path(__file__).parents[2] / "configs" / "training" / "emotion.yaml"
CODED = ("MP3 32 kbit/s", "Opus 16 kbit/s", "8 kHz")
ASKED = 0.55
_MEASURE = "emotion, prosody, leave-one-speaker-out"


def figures(folder: Path) -> Iterator[Figure]:
    """Yields unweighted accuracy with its interval, and what it is made of.

    Args:
        folder: The speech files, with manifest.jsonl.
    """
    settings = validate(EmotionSettings, read_yaml(CONFIG) | {"recordings": folder}, str(CONFIG))
    clips = list(tagged_clips(folder, settings.sources, settings.emotions))
    examples = measured(clips, settings.copies, settings.augment, settings.seed)
    if len(examples.emotions) != len(clips):
        raise ValueError("a clip without speech: what is judged would not be what was listed")
    tested = np.stack([examples.rows[:, 0], *(disturbed_rows(clips, name) for name in CODED)])
    posteriors, strengths = held_out_speakers(examples, settings.strengths, tested)
    found = posteriors.argmax(axis=2)
    yield from plain_figures(examples, found[0], settings)
    apart = held_out_speakers_and_texts(examples, strengths).argmax(axis=1)
    yield accuracy(examples, apart, "unweighted accuracy, sentence held out too", settings)
    for name, row in zip(CODED, found[1:], strict=True):
        yield accuracy(examples, row, f"unweighted accuracy, clips as {name}", settings)
    yield from elsewhere(folder)
    yield Figure(f"{_MEASURE}: mean confidence", described(examples), float(posteriors[0].max(axis=1).mean()), unit="%")


def plain_figures(examples: Examples, found: npt.NDArray[np.int64], settings: EmotionSettings) -> Iterator[Figure]:
    """Yields the figure asked for, and recall and commonest mistake of each emotion."""
    yield accuracy(examples, found, "unweighted accuracy", settings, ASKED)
    table = confusion(examples.emotions, found, len(examples.names))
    for name, recall, row in zip(examples.names, recalls(table), table, strict=True):
        taken = ", ".join(f"{other} {count}" for other, count in zip(examples.names, row, strict=True))
        yield Figure(f"{_MEASURE}: recall of {name}", f"taken for: {taken}", float(recall), unit="%")


def elsewhere(folder: Path) -> Iterator[Figure]:
    """Yields how often the shipped classifier hears neutral in plain English reading of other rooms and speakers."""
    model = ProsodyEmotion()
    model.open()
    found: Counter[str] = Counter()
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        listed = json.loads(line)
        if listed["language"] == "en" and listed["kinds"] == ["read"] and not listed["style"]:
            try:
                (heard,) = model.recognize([mono((folder / listed["path"]).read_bytes())])
            except RecordError:
                continue
            found[heard.name if heard else "none"] += 1
    total = max(1, sum(found.values()))
    counts = ", ".join(f"{name} {count}" for name, count in found.most_common())
    on = f"{total} English recordings read plainly, which nobody tagged: {counts}"
    yield Figure("emotion, prosody, shipped: called neutral", on, found["neutral"] / total, unit="%")


def accuracy(
    examples: Examples, found: npt.NDArray[np.int64], what: str, settings: EmotionSettings, asked: float | None = None
) -> Figure:
    """Returns the unweighted accuracy of what was found, with its interval over speakers."""
    value = unweighted_accuracy(confusion(examples.emotions, found, len(examples.names)))
    low, high = interval(examples, found, settings.draws, settings.seed)
    return Figure(f"{_MEASURE}: {what}", described(examples), value, asked, ">=", "%", low, high)


def described(examples: Examples) -> str:
    """Returns what was judged, in words."""
    speakers = len(np.unique(examples.speakers))
    return f"{len(examples.emotions)} acted German clips of {speakers} speakers, {len(examples.names)} emotions"


def disturbed_rows(clips: Sequence[EmotionClip], name: str) -> npt.NDArray[np.float64]:
    """Returns the measures of all clips after a disturbance, [clips, measures]; NaN where no speech is left."""
    found = [prosody(DISTURBANCES[name](clip.wave)) for clip in clips]
    width = max(len(one) for one in found if one is not None)
    return np.array([list(one.values()) if one is not None else [np.nan] * width for one in found], np.float64)
