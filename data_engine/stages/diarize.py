"""Stage `diarize`: who speaks when, window by window; the speakers of all windows are linked by their voices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from data_engine.backends.protocols_listening import Diarizer
from data_engine.core.config import BackendChoice, Settings, role
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, each
from data_engine.io.scratch import ScratchAudio
from data_engine.models.speaker_clustering import link_speakers
from data_engine.stages.rules.stretches import Stretch, cut_at_silence, united
from data_engine.stages.rules.turns import Turn, join_turns, number_speakers


class DiarizeConfig(Settings):
    """Configuration of `diarize`.

    Attributes:
        diarization: Back end of the role `diarization`.
        declared_speaker: A recording of one channel whose source names its speaker. `check`: it is diarized, and
            whoever is found keeps the name only when alone, so that nobody speaks under the name and consent of
            another; `trust`: all of its speech is that speaker's, and no model runs.
        channels: `separate`: each channel has its own speakers (a call, one microphone per person); `shared`: the
            same people are heard on all channels.
        window_seconds: A longer recording is cut into windows of about this length at its longest pauses.
        overlap_seconds: How far a window hears beyond its cuts.
        link_distance: Speakers of different windows are one up to this cosine distance of their voices.
        merge_gap_seconds: Turns of one speaker are joined across silence up to this.
        min_turn_seconds: Shorter turns are dropped, unless a window has no other.
    """

    diarization: BackendChoice = role("diarization", "pyannet")
    declared_speaker: Literal["check", "trust"] = "check"
    channels: Literal["separate", "shared"] = "separate"
    window_seconds: float = Field(default=600.0, gt=0.0)
    overlap_seconds: float = Field(default=10.0, ge=0.0)
    link_distance: float = Field(default=0.12, ge=0.0, le=2.0)
    merge_gap_seconds: float = Field(default=0.3, ge=0.0)
    min_turn_seconds: float = Field(default=0.1, ge=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """The speakers of one window: turns whose speakers count from 0, and the voice of each, [speakers, dimensions]."""

    turns: tuple[Turn, ...]
    voices: npt.NDArray[np.float32]


def spoken_turns(row: Mapping[str, Any]) -> list[Turn]:
    """Returns the speech regions of a recording as turns of one speaker."""
    return [Turn(r["channel"], r["start"], r["start"] + r["num_samples"], 0) for r in row["speech"]]


def mostly_speech(turns: Sequence[Turn], speech: Sequence[Turn]) -> list[Turn]:
    """Returns the turns that are at least half inside the speech regions of their channel."""
    return [
        turn for turn in turns
        if 2 * sum(max(0, min(turn.end, r.end) - max(turn.start, r.start)) for r in speech if r.channel == turn.channel)
        >= turn.end - turn.start
    ]  # fmt: skip


def inside(core: Stretch, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Returns the parts of turns inside a stretch."""
    clipped = (replace(turn, start=max(core[0], turn.start), end=min(core[1], turn.end)) for turn in turns)
    return tuple(turn for turn in clipped if turn.end > turn.start)


def linked_turns(windows: Sequence[Heard], distance: float) -> list[Turn]:
    """Returns the turns of all windows; speakers of different windows whose voices are close are one.

    Args:
        windows: Of one channel, or of several with the same people.
        distance: Cosine distance up to which two are one.
    """
    counts = [len(window.voices) for window in windows]
    firsts = np.cumsum([0, *counts])
    width = max((window.voices.shape[1] for window in windows), default=0)
    voices = np.zeros((int(firsts[-1]), width), np.float32)
    samples = np.zeros(int(firsts[-1]), np.float32)
    for first, window in zip(firsts.tolist(), windows, strict=False):
        voices[first : first + len(window.voices), : window.voices.shape[1]] = window.voices
        for turn in window.turns:
            samples[first + turn.speaker] += turn.end - turn.start
    numbers = link_speakers(voices, samples, np.repeat(np.arange(len(windows)), counts), distance)
    return [replace(turn, speaker=int(numbers[first + turn.speaker]))
            for first, window in zip(firsts.tolist(), windows, strict=False) for turn in window.turns]  # fmt: skip


