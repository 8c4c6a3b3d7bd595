"""The stages that make teachers' speech: lessons -> utterances -> segments. `training.corpus` plans them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.config import Settings
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.training.speech.lessons import LessonSettings, Said, lesson
from data_engine.training.speech.spoken import Spoken, row_of

_SEGMENT = (
    "segment_id", "recording_id", "channel", "start", "num_samples", "sample_rate", "speaker_id", "split", "language",
    "licence", "consent_basis", "allowed_uses", "is_synthetic", "audio", "text", "text_source", "phones",
)  # fmt: skip


class Teach:
    """Speaks lessons: one row per utterance, with its audio or the reason why there is none.

    Consumes: lesson_id, number
    Produces: utterance_id, lesson_id, code, detail, segment_id, recording_id, channel, start, num_samples,
        sample_rate, speaker_id, split, language, licence, consent_basis, allowed_uses, is_synthetic, audio, text,
        text_source, phones
    Rejects: NO_CHILDREN
    """

    Config = LessonSettings

    def __init__(self, config: LessonSettings) -> None:
        self.config = config
        consumes, produces = load_schema("lesson").pick("number"), load_schema("utterance")
        hint = BatchHint(max_rows=1)  # a lesson is all the audio of a shard
        self.spec = StageSpec("teach", "1", consumes, produces, "expand", parents="lesson_id", batch=hint)

    def open(self, worker: Worker) -> None:
        """Needs nothing."""

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the utterances of a lesson."""
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        for row in iterate_rows(batch):
            taught = _utterances(row["lesson_id"], lesson(self.config, row["number"]))
            rows += taught
            if not taught:
                rejects.append(Reject(row["lesson_id"], "NO_CHILDREN", "there is nothing to say in this lesson"))
        return StageResult(self.spec.produces.batch(rows), rejects)

    def close(self) -> None:
        """Holds nothing."""


def _utterances(lesson_id: str, said: Iterable[Said]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for position, one in enumerate(said):
        row = _row(one)
        if row.get("recording_id") in rows:
            row = {"text": row["text"], "code": "DUPLICATE", "detail": f"the same bytes as {row['recording_id']}"}
        utterance_id = row.get("recording_id") or content_id("unspoken", lesson_id, position)
        rows[utterance_id] = {**row, "utterance_id": utterance_id, "lesson_id": lesson_id}
    return list(rows.values())


def _row(said: Said) -> dict[str, Any]:
    return row_of(said) if isinstance(said, Spoken) else {"text": said.text, "code": said.code, "detail": said.detail}


class Admit:
    """Takes utterances with audio as segments; every other becomes a reject with its reason.

    Consumes: utterance_id, code, detail, segment_id, recording_id, channel, start, num_samples, sample_rate,
        speaker_id, split, language, licence, consent_basis, allowed_uses, is_synthetic, audio, text, text_source,
        phones
    Produces: segment_id, recording_id, channel, start, num_samples, sample_rate, speaker_id, split, language, licence,
        consent_basis, allowed_uses, is_synthetic, audio, text, text_source, phones
    Rejects: SYNTHESIS_FAILED, TOO_LONG, DUPLICATE
    """

    class Config(Settings):
        """There is nothing to set."""

    def __init__(self, config: Config) -> None:
        self.config = config
        consumes, produces = load_schema("utterance").pick("code", "detail", *_SEGMENT), load_schema("segment")
        self.spec = StageSpec("admit", "1", consumes, produces.pick(*_SEGMENT), "expand", parents="recording_id")

    def open(self, worker: Worker) -> None:
        """Needs nothing."""

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Divides utterances by whether there is audio."""
        spoken = pc.is_null(batch.column("code"))
        failed = batch.filter(pc.invert(spoken)).select(["utterance_id", "code", "detail"]).to_pylist()
        schema = pa.schema([field.arrow() for field in self.spec.produces.fields])
        kept = batch.filter(spoken).select(list(self.spec.produces.names))
        rejects = [Reject(row["utterance_id"], row["code"], row["detail"]) for row in failed]
        return StageResult(pa.RecordBatch.from_arrays(kept.columns, schema=schema), rejects)

    def close(self) -> None:
        """Holds nothing."""
