"""Stage `separate`: takes the voice out of segments in which music or noise is heard; the others stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from data_engine.backends.protocols import QualityModel, Wave
from data_engine.backends.protocols_listening import Separator
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.io.decoding.resample import resample
from data_engine.models.acoustics import activity

_BACKGROUND = 1
"""Column of the background score in what a quality model returns."""
_ANALYSIS_RATE = 16000
_SHORTEST_SECONDS = 0.1


class SeparateConfig(Settings):
    """Configuration of `separate`.

    Attributes:
        separation: Back end of the role `separation`; there is no embedded one.
        quality: Back end of the role `quality`, which hears the background.
        below_background: A segment is separated when its background score lies below; MOS 1..5.
        max_rows: At most so many segments at once.
        max_seconds: At most so many seconds of audio at once.
    """

    separation: BackendChoice = Field(json_schema_extra={"role": "separation"})
    quality: BackendChoice = role("quality", "dnsmos")
    below_background: float = Field(3.0, ge=1, le=5)
    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(300.0, gt=0.0)


class Separate:
    """Separates the segments whose background asks for it, before they are transcribed and measured.

    Consumes: segment_id, audio, num_samples, sample_rate
    Produces: segment_id, audio, separated
    Rejects: EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, NO_AUDIO_STREAM, UNSUPPORTED_CODEC, DECODE_FAILED

    The sound of a separated segment has the length and the rate that it had; the bytes of the others do not change.
    Whether a segment was separated stands in the column `separated`, for policies that want untouched speech.
    """

    Config = SeparateConfig

    def __init__(self, config: SeparateConfig) -> None:
        self._config = config
        self._quality: QualityModel | None = None
        self._separator: Separator | None = None
        schema = load_schema("segment")
        self.spec = StageSpec(
            name="separate",
            version="1",
            consumes=schema.pick("audio", "num_samples", "sample_rate"),
            produces=schema.pick("audio", "separated"),
            shape="map",
            batch=BatchHint(config.max_rows, config.max_seconds),
        )

    def open(self, worker: Worker) -> None:
        """Loads the models."""
        quality, separation = self._config.quality, self._config.separation
        self._quality = worker.backend("quality", quality.name, quality.options)
        self._separator = worker.backend("separation", separation.name, separation.options)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Scores the background of a batch and separates what lies below."""
        rows, waves, rejects = self._read(batch)
        asked = self._asking(waves)
        self._separate([rows[number] for number in asked], [waves[number] for number in asked])
        seconds = sum(len(wave) / rate for wave, rate in (waves[number] for number in asked))
        metrics = {"separated": float(len(asked)), "separated_seconds": seconds}
        return StageResult(self.spec.produces.batch(rows), rejects, metrics)

    def close(self) -> None:
        """Lets go of the models; the worker's cache owns them."""
        self._quality = self._separator = None

    def _read(self, batch: pa.RecordBatch) -> tuple[list[dict[str, Any]], list[tuple[Wave, int]], list[Reject]]:
        """Returns the output rows as if nothing were separated, the waves and rates of each, and rejects."""
        rows: list[dict[str, Any]] = []
        waves: list[tuple[Wave, int]] = []
        rejects: list[Reject] = []
        for row in iterate_rows(batch):
            name = row[self.spec.produces.id]
            try:
                waves.append(_decoded(row["audio"], row["sample_rate"]))
            except RecordError as error:
                rejects.append(Reject(name, error.code, error.detail))
                continue
            rows.append({self.spec.produces.id: name, "audio": row["audio"], "separated": False})
        return rows, waves, rejects

    def _asking(self, waves: Sequence[tuple[Wave, int]]) -> list[int]:
        """Returns the numbers of the waves whose background lies below the threshold."""
        assert self._quality is not None
        heard = [number for number, (wave, rate) in enumerate(waves) if _measurable(wave, rate)]
        if not heard:
            return []
        scores = self._quality.score([_at(waves[number], self._quality.sample_rate) for number in heard])
        low = scores[:, _BACKGROUND] < self._config.below_background  # never true for NaN
        return [number for number, is_low in zip(heard, low.tolist(), strict=True) if is_low]

    def _separate(self, rows: Sequence[dict[str, Any]], waves: Sequence[tuple[Wave, int]]) -> None:
        """Puts the voice of each wave in place of the audio of its row."""
        assert self._separator is not None
        if not rows:
            return
        found = self._separator.speech([_at(wave, self._separator.sample_rate) for wave in waves])
        for row, (wave, rate), voice in zip(rows, waves, found, strict=True):
            fitted = fit(_at((voice, self._separator.sample_rate), rate), len(wave))
            row["audio"] = {**row["audio"], "bytes": encode_flac(fitted, rate)}
            row["separated"] = True


def fit(wave: Wave, num_samples: int) -> Wave:
    """Returns a wave of so many samples, cut or padded with zeros: a rate forth and back may cost one; within -1..1."""
    return np.clip(np.pad(wave[:num_samples], (0, max(num_samples - len(wave), 0))), -1, 1)


def _decoded(audio: Mapping[str, Any] | None, sample_rate: int) -> tuple[Wave, int]:
    """Returns the wave, channels averaged, and its rate; empty when the row holds none."""
    if audio is None or audio["bytes"] is None:
        return np.zeros(0, np.float32), sample_rate
    channels, rate = decode_bytes(audio["bytes"])
    return (channels[0] if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)), rate


def _measurable(wave: Wave, rate: int) -> bool:
    """Whether there is something to judge: 0.1 s that is not silence."""
    if len(wave) < _SHORTEST_SECONDS * rate:
        return False
    return bool(activity(_at((wave, rate), _ANALYSIS_RATE), _ANALYSIS_RATE).active.any())


def _at(wave: tuple[Wave, int], sample_rate: int) -> Wave:
    samples, rate = wave
    return samples if rate == sample_rate else resample(samples, rate, sample_rate)
