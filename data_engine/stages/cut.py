"""Stage `cut`: divides recordings into segments, one stretch of one speaker each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from data_engine.core.config import Settings
from data_engine.core.errors import RecordError
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.stages.diarize import Turn, join_turns

Span = tuple[int, int]
"""First sample and the sample after the last."""

_INHERITED = ("recording_id", "sample_rate", "split", "language", "licence", "consent_basis", "allowed_uses")
_CONSUMES = (*_INHERITED, "speaker", "text", "num_samples", "speech", "turns", "num_speakers")
_PRODUCES = ("channel", "start", "num_samples", "speaker_id", "is_synthetic", "text", "text_source", *_INHERITED)


class CutConfig(Settings):
    """Configuration of `cut`.

    Attributes:
        min_seconds: Shorter turns are left out.
        max_seconds: Longer turns are split at their longest pause, and again, until no piece is longer.
        merge_gap_seconds: Turns of one speaker are joined across silence up to this.
        keep_transcribed_whole: A recording with a transcript, one speaker and speech of at most `max_seconds` from
            first to last sample stays one segment, so that its transcript stays true.
    """

    min_seconds: float = Field(default=0.5, gt=0.0)
    max_seconds: float = Field(default=30.0, gt=0.0)
    merge_gap_seconds: float = Field(default=0.5, ge=0.0)
    keep_transcribed_whole: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> CutConfig:
        if self.max_seconds < 2.0 * self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds} must be at least twice min_seconds {self.min_seconds}")
        return self


def split_span(span: Span, pauses: npt.NDArray[np.int64], shortest: int, longest: int) -> list[Span]:
    """Splits a stretch of speech until no piece is longer than `longest`.

    Args:
        span: The stretch.
        pauses: Silences of its channel, int64 [pauses, 2], ascending.
        shortest: No piece is shorter; at most half of `longest`.
        longest: Samples.

    Returns:
        Pieces in order. A split at a pause leaves the pause out; where there is none, pieces are equally long.
    """
    pending, pieces = [span], []
    while pending:
        start, end = pending.pop()
        if end - start <= longest:
            pieces.append((start, end))
            continue
        usable = pauses[(pauses[:, 0] - start >= shortest) & (end - pauses[:, 1] >= shortest)]
        if len(usable):
            pause = usable[np.argmax(usable[:, 1] - usable[:, 0])]
            pending += [(int(pause[1]), end), (start, int(pause[0]))]
        else:
            count = -(-(end - start) // longest)
            pieces += list(pairwise(start + (end - start) * part // count for part in range(count + 1)))
    return pieces


def pauses_between(regions: Sequence[Span]) -> npt.NDArray[np.int64]:
    """Returns the silences between ascending speech regions, int64 [pauses, 2]."""
    gaps = [(before[1], after[0]) for before, after in pairwise(regions) if after[0] > before[1]]
    return np.array(gaps, np.int64).reshape(-1, 2)


def whole_turn(turns: Sequence[Turn], longest: int) -> list[Turn] | None:
    """Returns the one turn around all turns; None when they are of two speakers or channels, or too far apart."""
    first, last = min(turn.start for turn in turns), max(turn.end for turn in turns)
    if len({(turn.channel, turn.speaker) for turn in turns}) > 1 or last - first > longest:
        return None
    return [Turn(turns[0].channel, first, last, turns[0].speaker)]


def cut_turns(
    turns: Sequence[Turn], pauses: Mapping[int, npt.NDArray[np.int64]], shortest: int, longest: int
) -> list[Turn]:
    """Returns the segments of joined turns: short turns left out, long ones split.

    Two speakers who talk over each other for exactly the same samples give one segment, of the first of them: a
    segment is what its samples are.

    Args:
        turns: As `join_turns` returns them.
        pauses: Silences of each channel.
        shortest: Samples.
        longest: Samples.

    Returns:
        Segments by channel and start.
    """
    none = pauses_between(())
    found: dict[tuple[int, int, int], Turn] = {}
    for turn in sorted(turns):
        if turn.end - turn.start < shortest:
            continue
        for start, end in split_span((turn.start, turn.end), pauses.get(turn.channel, none), shortest, longest):
            found.setdefault((turn.channel, start, end), Turn(turn.channel, start, end, turn.speaker))
    return sorted(found.values())


class Cut:
    """Cuts each recording into segments.

    Consumes: recording_id, language, speaker, licence, consent_basis, allowed_uses, text, split, sample_rate,
        num_samples, speech, turns, num_speakers
    Produces: segment_id, recording_id, channel, start, num_samples, sample_rate, speaker_id, split, language, licence,
        consent_basis, allowed_uses, is_synthetic, text, text_source
    Rejects: NO_SPEECH, NO_CHILDREN

    The declared transcript becomes the text of a segment only when that segment is all speech of its recording.
    """

    Config = CutConfig

    def __init__(self, config: CutConfig) -> None:
        self._config = config
        self.spec = StageSpec(
            name="cut",
            version="1",
            consumes=load_schema("recording").pick(*_CONSUMES),
            produces=load_schema("segment").pick(*_PRODUCES),
            shape="expand",
            parents="recording_id",
            batch=BatchHint(max_rows=64),
        )

    def open(self, worker: Worker) -> None:
        """Needs nothing."""

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
        turns = join_turns(_turns(recording), round(settings.merge_gap_seconds * rate))
        if not turns:
            raise RecordError("NO_SPEECH", "there is no speaker turn to cut")
        if recording["text"] and settings.keep_transcribed_whole:
            turns = whole_turn(turns, longest) or turns
        segments = cut_turns(turns, _pauses(recording["speech"] or ()), shortest, longest)
        if not segments:
            raise RecordError("NO_CHILDREN", f"all {len(turns)} turns are shorter than {settings.min_seconds} s")
        text = recording["text"] if len(segments) == len(turns) == 1 else None
        return [_row(recording, s, text) for s in segments], [t for t in turns if t.end - t.start < shortest]

    def close(self) -> None:
        """Holds nothing."""


def _turns(recording: Mapping[str, Any]) -> list[Turn]:
    """Returns the turns of a recording, bounded to it."""
    spans = ((t, max(0, t["start"]), t["start"] + t["num_samples"]) for t in recording["turns"] or ())
    bounded = (Turn(t["channel"], a, min(b, recording["num_samples"]), t["speaker"]) for t, a, b in spans)
    return [turn for turn in bounded if turn.end > turn.start]


def _pauses(speech: Sequence[Mapping[str, int]]) -> dict[int, npt.NDArray[np.int64]]:
    regions: dict[int, list[Span]] = {}
    for region in speech:
        span = region["start"], region["start"] + region["num_samples"]
        regions.setdefault(region["channel"], []).append(span)
    return {channel: pauses_between(sorted(spans)) for channel, spans in regions.items()}


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
