"""Unite: one voice per person and language, where a run found a person under several speaker ids."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa

from data_engine.core.config import Settings, speed_knob
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, column
from data_engine.io.shards import read_table
from data_engine.stages.rules.consent import TableReference


class Unite:
    """Keeps the voice with the best prompt of each person and says which speakers it stands for.

    Others of that person are unused as `same_person`. A voice of a person found once stays as it is.

    Consumes: voice.v1
    Produces: voice.v1
    Rejects: none
    """

    class Config(Settings):
        """Settings of the step.

        Attributes:
            speakers: Where the table is, and a digest of it for the signature; filled by the pipeline.
            batch_rows: Rows at once.
        """

        speakers: TableReference = TableReference()
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        self.config, voice = config, load_schema("voice")
        self.spec = StageSpec(
            name="unite",
            version="1",
            consumes=voice,
            produces=voice,
            shape="fold",
            parents="voice_id",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._people: Mapping[str, Mapping[str, Any]] = {}

    def open(self, worker: Worker) -> None:
        """Reads who was merged."""
        self._people = _people(self.config.speakers)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the voices that are kept."""
        voices = column(batch, "voice_id")
        people = [self._people.get(name) for name in voices]
        kept = [who is None or name in who["kept_voice_ids"] for name, who in zip(voices, people, strict=True)]
        merged = pa.array([who["merged_speakers"] if who else [] for who in people], pa.list_(pa.string()))
        speakers = [
            who["speaker_id"] if who else old for who, old in zip(people, column(batch, "speaker_id"), strict=True)
        ]
        for name, values in (("merged_speakers", merged), ("speaker_id", pa.array(speakers, pa.string()))):
            index = batch.schema.get_field_index(name)
            batch = batch.set_column(index, batch.schema.field(index), values)
        unused = {name: "same_person" for name, keep in zip(voices, kept, strict=True) if not keep}
        return StageResult(batch.filter(pa.array(kept, pa.bool_())), unused=unused)

    def finish(self) -> StageResult:
        """Has nothing left."""
        return StageResult(self.spec.produces.batch([]))

    def close(self) -> None:
        """Holds nothing but who was merged."""
        self._people = {}


@lru_cache(maxsize=1)
def _people(speakers: TableReference) -> dict[str, dict[str, Any]]:
    """Returns voice -> the person it belongs to, of merged ones; one reading per worker."""
    if not speakers.uri:
        return {}
    columns = ("speaker_id", "merged_speakers", "voice_ids", "kept_voice_ids")
    rows = read_table(speakers.uri, "speakers", columns).to_pylist()
    return {voice: row for row in rows for voice in row["voice_ids"]}
