"""Voiceprint: what of a voice travels between shards, so that its speaker is found in other recordings."""

from __future__ import annotations

import pyarrow as pa

from data_engine.core.config import Settings, speed_knob
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, iterate_rows

_COPIED = ("voice_id", "recording_id", "speaker_id", "language", "score", "embedding")


class Voiceprint:
    """Reduces each voice to its embedding, its ids and a hash of its consent record.

    Consumes: voice_id, recording_id, speaker_id, language, licence, consent_basis, allowed_uses, embedding, score
    Produces: voiceprint.v1
    Rejects: none
    """

    class Config(Settings):
        """Settings of the voiceprint.

        Attributes:
            batch_rows: Rows at once.
        """

        batch_rows: int = speed_knob(256, ge=1)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = StageSpec(
            name="voiceprint",
            version="1",
            consumes=load_schema("voice").pick(*_COPIED, "licence", "consent_basis", "allowed_uses"),
            produces=load_schema("voiceprint"),
            shape="expand",
            parents="voice_id",
            batch=BatchHint(max_rows=config.batch_rows),
        )

    def open(self, worker: Worker) -> None:
        """Needs nothing."""

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns a voiceprint per voice."""
        rows = [
            {name: voice[name] for name in _COPIED}
            | {
                "voiceprint_id": content_id("voiceprint", voice["voice_id"]),
                "consent": consent_hash(voice["consent_basis"], voice["licence"], voice["allowed_uses"]),
                "is_declared": not voice["speaker_id"].startswith(f"{voice['recording_id']}:"),
            }
            for voice in iterate_rows(batch)
        ]
        return StageResult(self.spec.produces.batch(rows))

    def close(self) -> None:
        """Holds nothing."""


def consent_hash(consent_basis: str | None, licence: str | None, allowed_uses: list[str]) -> str:
    """Returns a hash of a consent record; the order of the uses does not matter."""
    return content_id("consent", consent_basis, licence, *sorted(allowed_uses))
