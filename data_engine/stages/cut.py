"""Stage `cut`: divides recordings into segments, one stretch of one speaker each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from data_engine.core.config import Settings
from data_engine.core.errors import RecordError
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.rules.cutting import (
    Span,
    Spans,
    as_spans,
    inside_regions,
    outside_words,
    pauses_between,
    quietest,
    source_words,
)
from data_engine.stages.rules.turns import (
    FindQuietIn,
    Turn,
    cut_turns,
    join_turns,
    overlap_ratio,
    overlaps_apart,
    pad_segments,
    whole_turn,
)

_INHERITED = ("recording_id", "sample_rate", "split", "language", "licence", "consent_basis", "allowed_uses")
_CONSUMES = (
    *_INHERITED,
    "speaker",
    "text",
    "attributes",
    "num_samples",
    "num_channels",
    "speech",
    "turns",
    "num_speakers",
)
_PRODUCES = (
    "channel", "start", "num_samples", "speaker_id", "is_synthetic", "text", "text_source", "overlap_ratio",
    *_INHERITED,
)  # fmt: skip
_FRAMES_PER_SECOND = 25


class CutConfig(Settings):
    """Configuration of `cut`.

    Attributes:
        min_seconds: Shorter turns are left out. A multiple of 40 ms, else turns hardly longer cannot be shortened to
            whole frames.
        max_seconds: Longer turns are split at their longest pause, and again, until no piece is longer; where there is
            no pause, at the quietest place of their sound.
        merge_gap_seconds: Turns of one speaker are joined across silence up to this.
        min_overlap_seconds: A turn is cut where another speaker begins or ends to speak at the same time, for so long
            at least: the rest of it is speech of one person. Shorter overlaps stay inside; `overlap_ratio` counts them.
        pad_seconds: Silence a segment takes in before and after, of a pause at most half; nobody's speech. Segments
            then last whole frames of 40 ms, as the semantic codes count and DNSMOS shares: the rest of a frame comes
            off that silence or, where there is too little, off the ends of the speech, 20 ms of each at most and
            nothing of words whose times are known.
        keep_transcribed_whole: A recording with a transcript, one speaker and speech of at most `max_seconds` from
            first to last sample stays one segment, so that its transcript stays true.
    """

    min_seconds: float = Field(default=0.52, gt=0.0)
    max_seconds: float = Field(default=30.0, gt=0.0)
    merge_gap_seconds: float = Field(default=0.5, ge=0.0)
    min_overlap_seconds: float = Field(default=0.1, gt=0.0)
    pad_seconds: float = Field(default=0.1, ge=0.0)
    keep_transcribed_whole: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> CutConfig:
        if self.max_seconds < 2.0 * self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds} must be at least twice min_seconds {self.min_seconds}")
        return self


class Cut:
    """Cuts each recording into segments.

    Consumes: recording_id, language, speaker, licence, consent_basis, allowed_uses, text, attributes, split,
        sample_rate, num_samples, num_channels, speech, turns, num_speakers
    Produces: segment_id, recording_id, channel, start, num_samples, sample_rate, speaker_id, split, language, licence,
        consent_basis, allowed_uses, is_synthetic, text, text_source, overlap_ratio
    Rejects: NO_SPEECH, NO_CHILDREN

    The declared transcript becomes the text of a segment only when that segment is all speech of its recording. Word
    times that the source declares (`words` of its attributes) are never cut through. A speaker is the declared one, or
    the recording's id and a number by first appearance: the same in every run, whatever else is in it.
    """

    Config = CutConfig

    def __init__(self, config: CutConfig) -> None:
        self._config = config
        self._audio: ScratchAudio | None = None
        self.spec = StageSpec(
            name="cut",
            version="5",
            consumes=load_schema("recording").pick(*_CONSUMES),
            produces=load_schema("segment").pick(*_PRODUCES),
            shape="expand",
            parents="recording_id",
            batch=BatchHint(max_rows=64),
        )

    def open(self, worker: Worker) -> None:
        """Finds the decoded sound of the shard, to hear where a long turn is quiet."""
        self._audio = ScratchAudio(worker.scratch)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the segments of each recording; a recording without one is a reject."""
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        short = samples = 0.0
        for recording in iterate_rows(batch):
            try:
                segments, dropped = self._cut(recording)
                rows += segments
                short, samples = short + len(dropped), samples + _seconds(dropped, recording["sample_rate"])
            except RecordError as error:
                rejects.append(Reject(recording["recording_id"], error.code, error.detail))
        metrics = {"turns_too_short": short, "seconds_too_short": samples}
        return StageResult(self.spec.produces.batch(rows), rejects, metrics)

    def _cut(self, recording: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Turn]]:
        """Returns the segment rows, and the turns that were too short."""
        rate, settings = recording["sample_rate"], self._config
        shortest, longest = round(settings.min_seconds * rate), round(settings.max_seconds * rate)
        words = source_words(recording["attributes"], rate)
        regions = _regions(recording["speech"] or ())
        heard = _whole_words(_turns(recording, regions), words)
        turns = join_turns(heard, round(settings.merge_gap_seconds * rate))
        if not turns:
            raise RecordError("NO_SPEECH", "there is no speaker turn to cut")
        if recording["text"] and settings.keep_transcribed_whole:
            turns = whole_turn(turns, longest) or turns
        turns = overlaps_apart(turns, round(settings.min_overlap_seconds * rate))
        pauses = {channel: outside_words(pauses_between(spans), words) for channel, spans in regions.items()}
        segments = cut_turns(turns, pauses, shortest, longest, self._find_quiet(recording, words))
        if not segments:
            raise RecordError("NO_CHILDREN", f"all {len(turns)} turns are shorter than {settings.min_seconds} s")
        text = recording["text"] if len(segments) == len(turns) == 1 else None
        pad = round(settings.pad_seconds * rate)
        frame = max(1, rate // _FRAMES_PER_SECOND)
        gives = None if len(words) else shortest
        segments = pad_segments(segments, turns, regions, pad, longest, recording["num_samples"], frame, gives)
        rows = [_row(recording, s, text) | {"overlap_ratio": overlap_ratio(s, heard)} for s in segments]
        return rows, [t for t in turns if t.end - t.start < shortest]

    def _find_quiet(self, recording: Mapping[str, Any], words: Spans) -> FindQuietIn | None:
        """Returns what hears the sound of the recording; None where only its rows are at hand."""
        audio, name, rate = self._audio, recording["recording_id"], recording["sample_rate"]
        if audio is None:
            return None

        def find_quiet(channel: int, low: int, high: int) -> int | None:
            found = quietest(audio.read(name, channel, low, high - low), rate, words - low)
            return None if found is None else low + found

        return find_quiet

    def close(self) -> None:
        """Lets go of the decoded sound; the shard owns it."""
        self._audio = None


def _turns(recording: Mapping[str, Any], regions: Mapping[int, Sequence[Span]]) -> list[Turn]:
    """Returns the turns of a recording, bounded to it.

    Of several channels each keeps what lies in its speech regions: a diarizer also hears what bleeds over from another.
    """
    spans = ((t, max(0, t["start"]), t["start"] + t["num_samples"]) for t in recording["turns"] or ())
    bounded = (Turn(t["channel"], a, min(b, recording["num_samples"]), t["speaker"]) for t, a, b in spans)
    turns = [turn for turn in bounded if turn.end > turn.start]
    if recording["num_channels"] == 1:
        return turns
    own = {channel: as_spans(spans) for channel, spans in regions.items()}
    return [
        Turn(turn.channel, start, end, turn.speaker)
        for turn in turns
        for start, end in inside_regions((turn.start, turn.end), own.get(turn.channel, as_spans(())))
    ]


def _whole_words(turns: Sequence[Turn], words: Spans) -> list[Turn]:
    """Returns turns with their ends outside words; a turn without a whole word is as it was."""
    if not len(words):
        return list(turns)
    places = outside_words(np.array([(t.start, t.end) for t in turns], np.int64).reshape(-1, 2), words).tolist()
    moved = (Turn(t.channel, start, end, t.speaker) for t, (start, end) in zip(turns, places, strict=True))
    return [new if new.end > new.start else old for old, new in zip(turns, moved, strict=True)]


def _regions(speech: Sequence[Mapping[str, int]]) -> dict[int, list[Span]]:
    regions: dict[int, list[Span]] = {}
    for region in speech:
        span = region["start"], region["start"] + region["num_samples"]
        regions.setdefault(region["channel"], []).append(span)
    return {channel: sorted(spans) for channel, spans in regions.items()}


def _row(recording: Mapping[str, Any], segment: Turn, text: str | None) -> dict[str, Any]:
    num_samples = segment.end - segment.start
    where = segment.channel, segment.start, num_samples
    alone = recording["num_speakers"] == 1 and recording["speaker"]
    return {
        **{name: recording[name] for name in _INHERITED},
        "segment_id": content_id("segment", recording["recording_id"], *where),
        "channel": segment.channel,
        "start": segment.start,
        "num_samples": num_samples,
        "speaker_id": recording["speaker"] if alone else f"{recording['recording_id']}:{segment.speaker}",
        "is_synthetic": False,
        "text": text or None,
        "text_source": "source" if text else None,
    }


def _seconds(turns: Sequence[Turn], sample_rate: int) -> float:
    return sum(turn.end - turn.start for turn in turns) / sample_rate
