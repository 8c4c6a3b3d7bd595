"""Stage `segment`: finds where speech is, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import model_validator

from data_engine.backends.protocols import VoiceActivityDetector
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, each
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.rules.crosstalk import CrosstalkSettings, repeated_speech

Regions = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.floating[Any]]


class SegmentConfig(Settings):
    """Configuration of `segment`.

    Attributes:
        vad: Back end of the role `vad`.
        threshold: Probability at which speech begins.
        release: Probability below which speech ends.
        min_speech_seconds: Shorter speech is noise.
        min_silence_seconds: Shorter silence is part of the speech around it.
        pad_seconds: Kept before and after speech, so that soft on- and offsets are not cut off.
        sparse_below: Share of speech below which the recording gets the warning SPEECH_SPARSE.
        crosstalk: When speech on a channel is that of another one, and left out; for recordings split into channels.
        block_seconds: Seconds read at once.
    """

    vad: BackendChoice = role("vad", "silero")
    threshold: float = 0.5
    release: float = 0.35
    min_speech_seconds: float = 0.25
    min_silence_seconds: float = 0.2
    pad_seconds: float = 0.1
    sparse_below: float = 0.25
    crosstalk: CrosstalkSettings = CrosstalkSettings()
    block_seconds: float = speed_knob(30.0, gt=0.0)

    @model_validator(mode="after")
    def _ordered(self) -> SegmentConfig:
        if not 0.0 < self.release <= self.threshold < 1.0:
            raise ValueError(f"0 < release ({self.release}) <= threshold ({self.threshold}) < 1 must hold")
        if min(self.min_speech_seconds, self.min_silence_seconds, self.pad_seconds) < 0.0:
            raise ValueError("durations must not be negative")
        return self


def speech_regions(
    probabilities: npt.NDArray[np.floating[Any]], settings: SegmentConfig, num_samples: int, hop: int, sample_rate: int
) -> Regions:
    """Returns the speech regions of one channel by hysteresis.

    Speech begins where the probability reaches `threshold` and ends where it falls below `release`; gaps shorter
    than `min_silence_seconds` are closed, then speech shorter than `min_speech_seconds` is dropped, then the rest
    is padded.

    Args:
        probabilities: Speech probability of each hop, [hops].
        settings: Thresholds and durations.
        num_samples: Length of the channel; no region passes its end.
        hop: Samples per probability.
        sample_rate: Hz.

    Returns:
        int64 [regions, 2], first sample and the sample after the last; ascending, never touching.
    """
    onsets, offsets = _hysteresis(probabilities, settings.threshold, settings.release)
    regions = np.stack([onsets * hop, np.minimum(offsets * hop, num_samples)], axis=1)
    regions = close_gaps(regions, round(settings.min_silence_seconds * sample_rate))
    regions = regions[regions[:, 1] - regions[:, 0] >= max(1, round(settings.min_speech_seconds * sample_rate))]
    pad = round(settings.pad_seconds * sample_rate)
    padded = np.stack([regions[:, 0] - pad, regions[:, 1] + pad], axis=1).clip(0, num_samples)
    return close_gaps(padded, 1)


def _hysteresis(
    probabilities: npt.NDArray[np.floating[Any]], threshold: float, release: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns first hop and hop after the last of each stretch above `release`, from its first hop at `threshold`."""
    above = np.concatenate([[False], probabilities >= release, [False]])
    starts, ends = np.flatnonzero(np.diff(above.astype(np.int8))).reshape(-1, 2).T
    strong = np.flatnonzero(probabilities >= threshold)
    after = np.searchsorted(strong, starts)
    first = np.append(strong, len(probabilities))[after]
    reached = first < ends
    return first[reached], ends[reached]


