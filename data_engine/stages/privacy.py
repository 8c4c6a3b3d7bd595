"""Stage `privacy`: finds personal data in transcripts; marks it, bleeps it or rejects the segment.

What was found is never repeated: rejects, metrics and messages hold kinds and counts, and of a bleeped segment neither
the words nor their sound are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from data_engine.backends.protocols import PiiDetector, PiiSpan
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import EngineError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.stages.rules.bleep import Tone, bleep, reach
from data_engine.stages.rules.passages import Passage, Redaction, find_passages, redact

_READS = ("text", "language", "words", "num_samples", "sample_rate")
_REWRITES = ("audio", "text", "words")
_PHONES = "phones"


class PrivacyConfig(Settings):
    """Configuration of `privacy`.

    Attributes:
        pii: Back end of the role `pii`.
        action: `mark` writes down where personal data is, `bleep` takes it out of sound and text, `reject` rejects
            the segment.
        kinds: Kinds that count, such as PHONE; None: all the back end finds.
        min_score: What the back end is less sure of is left alone.
        tone: What is heard in place of personal data.
        with_phones: Whether segments have phone times, which `bleep` takes out, too.
        max_rows: At most so many segments at once.
        max_seconds: At most so many seconds of audio at once.
    """

    pii: BackendChoice = role("pii", "patterns")
    action: Literal["mark", "bleep", "reject"] = "mark"
    kinds: tuple[str, ...] | None = None
    min_score: float = Field(0.5, ge=0, le=1)
    tone: Tone = Tone()
    with_phones: bool = False
    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(600.0, gt=0.0)


class Privacy:
    """Finds personal data in the text of segments and does with it what `action` says.

    Consumes: segment_id, text, language, words, num_samples, sample_rate
    Produces: segment_id, pii
    Rejects: PII, BACKEND_FAILED, EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, UNSUPPORTED_CODEC, DECODE_FAILED,
        NO_AUDIO_STREAM

    With `action: bleep` it also reads and writes audio, text and words (and phones, `with_phones`): the sound under
    the words becomes a tone, the words a tag such as [PHONE]. Without word times this is done to the whole segment.
    A segment without text cannot be searched and has no `pii`; an empty list says that nothing was found.
    """

    Config = PrivacyConfig

    def __init__(self, config: PrivacyConfig) -> None:
        self._config = config
        self._detector: PiiDetector | None = None
        schema = load_schema("segment")
        rewrites = _rewritten(config)
        self.spec = StageSpec(
            name="privacy",
            version="1",
            consumes=schema.pick(*_READS, *rewrites),
            produces=schema.pick("pii", *rewrites),
            shape="map",
            batch=BatchHint(config.max_rows, config.max_seconds),
        )

    def open(self, worker: Worker) -> None:
        """Loads the detector."""
        self._detector = worker.backend("pii", self._config.pii.name, self._config.pii.options)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Searches one batch; the detector sees all texts of a language at once."""
        searched = list(iterate_rows(batch.select([self.spec.produces.id, "text", "language"])))
        spans, failed = self._search(searched)
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        counts: Counter[str] = Counter()
        for row in iterate_rows(batch):
            name = row[self.spec.produces.id]
            try:
                if name in failed:
                    raise failed[name]
                columns, found = self._columns(row, spans.get(name))
                rows.append({self.spec.produces.id: name, **columns})
            except RecordError as error:
                rejects.append(Reject(name, error.code, error.detail))
                continue
            counts.update(f"pii_{passage.kind}" for passage in found)
            counts["pii_segments"] += bool(found)
        metrics = {name: float(count) for name, count in sorted(counts.items())}
        return StageResult(self.spec.produces.batch(rows), rejects, metrics)

    def close(self) -> None:
        """Lets go of the detector; the worker's cache owns it."""
        self._detector = None

    def _search(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[PiiSpan]], dict[str, RecordError]]:
        """Returns the spans that count of each row with a text, and the rows on which the detector failed."""
        spans: dict[str, list[PiiSpan]] = {}
        failed: dict[str, RecordError] = {}
        texts = [row for row in rows if row["text"]]
        for language in dict.fromkeys(row["language"] for row in texts):
            chosen = [row for row in texts if row["language"] == language]
            for row, found in zip(chosen, self._find([row["text"] for row in chosen], language), strict=True):
                name = row[self.spec.produces.id]
                if isinstance(found, RecordError):
                    failed[name] = found
                else:
                    spans[name] = [span for span in found if self._counts(span)]
        return spans, failed

    def _find(self, texts: Sequence[str], language: str | None) -> list[list[PiiSpan] | RecordError]:
        """Returns the spans of each text. The message of a failure may quote a text, so only its type is kept."""
        assert self._detector is not None
        try:
            return list(self._detector.find(texts, language))
        except (EngineError, MemoryError):
            raise
        except Exception as error:
            if len(texts) > 1:
                return [found for text in texts for found in self._find([text], language)]
            kind = type(error).__name__
        return [RecordError("BACKEND_FAILED", f"the pii back end '{self._config.pii.name}' failed with {kind}")]

    def _counts(self, span: PiiSpan) -> bool:
        kinds = self._config.kinds
        return span.score >= self._config.min_score and (kinds is None or span.kind in kinds)

    def _columns(
        self, row: Mapping[str, Any], spans: Sequence[PiiSpan] | None
    ) -> tuple[dict[str, Any], Sequence[Passage]]:
        """Returns the new columns of a row and what was found in it.

        Raises:
            RecordError: PII with `action: reject`; as `decode_bytes`.
        """
        kept = {name: row[name] for name in _rewritten(self._config)}
        if not spans:
            return {**kept, "pii": None if spans is None else []}, ()
        passages = find_passages(row["text"], row["words"], row["num_samples"], spans)
        if self._config.action == "reject":
            raise RecordError("PII", f"the transcript holds {summary(passages)}")
        if self._config.action == "mark":
            return {"pii": entries(passages, "mark")}, passages
        done = redact(row["text"], row["words"], passages)
        return {**kept, **self._silenced(row, done), "pii": entries(done.passages, "bleep")}, done.passages

    def _silenced(self, row: Mapping[str, Any], done: Redaction) -> dict[str, Any]:
        """Returns the columns from which the passages are gone."""
        columns: dict[str, Any] = {"text": done.text, "words": done.words or None}
        intervals = [passage.samples for passage in done.passages]
        if row["audio"] is not None:
            samples, rate = decode_bytes(row["audio"]["bytes"])
            encoded = encode_flac(bleep(samples[0], rate, intervals, self._config.tone), rate)
            columns["audio"] = {**row["audio"], "bytes": encoded}
        if self._config.with_phones and row[_PHONES] is not None:
            beyond = sum(reach(self._config.tone, row["sample_rate"]))
            columns[_PHONES] = [phone for phone in row[_PHONES] if not _touched(phone, intervals, beyond)] or None
        return columns


def _rewritten(config: PrivacyConfig) -> tuple[str, ...]:
    """Returns the columns that `bleep` reads and writes."""
    if config.action != "bleep":
        return ()
    return (*_REWRITES, _PHONES) if config.with_phones else _REWRITES


def _touched(phone: Mapping[str, int], intervals: Iterable[tuple[int, int]], beyond: int) -> bool:
    start, end = phone["start"], phone["start"] + phone["num_samples"]
    return any(start < last + beyond and first - beyond < end for first, last in intervals)


def summary(passages: Sequence[Passage]) -> str:
    """Returns kinds and counts, nothing of what was said: "1 EMAIL, 2 PHONE"."""
    counts = Counter(passage.kind for passage in passages)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def entries(passages: Sequence[Passage], action: str) -> list[dict[str, Any]]:
    """Returns passages as the column `pii` holds them."""
    return [
        {
            "kind": p.kind, "text_start": p.text[0], "text_length": p.text[1] - p.text[0],
            "start": p.samples[0], "num_samples": p.samples[1] - p.samples[0], "action": action,
        }
        for p in passages
    ]  # fmt: skip
