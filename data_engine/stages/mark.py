"""Mark: writes beside each segment which other recording holds the same speech, for the policy to decide."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from data_engine.core.config import Settings, speed_knob
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, column
from data_engine.io.shards import read_table
from data_engine.stages.rules.consent import TableReference
from data_engine.stages.rules.duplicates import kept_copies


class Mark:
    """Fills `duplicate_of` with the recording that is kept in place of a segment's own; null when it is its own.

    Consumes: segment_id, recording_id
    Produces: segment_id, duplicate_of
    Rejects: none
    """

    class Config(Settings):
        """Settings of the mark.

        Attributes:
            duplicates: Where the table is, and a digest of it for the signature; filled by the pipeline.
            batch_rows: Rows at once.
        """

        duplicates: TableReference = TableReference()
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        self.config, segment = config, load_schema("segment")
        self.spec = StageSpec(
            name="mark",
            version="1",
            consumes=segment.pick("recording_id"),
            produces=segment.pick("duplicate_of"),
            shape="map",
            batch=BatchHint(max_rows=config.batch_rows),
        )

    def open(self, worker: Worker) -> None:
        """Reads which copies are kept."""
        self._kept = _kept_copies(self.config.duplicates)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns `duplicate_of` of each row."""
        identity = self.spec.produces.id
        kept = [self._kept.get(recording) for recording in column(batch, "recording_id")]
        columns = [batch.column(batch.schema.get_field_index(identity)), pa.array(kept, pa.string())]
        rows = pa.RecordBatch.from_arrays(columns, schema=pa.schema([f.arrow() for f in self.spec.produces.fields]))
        return StageResult(rows, metrics={"duplicates": float(sum(name is not None for name in kept))})

    def close(self) -> None:
        """Holds nothing but the duplicates."""
        self._kept = {}


@lru_cache(maxsize=1)
def _kept_copies(duplicates: TableReference) -> dict[str, str]:
    """Returns recording -> the one kept in its place; one reading per worker, since every shard asks for the same."""
    if not duplicates.uri:
        return {}
    columns = ("recording_id", "duplicate_of", "kept_seconds", "kept_quality")
    return kept_copies(read_table(duplicates.uri, "duplicates", columns).to_pylist())
