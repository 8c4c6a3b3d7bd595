"""Fingerprint: the buckets in which a recording will meet its duplicates, wherever they are in the run."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from data_engine.core.config import Settings, speed_knob
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, iterate_rows
from data_engine.stages.rules.duplicates import bands, minhash


class Fingerprint:
    """Reduces the segments of each recording to a hash of their samples and to the bands of a MinHash of their codes.

    Consumes: segment_id, recording_id, num_samples, sample_rate, audio, vq02, dnsmos_ovr
    Produces: fingerprint.v1
    Rejects: none
    """

    class Config(Settings):
        """Settings of the fingerprint.

        Attributes:
            min_seconds: Less speech is compared sample by sample only: a few words are no sign of a copy.
            batch_rows: Rows at once.
        """

        min_seconds: float = Field(default=2.0, ge=0)
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = StageSpec(
            name="fingerprint",
            version="1",
            consumes=load_schema("segment").pick(
                "recording_id", "num_samples", "sample_rate", "audio", "vq02", "dnsmos_ovr"
            ),
            produces=load_schema("fingerprint"),
            shape="fold",
            parents="segment_ids",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._recordings: dict[str, _Recording] = {}

    def open(self, worker: Worker) -> None:
        """Needs nothing."""
        self._recordings = {}

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Takes segments; returns no row."""
        for row in iterate_rows(batch):
            recording = self._recordings.setdefault(row["recording_id"], _Recording())
            recording.segment_ids.append(row["segment_id"])
            # a segment without audio equals nothing but itself
            recording.samples.update((row["audio"] or {}).get("bytes") or row["segment_id"].encode())
            recording.codes.append(np.asarray(row["vq02"] or [], np.int64))
            seconds = row["num_samples"] / row["sample_rate"]
            recording.seconds += seconds
            recording.quality += seconds * (row["dnsmos_ovr"] or 0.0)
        return StageResult(self.spec.produces.batch([]))

    def finish(self) -> StageResult:
        """Returns the fingerprints, by recording."""
        rows = [row for name, found in sorted(self._recordings.items()) for row in self._rows(name, found)]
        self._recordings = {}
        return StageResult(self.spec.produces.batch(rows))

    def close(self) -> None:
        """Holds nothing else."""
        self._recordings = {}

    def _rows(self, recording_id: str, found: _Recording) -> list[dict[str, object]]:
        buckets: list[tuple[str, str, list[int]]] = [("exact", found.samples.hexdigest()[:32], [])]
        if found.seconds >= self.config.min_seconds:
            signature = minhash(np.concatenate(found.codes))
            buckets += [("near", bucket, signature.tolist()) for bucket in bands(signature)]
        return [
            {
                "fingerprint_id": content_id("fingerprint", recording_id, kind, bucket),
                "recording_id": recording_id,
                "bucket": bucket,
                "kind": kind,
                "seconds": found.seconds,
                "quality": found.quality / max(found.seconds, 1e-9),
                "minhash": signature,
                "segment_ids": found.segment_ids if kind == "exact" else [],
            }
            for kind, bucket, signature in buckets
        ]


class _Recording:
    def __init__(self) -> None:
        self.segment_ids: list[str] = []
        self.samples = hashlib.sha256()
        self.codes: list[npt.NDArray[np.int64]] = []
        self.seconds = self.quality = 0.0
