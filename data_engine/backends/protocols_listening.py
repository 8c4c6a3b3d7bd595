"""The roles that take a recording apart: who speaks when, when each word is said, how, and what is not speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Backend, Wave, Word
from data_engine.core.errors import RecordError


@dataclass(frozen=True, slots=True, order=True)
class SpeakerTurn:
    """One stretch of one speaker, in samples of the wave; speakers count from 0."""

    start: int
    num_samples: int
    speaker: int


@dataclass(frozen=True, slots=True, eq=False)
class Diarization:
    """Who speaks when in one wave.

    Attributes:
        turns: In order; those of different speakers overlap where people speak at once.
        embeddings: Unit-length voice of each speaker, float32 [speakers, dimensions]; those of one back end are
            comparable between waves. Zeros where a speaker never speaks long enough alone.
    """

    turns: tuple[SpeakerTurn, ...]
    embeddings: npt.NDArray[np.float32]


class Diarizer(Backend, Protocol):
    """Role `diarization`."""

    sample_rate: int

    def diarize(self, waves: Sequence[Wave]) -> list[Diarization]:
        """Returns the turns of each wave; a wave in which nobody speaks has none."""
        ...


@dataclass(frozen=True, slots=True)
class AlignedText:
    """Times of a known text.

    Attributes:
        words: One for each word of the text, in its order.
        phones: With times; None when the aligner has none.
        confidence: How well the text fits the sound, 0..1.
    """

    words: tuple[Word, ...]
    phones: tuple[Word, ...] | None = None
    confidence: float | None = None


class Aligner(Backend, Protocol):
    """Role `aligner`."""

    sample_rate: int
    languages: frozenset[str]

    def align(self, waves: Sequence[Wave], texts: Sequence[str], language: str) -> list[AlignedText | RecordError]:
        """Returns when each word of each text is said; in its place, the error of a text that cannot be aligned."""
        ...


@dataclass(frozen=True, slots=True)
class Emotion:
    """How a clip is said: the likeliest emotion in lower case (`neutral`, `angry`, ...), and its posterior, 0..1."""

    name: str
    confidence: float


class EmotionModel(Backend, Protocol):
    """Role `emotion`."""

    sample_rate: int
    emotions: tuple[str, ...]

    def recognize(self, waves: Sequence[Wave]) -> list[Emotion | None]:
        """Returns the emotion of each wave, one of `emotions`; None where there is nothing to judge by."""
        ...


class Separator(Backend, Protocol):
    """Role `separation`."""

    sample_rate: int

    def speech(self, waves: Sequence[Wave]) -> list[Wave]:
        """Returns the voice of each wave without music and noise, as long as the wave."""
        ...


class IntrusiveQualityModel(Backend, Protocol):
    """Role `squim`: what measures that compare with a clean reference would say, guessed without one."""

    sample_rate: int

    def estimate(self, waves: Sequence[Wave]) -> npt.NDArray[np.float32]:
        """Returns STOI (0..1), wide-band PESQ (MOS) and SI-SDR (dB), [waves, 3]; NaN where there is no speech."""
        ...