def close_gaps(regions: Regions, shorter_than: int) -> Regions:
    """Joins ascending regions whose gap is shorter than `shorter_than` samples; overlaps are always joined."""
    if not len(regions):
        return regions
    opens = np.concatenate([[True], regions[1:, 0] - regions[:-1, 1] >= max(shorter_than, 1)])
    closes = np.append(opens[1:], True)
    return np.stack([regions[opens, 0], regions[closes, 1]], axis=1)


class SegmentSpeech:
    """Finds the speech regions of each channel of a recording; what only bleeds over from another channel is none.

    Consumes: recording_id, sample_rate, num_samples, num_channels, warnings
    Produces: recording_id, warnings, speech
    Rejects: NO_SPEECH
    """

    Config = SegmentConfig

    def __init__(self, config: SegmentConfig) -> None:
        self._config = config
        self._vad: VoiceActivityDetector | None = None
        self._audio: ScratchAudio | None = None
        schema = load_schema("recording")
        self.spec = StageSpec(
            name="segment",
            version="2",
            consumes=schema.pick("sample_rate", "num_samples", "num_channels", "warnings"),
            produces=schema.pick("speech", "warnings"),
            shape="map",
            batch=BatchHint(max_rows=16),
        )

    def open(self, worker: Worker) -> None:
        """Loads the detector and finds the decoded sound of the shard."""
        self._vad = worker.backend("vad", self._config.vad.name, self._config.vad.options)
        self._audio = ScratchAudio(worker.scratch)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Finds the speech of each recording."""
        return each(batch, self.spec.produces, self._segment)

    def _segment(self, row: dict[str, Any]) -> Mapping[str, Any]:
        assert self._vad is not None
        found = self._own_probabilities(row, [self._probabilities(row, c) for c in range(row["num_channels"])])
        speech = [region for channel, heard in enumerate(found) for region in self._regions(row, channel, heard)]
        if not speech:
            seconds = row["num_samples"] / row["sample_rate"]
            raise RecordError("NO_SPEECH", f"no speech in {seconds:.2f} s of {row['num_channels']} channel(s)")
        share = sum(region["num_samples"] for region in speech) / (row["num_samples"] * row["num_channels"])
        sparse = ["SPEECH_SPARSE"] if share < self._config.sparse_below else []
        return {"speech": speech, "warnings": [*row["warnings"], *sparse]}

    def _probabilities(self, row: dict[str, Any], channel: int) -> Probabilities:
        """Returns the speech probability of each hop of a channel."""
        vad, audio = self._vad, self._audio
        assert vad is not None
        assert audio is not None
        rate = row["sample_rate"]
        if rate != vad.sample_rate:
            name = self._config.vad.name
            raise ConfigError(f"vad '{name}' hears {vad.sample_rate} Hz, the recordings are decoded to {rate} Hz")
        blocks = audio.blocks(row["recording_id"], channel, max(1, round(self._config.block_seconds * rate)))
        return vad.probabilities(blocks)

    def _own_probabilities(self, row: dict[str, Any], heard: Sequence[Probabilities]) -> list[Probabilities]:
        """Returns the probabilities with those of speech that belongs to another channel at 0."""
        audio, vad = self._audio, self._vad
        assert audio is not None
        assert vad is not None
        if len(heard) < 2:
            return list(heard)
        spoken = [channel >= self._config.release for channel in heard]
        read = partial(audio.read, row["recording_id"])
        repeated = repeated_speech(spoken, vad.hop, read, row["sample_rate"], self._config.crosstalk)
        return [np.where(mask, np.float32(0.0), channel) for mask, channel in zip(repeated, heard, strict=True)]

    def _regions(self, row: dict[str, Any], channel: int, heard: Probabilities) -> list[dict[str, int]]:
        assert self._vad is not None
        found = speech_regions(heard, self._config, row["num_samples"], self._vad.hop, row["sample_rate"])
        return [{"channel": channel, "start": int(a), "num_samples": int(b - a)} for a, b in found]

    def close(self) -> None:
        """Lets go of the detector; the worker's cache owns it."""
        self._vad = self._audio = None
