"""Stage `transcribe`: writes down what is said in the languages the recognizer knows; else no text, not wrong text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_engine.backends.protocols import Recognizer, Transcript, Wave
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes
from data_engine.io.decoding.resample import resample

_CONSUMES = ("audio", "num_samples", "sample_rate", "language", "text", "text_source")
_PRODUCES = ("text", "text_source", "text_confidence", "words")


class TranscribeConfig(Settings):
    """Configuration of `transcribe`.

    Attributes:
        asr: Back end of the role `asr`.
        max_rows: At most so many segments at once.
        max_seconds: At most so many seconds of audio at once.
    """

    asr: BackendChoice = role("asr", "pocketsphinx")
    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(300.0, gt=0.0)


@dataclass(frozen=True, slots=True)
class Clip:
    """A segment that is to be transcribed.

    Attributes:
        segment_id: Its id.
        language: One the recognizer knows.
        sample_rate: Of the segment, in Hz.
        wave: float32 [samples], at the recognizer's rate.
    """

    segment_id: str
    language: str
    sample_rate: int
    wave: Wave


def spoken_language(language: str | None, known: Collection[str]) -> str | None:
    """Returns the language of a recognizer that serves `language`: equal, or its primary subtag (en-GB: en)."""
    tag = (language or "").strip().lower().replace("_", "-")
    by_tag = {name.lower(): name for name in known}
    return by_tag.get(tag) or by_tag.get(tag.partition("-")[0])


def transcript_columns(heard: Transcript, source: str, from_rate: int, to_rate: int) -> dict[str, Any]:
    """Returns the columns of a transcript; all null when nothing was heard.

    Args:
        heard: With word times at `from_rate`.
        source: Name of the recognizer.
        from_rate: Hz.
        to_rate: Sample rate of the segment in Hz.
    """
    if not heard.text:
        return {}
    words = [
        {"text": w.text, "start": w.start * to_rate // from_rate, "num_samples": w.num_samples * to_rate // from_rate}
        for w in heard.words
    ]
    return {"text": heard.text, "text_source": source, "text_confidence": heard.confidence, "words": words or None}


class Transcribe:
    """Transcribes the segments that have no text yet.

    Consumes: segment_id, num_samples, sample_rate, language, audio, text, text_source
    Produces: segment_id, text, text_source, text_confidence, words
    Rejects: EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, UNSUPPORTED_CODEC, DECODE_FAILED, NO_AUDIO_STREAM

    A text that came with the source is kept. Without a declared language, or in one the recognizer does not know,
    text stays null.
    """

    Config = TranscribeConfig

    def __init__(self, config: TranscribeConfig) -> None:
        self._config = config
        self._asr: Recognizer | None = None
        schema = load_schema("segment")
        hint = BatchHint(config.max_rows, config.max_seconds)
        self.spec = StageSpec("transcribe", "1", schema.pick(*_CONSUMES), schema.pick(*_PRODUCES), "map", batch=hint)

    def open(self, worker: Worker) -> None:
        """Loads the recognizer."""
        self._asr = worker.backend("asr", self._config.asr.name, self._config.asr.options)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Transcribes one batch; the recognizer sees all segments of a language at once."""
        assert self._asr is not None
        rows: dict[str, dict[str, Any]] = {}
        clips: list[Clip] = []
        rejects: list[Reject] = []
        for row in iterate_rows(batch):
            try:
                clips += self._clips(row)
            except RecordError as error:
                rejects.append(Reject(row["segment_id"], error.code, error.detail))
                continue
            rows[row["segment_id"]] = {key: row[key] for key in ("segment_id", "text", "text_source")}
        heard = recognize(self._asr, clips)
        for clip, transcript in heard:
            source, rate = self._config.asr.name, self._asr.sample_rate
            rows[clip.segment_id].update(transcript_columns(transcript, source, rate, clip.sample_rate))
        counts = {"asr_segments": float(len(heard)), "asr_empty": float(sum(not t.text for _, t in heard))}
        return StageResult(self.spec.produces.batch(list(rows.values())), rejects, counts)

    def _clips(self, row: dict[str, Any]) -> list[Clip]:
        """Returns what of a row is to be transcribed: one clip or none."""
        assert self._asr is not None
        language = spoken_language(row["language"], self._asr.languages)
        if row["text"] is not None or language is None or row["audio"] is None:
            return []
        wave = decode_at(row["audio"], self._asr.sample_rate)
        return [Clip(row["segment_id"], language, row["sample_rate"], wave)]

    def close(self) -> None:
        """Lets go of the recognizer; the worker's cache owns it."""
        self._asr = None


def decode_at(audio: Mapping[str, Any], sample_rate: int) -> Wave:
    """Returns an audio column's sound, mono float32 [samples] at `sample_rate`.

    Raises:
        RecordError: The bytes are no sound.
    """
    samples, rate = decode_bytes(audio["bytes"])
    return resample(samples[0], rate, sample_rate)


def recognize(asr: Recognizer, clips: Sequence[Clip]) -> list[tuple[Clip, Transcript]]:
    """Returns each clip with its transcript, one call of the recognizer per language."""
    heard: list[tuple[Clip, Transcript]] = []
    for language in sorted({clip.language for clip in clips}):
        chosen = [clip for clip in clips if clip.language == language]
        heard += zip(chosen, asr.transcribe([clip.wave for clip in chosen], language), strict=True)
    return heard
