"""Stage `annotate`: measures quality, level, pitch, rate and voice of every clip. It never drops a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_engine.backends.protocols import QualityModel, SpeakerEmbedder
from data_engine.backends.protocols_listening import EmotionModel, IntrusiveQualityModel
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.schema import Schema, load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes
from data_engine.io.decoding.resample import resample
from data_engine.models import acoustics, pitch, syllables

Floats = npt.NDArray[np.float32]

CONSUMES = ("audio", "num_samples", "sample_rate", "text", "language")
QUALITY = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovr")
ACOUSTICS = (
    "snr_db", "clipping_ratio", "bandwidth_hz", "energy_dbfs", "f0_median_hz", "f0_std_semitones", "voiced_ratio",
    "speaking_rate", "silence_ratio",
)  # fmt: skip
EMBEDDING = "speaker_embedding"
SQUIM = ("squim_stoi", "squim_pesq", "squim_sisdr")
EMOTION = ("emotion", "emotion_confidence")

_ANALYSIS_RATE = 16000
_SHORTEST_SECONDS = 0.1


class AnnotateConfig(Settings):
    """Configuration of `annotate`.

    Attributes:
        record: What is measured: segments of recordings or candidates of turns.
        quality: Back end of the role `quality`.
        speaker: Back end of the role `speaker`; used for segments only.
        squim: Back end of the role `squim`, for segments; nobody unless chosen.
        emotion: Back end of the role `emotion`; used for segments only, and by nobody unless chosen.
        max_rows: At most so many clips at once.
        max_seconds: At most so many seconds of audio at once.
    """

    record: Literal["segment", "candidate"] = "segment"
    quality: BackendChoice = role("quality", "dnsmos")
    speaker: BackendChoice = role("speaker", "resemblyzer")
    squim: BackendChoice | None = role("squim", None)
    emotion: BackendChoice | None = role("emotion", None)
    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(300.0, gt=0.0)


@dataclass(slots=True)
class Clip:
    """One decoded clip.

    Attributes:
        wave: float32 [samples], mono, at the rate it is stored in.
        sample_rate: That rate.
        speech: The same at 16 kHz, the rate of analysis.
        where: Where speech is.
    """

    wave: Floats
    sample_rate: int
    speech: Floats
    where: acoustics.Activity

    @property
    def measurable(self) -> bool:
        """Whether models have something to judge: 0.1 s that is not silence."""
        return len(self.speech) >= _SHORTEST_SECONDS * _ANALYSIS_RATE and bool(self.where.active.any())

    def at(self, sample_rate: int) -> Floats:
        """Returns the wave at another rate."""
        return self.speech if sample_rate == _ANALYSIS_RATE else resample(self.wave, self.sample_rate, sample_rate)


def decode_clip(audio: Mapping[str, Any] | None) -> Clip | None:
    """Returns the decoded audio, channels averaged; None when the row holds none.

    Raises:
        RecordError: The bytes are not audio.
    """
    if audio is None or audio["bytes"] is None:
        return None
    channels, sample_rate = decode_bytes(audio["bytes"])
    wave = channels[0] if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)
    speech = resample(wave, sample_rate, _ANALYSIS_RATE)
    return Clip(wave, sample_rate, speech, acoustics.activity(speech, _ANALYSIS_RATE))


def acoustic_columns(clip: Clip, text: str | None, language: str | None) -> dict[str, float | None]:
    """Returns the columns ACOUSTICS of one clip; what cannot be measured is None.

    Clipping and bandwidth are measured at the clip's own rate, which a conversion would falsify.
    """
    f0 = pitch.fundamental_frequency(clip.speech, _ANALYSIS_RATE, pitch.QUICK)
    heard = pitch.pitch_statistics(f0)
    count = syllables.count_syllables(text, language) if text else None
    if not count:
        count = syllables.count_nuclei(clip.speech, _ANALYSIS_RATE, f0)
    columns = {
        "snr_db": acoustics.snr_db(clip.where),
        "clipping_ratio": acoustics.clipping_ratio(clip.wave),
        "bandwidth_hz": acoustics.bandwidth_hz(clip.wave, clip.sample_rate),
        "energy_dbfs": acoustics.energy_dbfs(clip.where),
        "f0_median_hz": heard.median_hz,
        "f0_std_semitones": heard.std_semitones,
        "voiced_ratio": heard.voiced_ratio,
        "speaking_rate": syllables.speaking_rate(count, clip.where),
        "silence_ratio": acoustics.silence_ratio(clip.where),
    }
    return {name: finite(value) for name, value in columns.items()}


def finite(value: float | None) -> float | None:
    """Returns the value, or None for NaN and infinity."""
    return value if value is not None and math.isfinite(value) else None


class Annotate:
    """Measures each clip: DNSMOS P.835, acoustics, and for segments the speaker embedding.

    Consumes: segment_id, audio, num_samples, sample_rate, text, language
    Produces: segment_id, dnsmos_sig, dnsmos_bak, dnsmos_ovr, snr_db, clipping_ratio, bandwidth_hz, energy_dbfs,
        f0_median_hz, f0_std_semitones, voiced_ratio, speaking_rate, silence_ratio, speaker_embedding
    Rejects: EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, NO_AUDIO_STREAM, UNSUPPORTED_CODEC, DECODE_FAILED

    What cannot be measured (no audio, too short, silence) is null. For candidates the id is
    candidate_id and there is no speaker_embedding. With a back end of the role `emotion` it also produces emotion
    and emotion_confidence of segments; what a candidate's column of that name holds is what was asked. With one of
    the role `squim` it also produces squim_stoi, squim_pesq and squim_sisdr of segments.
    """

    Config = AnnotateConfig

    def __init__(self, config: AnnotateConfig) -> None:
        self._config = config
        self._quality: QualityModel | None = None
        self._speaker: SpeakerEmbedder | None = None
        self._squim: IntrusiveQualityModel | None = None
        self._emotion: EmotionModel | None = None
        schema = load_schema(config.record)
        self._with_embedding = EMBEDDING in schema.names
        self._with_emotion = config.emotion is not None and EMOTION[-1] in schema.names
        produces = (*QUALITY, *ACOUSTICS, *((EMBEDDING,) if self._with_embedding else ()))
        if config.squim is not None and SQUIM[0] not in schema.names:
            raise ConfigError(f"annotate: the role squim measures segments only, not record '{config.record}'")
        produces += SQUIM if config.squim is not None else ()
        produces += EMOTION if self._with_emotion else ()
        hint = BatchHint(config.max_rows, config.max_seconds)
        self.spec = StageSpec("annotate", "2", schema.pick(*CONSUMES), schema.pick(*produces), "map", batch=hint)

    def open(self, worker: Worker) -> None:
        """Loads the models."""
        quality, speaker = self._config.quality, self._config.speaker
        self._quality = worker.backend("quality", quality.name, quality.options)
        if self._with_embedding:
            self._speaker = worker.backend("speaker", speaker.name, speaker.options)
        if (squim := self._config.squim) is not None:
            self._squim = worker.backend("squim", squim.name, squim.options)
        if self._with_emotion and (emotion := self._config.emotion) is not None:
            self._emotion = worker.backend("emotion", emotion.name, emotion.options)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Measures one batch; each model sees all measurable clips of it at once."""
        clips, rows, rejects = read_batch(batch, self.spec.produces)
        chosen = [index for index, clip in enumerate(clips) if clip is not None and clip.measurable]
        heard = [clip for clip in clips if clip is not None and clip.measurable]
        if heard and self._quality is not None:
            _fill(rows, chosen, quality_columns(self._quality, heard))
        if heard and self._speaker is not None:
            _fill(rows, chosen, embedding_columns(self._speaker, heard))
        if heard and self._squim is not None:
            _fill(rows, chosen, squim_columns(self._squim, heard))
        if heard and self._emotion is not None:
            _fill(rows, chosen, emotion_columns(self._emotion, heard))
        metrics = {"clips_unmeasured": float(len(clips) - len(heard))}
        return StageResult(self.spec.produces.batch(rows), rejects, metrics)

    def close(self) -> None:
        """Lets go of the models; the worker's cache owns them."""
        self._quality = self._speaker = self._squim = self._emotion = None