class Diarize:
    """Finds the speaker turns of a recording.

    Consumes: recording_id, sample_rate, num_samples, num_channels, speaker, speech
    Produces: recording_id, turns, num_speakers
    Rejects: NO_SPEECH
    """

    Config = DiarizeConfig

    def __init__(self, config: DiarizeConfig) -> None:
        self._config = config
        self._diarizer: Diarizer | None = None
        self._audio: ScratchAudio | None = None
        schema = load_schema("recording")
        self.spec = StageSpec(
            name="diarize",
            version="3",
            consumes=schema.pick("sample_rate", "num_samples", "num_channels", "speaker", "speech"),
            produces=schema.pick("turns", "num_speakers"),
            shape="map",
            batch=BatchHint(max_rows=16),
        )

    def open(self, worker: Worker) -> None:
        """Loads the models and finds the decoded sound of the shard."""
        chosen = self._config.diarization
        self._diarizer = worker.backend("diarization", chosen.name, chosen.options)
        self._audio = ScratchAudio(worker.scratch)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Diarizes each recording."""
        return each(batch, self.spec.produces, self._diarize)

    def _diarize(self, row: dict[str, Any]) -> Mapping[str, Any]:
        if not row["speech"]:
            raise RecordError("NO_SPEECH", "there is no speech region to diarize")
        known = row["speaker"] and row["num_channels"] == 1 and self._config.declared_speaker == "trust"
        turns = spoken_turns(row) if known else self._found(row)
        joined = join_turns(turns, round(self._config.merge_gap_seconds * row["sample_rate"]))
        numbered = number_speakers(self._long_enough(joined, row["sample_rate"]))
        return {"turns": [_turn_row(t) for t in numbered], "num_speakers": len({t.speaker for t in numbered})}

    def _found(self, row: Mapping[str, Any]) -> list[Turn]:
        """Returns the turns of the speakers that are heard; people on different channels differ unless shared."""
        self._check_rate(row["sample_rate"])
        channels = sorted({region["channel"] for region in row["speech"]})
        groups = [channels] if self._config.channels == "shared" else [[channel] for channel in channels]
        turns: list[Turn] = []
        for group in groups:
            known = len({turn.speaker for turn in turns})
            linked = linked_turns(self._windows(row, group), self._config.link_distance)
            turns += [replace(turn, speaker=turn.speaker + known) for turn in linked]
        return turns

    def _check_rate(self, rate: int) -> None:
        assert self._diarizer is not None
        if rate != self._diarizer.sample_rate:
            name, wants = self._config.diarization.name, self._diarizer.sample_rate
            raise ConfigError(f"diarization '{name}' hears {wants} Hz, the recordings are decoded to {rate} Hz")

    def _windows(self, row: Mapping[str, Any], channels: Sequence[int]) -> list[Heard]:
        """Diarizes channels with the same people window by window; what is heard beyond the cuts is not kept."""
        rate, config = row["sample_rate"], self._config
        speech = spoken_turns(row)
        regions = united([(region.start, region.end) for region in speech if region.channel in channels])
        cores = cut_at_silence(regions, row["num_samples"], round(config.window_seconds * rate))
        heard = [self._heard(row, channels, core, round(config.overlap_seconds * rate), speech) for core in cores]
        return [window for window in heard if window.turns]

    def _heard(self, row: Mapping[str, Any], channels: Sequence[int], core: Stretch, overlap: int,
               speech: Sequence[Turn]) -> Heard:  # fmt: skip
        diarizer, audio = self._diarizer, self._audio
        assert diarizer is not None
        assert audio is not None
        spoken = inside(core, [region for region in speech if region.channel in channels])
        first = max(0, core[0] - overlap)
        length = min(row["num_samples"], core[1] + overlap) - first
        if not spoken:
            return Heard((), np.zeros((0, 0), np.float32))
        # Channels one after the other are one wave to the diarizer: the same person has one voice on all of them.
        waves = [audio.read(row["recording_id"], channel, first, length) for channel in channels]
        (found,) = diarizer.diarize([np.concatenate(waves)])
        shifts = [(channel, first - place * length) for place, channel in enumerate(channels)]
        turns = [Turn(channel, shift + turn.start, shift + turn.start + turn.num_samples, turn.speaker)
                 for channel, shift in shifts for turn in found.turns]  # fmt: skip
        # What bleeds over from another channel is not among the speech regions of this one.
        kept = inside(core, mostly_speech(turns, spoken) if row["num_channels"] > 1 else turns)
        # Speech too short for the diarizer (a word, a digit) is of one speaker, whose voice nothing tells.
        return Heard(kept, found.embeddings) if kept else Heard(spoken, np.zeros((1, 0), np.float32))

    def _long_enough(self, turns: Sequence[Turn], rate: int) -> list[Turn]:
        shortest = self._config.min_turn_seconds * rate
        return [turn for turn in turns if turn.end - turn.start >= shortest] or list(turns)

    def close(self) -> None:
        """Lets go of the models; the worker's cache owns them."""
        self._diarizer = self._audio = None


def _turn_row(turn: Turn) -> dict[str, int]:
    return {
        "channel": turn.channel, "start": turn.start, "num_samples": turn.end - turn.start, "speaker": turn.speaker,
    }  # fmt: skip
