"""Fingerprint: the buckets in which a recording will meet its duplicates, wherever they are in the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from data_engine.core.config import Settings, speed_knob
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes
from data_engine.io.decoding.resample import resample
from data_engine.models.sound_print import SAMPLE_RATE, Samples, is_silent
from data_engine.stages.rules.duplicates import Signature


class Fingerprint:
    """Reduces the segments of each recording to a hash of their samples and to a MinHash of their sound.

    Consumes: segment_id, recording_id, start, num_samples, sample_rate, audio, dnsmos_ovr
    Produces: fingerprint.v1
    Rejects: none
    """

    class Config(Settings):
        """Settings of the fingerprint.

        Attributes:
            min_seconds: Less sound equals nothing but itself, nor does silence.
            batch_rows: Rows at once.
        """

        min_seconds: float = Field(default=0.1, ge=0)
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = StageSpec(
            name="fingerprint",
            version="2",
            consumes=load_schema("segment").pick(
                "recording_id", "start", "num_samples", "sample_rate", "audio", "dnsmos_ovr"
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
            samples = _samples(row["audio"])
            if not is_silent(samples):
                recording.samples.update(samples.tobytes())
                recording.heard += len(samples) / SAMPLE_RATE
                recording.signature.add(samples, row["start"] / row["sample_rate"])
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
        heard = found.heard >= self.config.min_seconds
        equal = found.samples.hexdigest()[:32] if heard else content_id("alone", recording_id)
        near = found.signature.buckets() if heard else []
        buckets: list[tuple[str, str, dict[str, object]]]
        buckets = [("exact", equal, {"minhash": []}), *(("near", bucket, columns) for bucket, columns in near)]
        return [
            {
                "fingerprint_id": content_id("fingerprint", recording_id, kind, bucket),
                "recording_id": recording_id,
                "bucket": bucket,
                "kind": kind,
                "seconds": found.seconds,
                "quality": found.quality / max(found.seconds, 1e-9),
                "segment_ids": found.segment_ids if kind == "exact" else [],
                **columns,
            }
            for kind, bucket, columns in buckets
        ]


def _samples(audio: Mapping[str, Any] | None) -> Samples:
    """Returns the sound of a segment as 16-bit samples at 16 kHz, whatever container it came in."""
    encoded = (audio or {}).get("bytes")
    if not encoded:
        return np.zeros(0, np.int16)
    wave, rate = decode_bytes(encoded)
    mono = wave[0] if rate == SAMPLE_RATE else resample(np.ascontiguousarray(wave[0]), rate, SAMPLE_RATE)
    return np.asarray(np.rint(np.clip(mono.astype(np.float64) * 32768, -32768, 32767)), np.int16)


class _Recording:
    def __init__(self) -> None:
        self.segment_ids: list[str] = []
        self.samples = hashlib.sha256()
        self.signature = Signature()
        self.heard = self.seconds = self.quality = 0.0
