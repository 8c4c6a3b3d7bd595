"""Stage `extract`: takes the sound of each segment out of its decoded recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from data_engine.core.config import Settings, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, each
from data_engine.io.audio import encode_flac
from data_engine.io.scratch import ScratchAudio


class ExtractConfig(Settings):
    """Configuration of `extract`.

    Attributes:
        max_rows: At most so many segments at once.
        max_seconds: At most so many seconds of audio at once.
    """

    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(300.0, gt=0.0)


class Extract:
    """Adds the sound of each segment as 16-bit FLAC.

    Consumes: segment_id, recording_id, channel, start, num_samples, sample_rate
    Produces: segment_id, audio
    Rejects: LENGTH_MISMATCH
    """

    Config = ExtractConfig

    def __init__(self, config: ExtractConfig) -> None:
        self._audio: ScratchAudio | None = None
        schema = load_schema("segment")
        self.spec = StageSpec(
            name="extract",
            version="1",
            consumes=schema.pick("recording_id", "channel", "start", "num_samples", "sample_rate"),
            produces=schema.pick("audio"),
            shape="map",
            batch=BatchHint(config.max_rows, config.max_seconds),
        )

    def open(self, worker: Worker) -> None:
        """Finds the decoded sound of the shard."""
        self._audio = ScratchAudio(worker.scratch)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Encodes each segment."""
        return each(batch, self.spec.produces, self._extract)

    def _extract(self, row: dict[str, Any]) -> Mapping[str, Any]:
        assert self._audio is not None
        wave = self._audio.read(row["recording_id"], row["channel"], row["start"], row["num_samples"])
        if len(wave) != row["num_samples"]:
            end = row["start"] + row["num_samples"]
            raise RecordError("LENGTH_MISMATCH", f"sample {end} lies after the end of channel {row['channel']}")
        encoded = encode_flac(wave, row["sample_rate"])
        return {"audio": {"bytes": encoded, "path": f"{row['segment_id']}.flac"}}

    def close(self) -> None:
        """Lets go of the decoded sound; the shard owns it."""
        self._audio = None
