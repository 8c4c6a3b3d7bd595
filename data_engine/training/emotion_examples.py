"""Clips with an emotion tag, measured as they are and in other rooms: what the emotion classifier learns from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError
from data_engine.models.codebook_corpus import load_wave
from data_engine.models.features import Floats
from data_engine.models.prosody import prosody
from data_engine.training.speech.augment import AugmentSettings, disturbed

TAG = "emotion:"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class EmotionClip:
    """One acted clip.

    Attributes:
        wave: float32 [samples], 16 kHz.
        emotion: Name.
        speaker: Speaker.
        text: What is said; the path where nobody wrote it down.
    """

    wave: Floats
    emotion: str
    speaker: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Measured clips.

    Attributes:
        rows: Measures of each clip and of its disturbed copies, [clips, 1 + copies, measures]; all NaN where a copy
            has no speech left.
        emotions: Number of the emotion of each clip, [clips].
        speakers: [clips].
        texts: [clips].
        names: Names of the emotions.
        measures: Names of the measures.
    """

    rows: Values
    emotions: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.str_]
    texts: npt.NDArray[np.str_]
    names: tuple[str, ...]
    measures: tuple[str, ...]

    def of(self, chosen: npt.NDArray[np.bool_]) -> Examples:
        """Returns some of the clips."""
        return Examples(
            self.rows[chosen], self.emotions[chosen], self.speakers[chosen], self.texts[chosen], self.names,
            self.measures,
        )  # fmt: skip


def tagged_clips(folder: Path, sources: Sequence[str], emotions: Mapping[str, str]) -> Iterator[EmotionClip]:
    """Yields the clips of a folder with `manifest.jsonl` that have one of the tags.

    Args:
        folder: Each line of its manifest names path, source_repo, speaker_id, transcript and style tags.
        sources: Repositories whose clips are taken.
        emotions: Tag, without `emotion:` -> name.

    Raises:
        ConfigError: There is no manifest.
    """
    try:
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read '{folder / 'manifest.jsonl'}': {error.strerror}. Check `recordings`") from error
    for listed in map(json.loads, lines):
        tags = [tag.removeprefix(TAG) for tag in listed["style"] or () if tag.startswith(TAG)]
        if listed["source_repo"] in sources and len(tags) == 1 and tags[0] in emotions:
            yield EmotionClip(
                load_wave(folder / listed["path"]), emotions[tags[0]], listed["speaker_id"] or listed["path"],
                listed["transcript"] or listed["path"],
            )  # fmt: skip


def measured(clips: Sequence[EmotionClip], copies: int, augment: AugmentSettings, seed: int) -> Examples:
    """Returns the measures of clips and of disturbed copies; clips without 0.3 s of speech are left out.

    Args:
        clips: In any order; a clip's copies depend on its place.
        copies: Disturbed copies of each clip.
        augment: How they are disturbed.
        seed: Of every draw.
    """
    kept, rows = [], []
    measures: tuple[str, ...] = ()
    for number, clip in enumerate(clips):
        plain = prosody(clip.wave)
        if plain is None:
            continue
        measures = tuple(plain)
        rng = np.random.default_rng([seed, number])
        others = [prosody(disturbed(clip.wave, augment, rng)) for _ in range(copies)]
        missing = dict.fromkeys(measures, np.nan)
        rows.append([list((one or missing).values()) for one in (plain, *others)])
        kept.append(clip)
    names = tuple(sorted({clip.emotion for clip in kept}))
    return Examples(
        np.array(rows, np.float64).reshape(len(kept), 1 + copies, len(measures)),
        np.array([names.index(clip.emotion) for clip in kept], np.int64),
        np.array([clip.speaker for clip in kept], np.str_),
        np.array([clip.text for clip in kept], np.str_),
        names, measures,
    )  # fmt: skip
