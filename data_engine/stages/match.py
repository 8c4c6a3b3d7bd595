"""Match: recordings that met in a bucket and are the same speech become rows of `duplicates`."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pyarrow as pa
from pydantic import Field

from data_engine.core.config import Settings, speed_knob
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, iterate_rows
from data_engine.stages.rules.duplicates import matches


class Match:
    """Compares the fingerprints of each bucket; those without a copy are unused as `unique`.

    Consumes: fingerprint.v1
    Produces: duplicate.v1
    Rejects: none
    """

    class Config(Settings):
        """Settings of the comparison.

        Attributes:
            threshold: Correlation of sound from which two recordings are near duplicates: copies reach 0.9 to 1,
                the same word said again by the same speaker 0.85.
            supported: The same where more than a word is compared: the same sentence said again reaches 0.74.
            batch_rows: Rows at once.
        """

        threshold: float = Field(default=0.88, gt=0, le=1)
        supported: float = Field(default=0.78, gt=0, le=1)
        batch_rows: int = speed_knob(1024, ge=1)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = StageSpec(
            name="match",
            version="2",
            consumes=load_schema("fingerprint"),
            produces=load_schema("duplicate"),
            shape="fold",
            parents="fingerprint_ids",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._bucket: list[dict[str, Any]] = []

    def open(self, worker: Worker) -> None:
        """Needs nothing."""
        self._bucket = []

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Compares every bucket that ends in this batch; rows come in order of bucket."""
        rows: list[dict[str, Any]] = []
        unused: dict[str, str] = {}
        held = [*self._bucket, *iterate_rows(batch)]
        *ended, self._bucket = (list(bucket) for _, bucket in groupby(held, key=lambda row: row["bucket"]))
        for bucket in ended:
            found, alone = self._compare(bucket)
            rows += found
            unused |= alone
        return StageResult(self.spec.produces.batch(rows), unused=unused)

    def finish(self) -> StageResult:
        """Compares the last bucket."""
        rows, unused = self._compare(self._bucket)
        self._bucket = []
        return StageResult(self.spec.produces.batch(rows), unused=unused)

    def close(self) -> None:
        """Holds nothing else."""
        self._bucket = []

    def _compare(self, bucket: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
        rows = [
            {
                "duplicate_id": content_id("duplicate", row["recording_id"], other["recording_id"], row["bucket"]),
                "recording_id": row["recording_id"],
                "duplicate_of": other["recording_id"],
                "kind": row["kind"],
                "similarity": similarity,
                "seconds": row["seconds"],
                "kept_seconds": other["seconds"],
                "kept_quality": other["quality"],
                "fingerprint_ids": [row["fingerprint_id"], other["fingerprint_id"]],
            }
            for row, other, similarity in matches(bucket, self.config.threshold, self.config.supported)
        ]
        matched = {name for row in rows for name in row["fingerprint_ids"]}
        return rows, {r["fingerprint_id"]: "unique" for r in bucket if r["fingerprint_id"] not in matched}