def read_batch(
    batch: pa.RecordBatch, produces: Schema
) -> tuple[list[Clip | None], list[dict[str, object]], list[Reject]]:
    """Returns, per row that decodes, the clip and its id and acoustic columns; rejects for the others."""
    clips: list[Clip | None] = []
    rows: list[dict[str, object]] = []
    rejects: list[Reject] = []
    for row in iterate_rows(batch):
        try:
            clip = decode_clip(row["audio"])
        except RecordError as error:
            rejects.append(Reject(row[produces.id], error.code, error.detail))
            continue
        columns = acoustic_columns(clip, row["text"], row["language"]) if clip is not None else {}
        clips.append(clip)
        rows.append({produces.id: row[produces.id], **columns})
    return clips, rows, rejects


def quality_columns(model: QualityModel, clips: Sequence[Clip]) -> list[dict[str, object]]:
    """Returns the columns QUALITY of each clip."""
    scores = model.score([clip.at(model.sample_rate) for clip in clips])
    return [dict(zip(QUALITY, map(finite, row), strict=True)) for row in scores.tolist()]


def squim_columns(model: IntrusiveQualityModel, clips: Sequence[Clip]) -> list[dict[str, object]]:
    """Returns the columns SQUIM of each clip."""
    scores = model.estimate([clip.at(model.sample_rate) for clip in clips])
    return [dict(zip(SQUIM, map(finite, row), strict=True)) for row in scores.tolist()]


def embedding_columns(model: SpeakerEmbedder, clips: Sequence[Clip]) -> list[dict[str, object]]:
    """Returns the speaker embedding of each clip, None where the model gave no direction."""
    embeddings = model.embed([clip.at(model.sample_rate) for clip in clips])
    usable: list[bool] = (np.isfinite(embeddings).all(axis=1) & (embeddings != 0).any(axis=1)).tolist()
    return [{EMBEDDING: vector.tolist() if ok else None} for vector, ok in zip(embeddings, usable, strict=True)]


def emotion_columns(model: EmotionModel, clips: Sequence[Clip]) -> list[dict[str, object]]:
    """Returns the columns EMOTION of each clip, None where the model has nothing to judge by."""
    found = model.recognize([clip.at(model.sample_rate) for clip in clips])
    return [dict(zip(EMOTION, (one.name, one.confidence) if one else (None, None), strict=True)) for one in found]


def _fill(rows: list[dict[str, object]], indices: Sequence[int], columns: Sequence[dict[str, object]]) -> None:
    for index, values in zip(indices, columns, strict=True):
        rows[index].update(values)
