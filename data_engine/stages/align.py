"""Stage `align`: says when each word and phone of a known text is said. What cannot be aligned stays without times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from data_engine.backends.protocols import Word
from data_engine.backends.protocols_listening import AlignedText, Aligner
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.stages.transcribe import Clip, decode_at, spoken_language

_CONSUMES = ("audio", "num_samples", "sample_rate", "language", "text", "words")
_PRODUCES = ("words", "phones", "align_confidence")
_KEPT = ("segment_id", "words")


class AlignConfig(Settings):
    """Configuration of `align`.

    Attributes:
        aligner: Back end of the role `aligner`.
        when: `missing`: segments whose words have no times yet; `always`: those with times of a recognizer, too.
        min_confidence: Times of an aligner that is less sure are not taken.
        max_rows: At most so many segments at once.
        max_seconds: At most so many seconds of audio at once.
    """

    aligner: BackendChoice = role("aligner", "neufa")
    when: Literal["missing", "always"] = "missing"
    min_confidence: float = Field(0.0, ge=0, le=1)
    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(300.0, gt=0.0)


class Align:
    """Finds the times of the words and phones of segments whose text is known.

    Consumes: segment_id, audio, num_samples, sample_rate, language, text, words
    Produces: segment_id, words, phones, align_confidence
    Rejects: EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, UNSUPPORTED_CODEC, DECODE_FAILED, NO_AUDIO_STREAM

    A text in a language the aligner does not know, one that cannot have been said in that time, or one it cannot
    pronounce, leaves words as they were and the other columns null; the metrics count them by reason.
    """

    Config = AlignConfig

    def __init__(self, config: AlignConfig) -> None:
        self._config = config
        self._aligner: Aligner | None = None
        schema = load_schema("segment")
        hint = BatchHint(config.max_rows, config.max_seconds)
        self.spec = StageSpec("align", "1", schema.pick(*_CONSUMES), schema.pick(*_PRODUCES), "map", batch=hint)

    def open(self, worker: Worker) -> None:
        """Loads the aligner."""
        self._aligner = worker.backend("aligner", self._config.aligner.name, self._config.aligner.options)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Aligns one batch; the aligner sees all segments of a language at once."""
        rows: dict[str, dict[str, Any]] = {}
        asked: dict[str, list[tuple[Clip, str]]] = {}
        rejects: list[Reject] = []
        counts: Counter[str] = Counter()
        for row in iterate_rows(batch):
            try:
                clip = self._clip(row, counts)
            except RecordError as error:
                rejects.append(Reject(row["segment_id"], error.code, error.detail))
                continue
            rows[row["segment_id"]] = {name: row[name] for name in _KEPT}
            if clip is not None:
                asked.setdefault(clip.language or "", []).append((clip, row["text"]))
        for language in sorted(asked):
            for clip, found in self._align(asked[language], language):
                rows[clip.segment_id].update(self._columns(clip, found, counts))
        metrics = {name: float(count) for name, count in sorted(counts.items())}
        return StageResult(self.spec.produces.batch(list(rows.values())), rejects, metrics)

    def close(self) -> None:
        """Lets go of the aligner; the worker's cache owns it."""
        self._aligner = None

    def _clip(self, row: Mapping[str, Any], counts: Counter[str]) -> Clip | None:
        """Returns what of a row is to be aligned, None for nothing.

        Raises:
            RecordError: The audio cannot be decoded.
        """
        assert self._aligner is not None
        timed = row["words"] is not None and self._config.when == "missing"
        if not row["text"] or row["audio"] is None or timed:
            return None
        language = spoken_language(row["language"], self._aligner.languages)
        if language is None:
            counts["align_other_language"] += 1
            return None
        wave = decode_at(row["audio"], self._aligner.sample_rate)
        return Clip(row["segment_id"], language, row["sample_rate"], wave)

    def _align(self, clips: Sequence[tuple[Clip, str]], language: str) -> list[tuple[Clip, AlignedText | RecordError]]:
        assert self._aligner is not None
        found = self._aligner.align([clip.wave for clip, _ in clips], [text for _, text in clips], language)
        return list(zip([clip for clip, _ in clips], found, strict=True))

    def _columns(self, clip: Clip, found: AlignedText | RecordError, counts: Counter[str]) -> dict[str, Any]:
        """Returns the columns of what was found: none where nothing was."""
        assert self._aligner is not None
        counts["align_segments"] += 1
        if isinstance(found, RecordError):
            counts[f"align_failed_{found.code}"] += 1
            return {}
        if found.confidence is not None and found.confidence < self._config.min_confidence:
            counts["align_unsure"] += 1
            return {}
        rates = self._aligner.sample_rate, clip.sample_rate
        columns: dict[str, Any] = {"words": timed_rows(found.words, *rates) or None}
        if found.phones is not None:
            columns["phones"] = timed_rows(found.phones, *rates)
        counts["align_words"] += len(found.words)
        return columns | {"align_confidence": found.confidence}


def timed_rows(words: Sequence[Word], from_rate: int, to_rate: int) -> list[dict[str, Any]]:
    """Returns words as the columns `words` and `phones` hold them, with times at another rate."""
    edges = [(w.text, w.start * to_rate // from_rate, (w.start + w.num_samples) * to_rate // from_rate) for w in words]
    return [{"text": text, "start": start, "num_samples": end - start} for text, start, end in edges]
