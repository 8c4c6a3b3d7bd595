"""An utterance of the training corpus, and the row of the table `segments` it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.core.ids import content_id
from data_engine.io.audio import encode_flac
from data_engine.models.phones import TimedPhone

SAMPLE_RATE = 16000
Wave = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """One utterance.

    Attributes:
        wave: float32 [samples] at 16 kHz.
        text: What is said.
        language: ISO 639-1.
        speaker: Name of the voice, unique within the source.
        source: Who spoke: a teacher and its version, or the repository of a recording.
        licence: Licence of the audio.
        split: train or test.
        phones: Phones with their times; None for real speech.
    """

    wave: Wave
    text: str
    language: str
    speaker: str
    source: str
    licence: str
    split: str
    phones: Sequence[TimedPhone] | None = None

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.wave) / SAMPLE_RATE


def row_of(spoken: Spoken) -> dict[str, object]:
    """Returns the row of schema `segment` that holds an utterance; the teacher's text counts as the source's."""
    flac = encode_flac(spoken.wave, SAMPLE_RATE)
    recording = content_id(flac)
    phones = [
        {"text": phone.name, "start": phone.start, "num_samples": phone.end - phone.start}
        for phone in spoken.phones or ()
    ]
    return {
        "segment_id": content_id(recording, 0, 0, len(spoken.wave)), "recording_id": recording, "channel": 0,
        "start": 0, "num_samples": len(spoken.wave), "sample_rate": SAMPLE_RATE,
        "speaker_id": f"{spoken.source}:{spoken.speaker}", "split": spoken.split, "language": spoken.language,
        "licence": spoken.licence, "consent_basis": f"licence of {spoken.source}", "allowed_uses": ["asr", "tts"],
        "is_synthetic": spoken.phones is not None, "audio": {"bytes": flac, "path": None}, "text": spoken.text,
        "text_source": "source", "phones": phones if spoken.phones is not None else None,
    }  # fmt: skip


def resampled(wave: Wave, factor: float) -> Wave:
    """Returns a wave stretched to `factor` times its length; pitch and formants go down by the same factor."""
    import soxr

    return np.asarray(soxr.resample(wave, SAMPLE_RATE, SAMPLE_RATE * factor), np.float32)


def levelled(wave: Wave, peak: float = 0.7) -> Wave:
    """Returns a wave whose loudest sample is `peak`; silence stays silence."""
    loudest = float(np.abs(wave).max(initial=0.0))
    return np.asarray(wave * np.float32(peak / max(loudest, 1e-3)), np.float32)
