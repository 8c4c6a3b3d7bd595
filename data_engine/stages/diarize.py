"""Stage `diarize`: who speaks when, from speaker embeddings of windows of the speech regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from data_engine.backends.protocols import SpeakerEmbedder
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, each
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.rules.clustering import (
    ClusterSettings,
    Windows,
    label_frames,
    place_windows,
    speaker_centroids,
)

Indices = npt.NDArray[np.int64]


class DiarizeConfig(Settings):
    """Configuration of `diarize`.

    Attributes:
        speaker: Back end of the role `speaker`.
        channels: `separate`: each channel has its own speakers (a call, one microphone per person); `shared`: the
            same people are heard on all channels.
        window_seconds: Length of the windows that are embedded.
        hop_seconds: Largest step between windows.
        frame_seconds: Resolution of speaker changes.
        smoothing_seconds: Standard deviation of a window's weight over time: more means fewer changes.
        merge_gap_seconds: Turns of one speaker are joined across silence up to this.
        clustering: How windows become speakers.
        windows_at_once: Windows embedded at once.
    """

    speaker: BackendChoice = role("speaker", "resemblyzer")
    channels: Literal["separate", "shared"] = "separate"
    window_seconds: float = Field(default=1.2, gt=0.0)
    hop_seconds: float = Field(default=0.6, gt=0.0)
    frame_seconds: float = Field(default=0.1, gt=0.0)
    smoothing_seconds: float = Field(default=0.4, gt=0.0)
    merge_gap_seconds: float = Field(default=0.5, ge=0.0)
    clustering: ClusterSettings = ClusterSettings()
    windows_at_once: int = speed_knob(64, ge=1)


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One stretch of one speaker, in samples; `end` is the sample after the last."""

    channel: int
    start: int
    end: int
    speaker: int


def region_turns(region: Indices, channel: int, similarity: npt.NDArray[np.float32], centres: npt.NDArray[np.float64],
                 frame: int, width: float) -> list[Turn]:  # fmt: skip
    """Divides one speech region among the speakers.

    Args:
        region: First sample and the sample after the last, [2].
        channel: Channel of the region.
        similarity: Similarity of its windows to each speaker, [windows, speakers].
        centres: Centres of its windows in samples, [windows].
        frame: Samples per decision.
        width: Width of a window's weight in samples.

    Returns:
        Turns that together are the region, in order.
    """
    first, last = int(region[0]), int(region[1])
    edges = np.linspace(first, last, max(1, round((last - first) / frame)) + 1).round().astype(np.int64)
    labels = label_frames(similarity, centres, (edges[:-1] + edges[1:]) / 2.0, width)
    changes = np.flatnonzero(np.diff(labels)) + 1
    bounds = [first, *edges[changes].tolist(), last]
    names = labels[np.concatenate([[0], changes])].tolist()
    return [Turn(channel, a, b, name) for (a, b), name in zip(pairwise(bounds), names, strict=True)]


def join_turns(turns: Sequence[Turn], gap: int) -> list[Turn]:
    """Joins turns of one speaker on one channel that overlap, or are at most `gap` samples apart.

    A gap in which another speaker is heard on that channel is never bridged.

    Returns:
        Turns by channel and start; those of one speaker on one channel never overlap.
    """
    joined: list[Turn] = []
    latest: dict[tuple[int, int], int] = {}
    for turn in sorted(turns):
        key = turn.channel, turn.speaker
        last = joined[latest[key]] if key in latest else None
        others = [joined[at].end for other, at in latest.items() if other[0] == turn.channel and other != key]
        reach = -1 if last is None else last.end if max(others, default=0) > last.end else last.end + gap
        if last is not None and turn.start <= reach:
            joined[latest[key]] = Turn(last.channel, last.start, max(last.end, turn.end), last.speaker)
        else:
            latest[key] = len(joined)
            joined.append(turn)
    return joined


def number_speakers(turns: Sequence[Turn]) -> list[Turn]:
    """Numbers speakers from 0 by their first appearance in the recording; earlier channels first."""
    numbers: dict[int, int] = {}
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.channel)):
        numbers.setdefault(turn.speaker, len(numbers))
    return [Turn(t.channel, t.start, t.end, numbers[t.speaker]) for t in turns]


