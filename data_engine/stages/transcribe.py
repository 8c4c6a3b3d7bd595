"""Stage `transcribe`: writes down what is said in the languages the recognizer knows; else no text, not wrong text.

What a recognizer may have made up is flagged, not dropped: a policy decides (`stages.rules.hallucination`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from data_engine.backends.protocols import LanguageFinder, Recognizer, Transcript, Wave
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes
from data_engine.io.decoding.resample import resample
from data_engine.stages.rules.hallucination import FlagSettings, text_flags

_CONSUMES = ("audio", "num_samples", "sample_rate", "language", "text", "text_source")
_PRODUCES = (
    "language", "language_confidence", "text", "text_source", "text_confidence", "words", "text_flags", "asr_emotion",
    "asr_events",
)  # fmt: skip
_KEPT = ("segment_id", "language", "text", "text_source")


class TranscribeConfig(Settings):
    """Configuration of `transcribe`.

    Attributes:
        asr: Back end of the role `asr`.
        flags: When a text is flagged as one that nobody may have said.
        max_rows: At most so many segments at once.
        max_seconds: At most so many seconds of audio at once.
    """

    asr: BackendChoice = role("asr", "pocketsphinx")
    flags: FlagSettings = FlagSettings()
    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(300.0, gt=0.0)


@dataclass(frozen=True, slots=True)
class Clip:
    """A segment that is to be transcribed.

    Attributes:
        segment_id: Its id.
        language: One the recognizer knows; None where it is to find it.
        sample_rate: Of the segment, in Hz.
        wave: float32 [samples], at the recognizer's rate.
    """

    segment_id: str
    language: str | None
    sample_rate: int
    wave: Wave


def spoken_language(language: str | None, known: Collection[str]) -> str | None:
    """Returns the language of a recognizer that serves `language`: equal, or its primary subtag (en-GB: en)."""
    tag = (language or "").strip().lower().replace("_", "-")
    by_tag = {name.lower(): name for name in known}
    return by_tag.get(tag) or by_tag.get(tag.partition("-")[0])


def transcript_columns(heard: Transcript, source: str, from_rate: int, to_rate: int) -> dict[str, Any]:
    """Returns the columns of a transcript: those of the text only where something was said.

    Args:
        heard: With word times at `from_rate`.
        source: Name of the recognizer.
        from_rate: Hz.
        to_rate: Sample rate of the segment in Hz.
    """
    tags: dict[str, Any] = {"asr_emotion": heard.emotion, "asr_events": list(heard.events) if heard.events else None}
    columns = {name: value for name, value in tags.items() if value is not None}
    if not heard.text:
        return columns
    words = [
        {"text": w.text, "start": w.start * to_rate // from_rate, "num_samples": w.num_samples * to_rate // from_rate}
        for w in heard.words
    ]
    columns |= {"text": heard.text, "text_source": source, "text_confidence": heard.confidence, "words": words or None}
    if heard.language is not None:
        columns |= {"language": heard.language, "language_confidence": heard.language_confidence}
    return columns


def flags_of(clip: Clip, heard: Transcript, sample_rate: int, settings: FlagSettings) -> list[str]:
    """Returns what speaks against what was heard in a clip whose wave is at `sample_rate`."""
    language, seconds = clip.language or heard.language, len(clip.wave) / sample_rate
    return text_flags(heard.text, language, seconds, heard.no_speech, heard.confidence, settings) if heard.text else []


class Transcribe:
    """Transcribes the segments that have no text yet.

    Consumes: segment_id, num_samples, sample_rate, language, audio, text, text_source
    Produces: segment_id, language, language_confidence, text, text_source, text_confidence, words, text_flags,
        asr_emotion, asr_events
    Rejects: EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, UNSUPPORTED_CODEC, DECODE_FAILED, NO_AUDIO_STREAM

    A text that came with the source is kept, and so is a declared language. Without one, a recognizer that can tell
    languages finds it; with another, text stays null, as it does in a language the recognizer does not know.
    """

    Config = TranscribeConfig

    def __init__(self, config: TranscribeConfig) -> None:
        self._config = config
        self._asr: Recognizer | None = None
        schema = load_schema("segment")
        hint = BatchHint(config.max_rows, config.max_seconds)
        self.spec = StageSpec("transcribe", "2", schema.pick(*_CONSUMES), schema.pick(*_PRODUCES), "map", batch=hint)

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
            rows[row["segment_id"]] = {key: row[key] for key in _KEPT}
        heard = recognize(self._asr, clips)
        flagged = 0
        for clip, transcript in heard:
            source, rate = self._config.asr.name, self._asr.sample_rate
            flags = flags_of(clip, transcript, rate, self._config.flags)
            columns = transcript_columns(transcript, source, rate, clip.sample_rate)
            rows[clip.segment_id].update(columns | {"text_flags": flags or None})
            flagged += bool(flags)
        counts = {"asr_segments": float(len(heard)), "asr_empty": float(sum(not t.text for _, t in heard))}
        counts["asr_flagged"] = float(flagged)
        return StageResult(self.spec.produces.batch(list(rows.values())), rejects, counts)

    def _clips(self, row: dict[str, Any]) -> list[Clip]:
        """Returns what of a row is to be transcribed: one clip or none."""
        assert self._asr is not None
        language = spoken_language(row["language"], self._asr.languages)
        found = row["language"] is None and getattr(self._asr, "finds_language", False)
        if row["text"] is not None or row["audio"] is None or (language is None and not found):
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
    """Returns each clip with its transcript, one call of the recognizer per language, and one for those without.

    Args:
        asr: A `LanguageFinder` when a clip has no language.
        clips: What is to be transcribed.
    """
    heard: list[tuple[Clip, Transcript]] = []
    for language in sorted({clip.language or "" for clip in clips}):
        chosen = [clip for clip in clips if (clip.language or "") == language]
        waves = [clip.wave for clip in chosen]
        found = asr.transcribe(waves, language) if language else cast("LanguageFinder", asr).transcribe(waves, None)
        heard += zip(chosen, found, strict=True)
    return heard
