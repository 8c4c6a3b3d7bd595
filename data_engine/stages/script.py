"""Script: a brief becomes a written dialogue, turn by turn with how each is to be spoken."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from data_engine.backends.prosody_rules import read_rules
from data_engine.backends.protocols import Brief, ScriptWriter
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.ids import content_id, split_of
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker
from data_engine.stages.rules.script_rules import check_script

Written = dict[str, Any] | RecordError


class WriteScript:
    """Writes a dialogue per brief and checks it: turn order, controls, tool calls, alternatives.

    Consumes: brief_id, language, axis, seed
    Produces: dialogue_id, brief_id, language, axis, split, persona, tools, turns, generator, generator_revision, seed,
        is_synthetic
    Rejects: NO_SCRIPT, SCRIPT_INVALID
    """

    class Config(Settings):
        """Settings of the writing.

        Attributes:
            llm: Back end of role `llm`.
            batch_rows: Briefs at once; a service writes so many at a time.
        """

        llm: BackendChoice = role("llm", "bank")
        batch_rows: int = speed_knob(16, ge=1)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = StageSpec(
            name="script",
            version="1",
            consumes=load_schema("brief").pick("brief_id", "language", "axis", "seed"),
            produces=load_schema("script"),
            shape="expand",
            parents="brief_id",
            batch=BatchHint(max_rows=config.batch_rows),
        )

    def open(self, worker: Worker) -> None:
        """Takes the writer and the controls it may ask for."""
        self._writer: ScriptWriter = worker.backend("llm", self.config.llm.name, self.config.llm.options)
        rules = read_rules()
        self._emotions, self._speeds = tuple(rules.emotions), tuple(rules.speeds)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns one dialogue per brief, or its reject."""
        briefs = [Brief(**row) for row in batch.to_pylist()]
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        for brief, written in zip(briefs, self._write(briefs), strict=True):
            try:
                rows.append(self._row(brief, written))
            except RecordError as error:
                rejects.append(Reject(brief.brief_id, error.code, error.detail))
        return StageResult(self.spec.produces.batch(rows), rejects)

    def close(self) -> None:
        """Back ends are closed by their cache."""

    def _write(self, briefs: list[Brief]) -> list[Written]:
        """Returns scripts; when one of a batch cannot be written, each is asked for alone to find which."""
        try:
            return list(self._writer.write(briefs))
        except RecordError as error:
            return [error] if len(briefs) == 1 else [self._write([brief])[0] for brief in briefs]

    def _row(self, brief: Brief, written: Written) -> dict[str, Any]:
        if isinstance(written, RecordError):
            raise written
        script = check_script(written, self._emotions, self._speeds)
        dialogue_id = content_id("dialogue", brief.brief_id, _canonical(script))
        return {
            "dialogue_id": dialogue_id,
            "brief_id": brief.brief_id,
            "language": brief.language,
            "axis": brief.axis,
            "split": split_of(dialogue_id),
            "persona": script["persona"],
            "tools": _canonical(script["tools"]) if script["tools"] else None,
            "turns": script["turns"],
            "generator": self.config.llm.name,
            "generator_revision": self._writer.revision,
            "seed": brief.seed,
            "is_synthetic": True,
        }


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