class Diarize:
    """Finds the speaker turns of a recording.

    Consumes: recording_id, sample_rate, num_samples, num_channels, speech
    Produces: recording_id, turns, num_speakers
    Rejects: NO_SPEECH
    """

    Config = DiarizeConfig

    def __init__(self, config: DiarizeConfig) -> None:
        self._config = config
        self._speaker: SpeakerEmbedder | None = None
        self._audio: ScratchAudio | None = None
        schema = load_schema("recording")
        self.spec = StageSpec(
            name="diarize",
            version="1",
            consumes=schema.pick("sample_rate", "num_samples", "num_channels", "speech"),
            produces=schema.pick("turns", "num_speakers"),
            shape="map",
            batch=BatchHint(max_rows=16),
        )

    def open(self, worker: Worker) -> None:
        """Loads the speaker model and finds the decoded sound of the shard."""
        self._speaker = worker.backend("speaker", self._config.speaker.name, self._config.speaker.options)
        self._audio = ScratchAudio(worker.scratch)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Diarizes each recording."""
        return each(batch, self.spec.produces, self._diarize)

    def _diarize(self, row: dict[str, Any]) -> Mapping[str, Any]:
        speech = row["speech"]
        if not speech:
            raise RecordError("NO_SPEECH", "there is no speech region to diarize")
        found = sorted({region["channel"] for region in speech})
        groups = [found] if self._config.channels == "shared" else [[channel] for channel in found]
        turns: list[Turn] = []
        for channels in groups:
            regions = [region for region in speech if region["channel"] in channels]
            known = len({turn.speaker for turn in turns})
            turns += [Turn(t.channel, t.start, t.end, t.speaker + known) for t in self._turns(row, regions)]
        joined = join_turns(turns, round(self._config.merge_gap_seconds * row["sample_rate"]))
        numbered = number_speakers(joined)
        return {"turns": [_turn_row(t) for t in numbered], "num_speakers": len({t.speaker for t in numbered})}

    def _turns(self, row: dict[str, Any], speech: Sequence[Mapping[str, int]]) -> list[Turn]:
        """Returns the turns of one set of speakers, numbered densely from 0."""
        rate, settings = row["sample_rate"], self._config
        regions = np.array([(r["start"], r["start"] + r["num_samples"]) for r in speech], np.int64)
        channels = [r["channel"] for r in speech]
        windows = place_windows(regions, round(settings.window_seconds * rate), round(settings.hop_seconds * rate))
        embeddings = self._embed(row, windows, np.repeat(channels, windows.counts))
        founding = windows.num_samples >= settings.clustering.min_window_seconds * rate
        similarity = embeddings @ speaker_centroids(embeddings, founding, settings.clustering).T
        centres = windows.start + windows.num_samples / 2.0
        frame, width = round(settings.frame_seconds * rate), settings.smoothing_seconds * rate
        cuts = np.cumsum(windows.counts)[:-1]
        parts = zip(regions, channels, np.split(similarity, cuts), np.split(centres, cuts), strict=True)
        turns = [t for region, c, near, at in parts for t in region_turns(region, c, near, at, frame, width)]
        return number_speakers(turns)

    def _embed(self, row: dict[str, Any], windows: Windows, channels: Indices) -> npt.NDArray[np.float32]:
        speaker, audio = self._speaker, self._audio
        assert speaker is not None
        assert audio is not None
        if row["sample_rate"] != speaker.sample_rate:
            wants, rate, name = speaker.sample_rate, row["sample_rate"], self._config.speaker.name
            raise ConfigError(f"speaker '{name}' hears {wants} Hz, the recordings are decoded to {rate} Hz")
        places = zip(channels.tolist(), windows.start.tolist(), windows.num_samples.tolist(), strict=True)
        waves = (audio.read(row["recording_id"], *place) for place in places)
        parts = iter(lambda: list(islice(waves, self._config.windows_at_once)), [])
        return np.concatenate([speaker.embed(part) for part in parts])

    def close(self) -> None:
        """Lets go of the speaker model; the worker's cache owns it."""
        self._speaker = self._audio = None


def _turn_row(turn: Turn) -> dict[str, int]:
    return {
        "channel": turn.channel, "start": turn.start, "num_samples": turn.end - turn.start, "speaker": turn.speaker,
    }  # fmt: skip
