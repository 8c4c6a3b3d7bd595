"""Output folders made up on the spot, as large as the measures ask: real parts, markers and plan book; no models."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from data_engine.core.harness import StageStats
from data_engine.core.ids import content_id, split_of
from data_engine.core.plan import Group, Plan, Step
from data_engine.core.schema import load_schema
from data_engine.io.shards import ROWS_PER_BATCH, PartWriter, marker_name
from data_engine.io.storage import Storage
from data_engine.runners.books import claim

RATE, SAMPLES, PER_RECORDING = 16000, 4000, 10
STAGES = {
    "analyse": ("decode", "segment", "diarize", "cut", "extract", "transcribe", "annotate", "tokenize"),
    "decide": ("filter", "voices"),
}
Row = dict[str, Any]


def fabricated_plan(storage: Storage, num_shards: int) -> Plan:
    """Returns a plan of curate that nobody has to run."""
    groups = (
        Group("analyse", (Step("diarize", {}, "recordings", "a"),), keep=True),
        Group("decide", (Step("filter", {}, "segments", "b"), Step("voices", {}, "voices", "c"))),
    )
    return Plan("curate", storage.uri, "source", "work/items/x", groups, num_shards, 0, {})


def fabricate_output(storage: Storage, rows: int, parts: int) -> Plan:
    """Commits `rows` segments in `parts` shards, with recordings, voices, rejects, markers and the plan book."""
    plan = fabricated_plan(storage, parts)
    claim(storage, plan, {"curate": {}}, overwrite=False)
    clips = _noises()
    for shard in range(parts):
        segments = list(_segments(shard, rows // parts, clips))
        recordings = [_recording(id) for id in dict.fromkeys(row["recording_id"] for row in segments)]
        voices = [_voice(segments[0])]
        _commit(storage, plan, shard, "analyse", {"recordings": ("recording", recordings)})
        _commit(storage, plan, shard, "decide", {"segments": ("segment", segments), "voices": ("voice", voices)})
    return plan


def _noises() -> list[Row]:
    """Returns as many clips as a record batch has rows, so that no two in it are equal and none compresses."""
    random, clips = np.random.default_rng(0), []
    for _ in range(ROWS_PER_BATCH):
        stream = io.BytesIO()
        soundfile.write(stream, random.uniform(-0.5, 0.5, SAMPLES), RATE, format="FLAC", subtype="PCM_16")
        clips.append({"bytes": stream.getvalue(), "path": None})
    return clips


def _segments(shard: int, count: int, clips: list[Row]) -> Iterator[Row]:
    random = np.random.default_rng(shard)
    measured = random.random((count, 3)).tolist()
    for number, (quality, snr, pitch) in enumerate(measured):
        recording = content_id("recording", shard, number // PER_RECORDING)
        kept = quality > 0.2
        yield {
            "segment_id": content_id(recording, number), "recording_id": recording, "channel": 0,
            "start": number % PER_RECORDING * SAMPLES, "num_samples": SAMPLES, "sample_rate": RATE,
            "speaker_id": f"{recording}:{number % 2}", "split": split_of(recording), "language": "en",
            "licence": "CC0-1.0", "consent_basis": "test", "allowed_uses": ["tts"], "is_synthetic": False,
            "audio": clips[number % len(clips)], "text": f"segment {number} of shard {shard}", "text_source": "asr",
            "text_confidence": 0.9, "words": [{"text": "segment", "start": 0, "num_samples": 2000}],
            "dnsmos_ovr": 1 + 4 * quality, "snr_db": 60 * snr, "f0_median_hz": 80 + 200 * pitch,
            "speaking_rate": 4.0, "vq02": [1, 2] * 4, "vq06": [1, 2, 3] * 4, "num_groups": 4, "codec": "test",
            "tokenizer_hash": "test", "quant_bits": 0, "policy": "test", "decision": "keep" if kept else "drop",
            "reasons": [] if kept else ["dnsmos_ovr"],
        }  # fmt: skip


def _recording(recording_id: str) -> Row:
    length = PER_RECORDING * SAMPLES
    spoken = [{"channel": 0, "start": 0, "num_samples": length}]
    return {
        "recording_id": recording_id, "item_id": recording_id, "uri": f"s3://calls/{recording_id}.flac",
        "split": split_of(recording_id), "container": "FLAC", "codec": "PCM_16", "source_sample_rate": RATE,
        "source_channels": 1, "source_num_samples": length, "sample_rate": RATE, "num_samples": length,
        "num_channels": 1, "gain_db": 0.0, "peak_dbfs": -3.0, "clipping_ratio": 0.0, "warnings": [],
        "allowed_uses": ["tts"], "speech": spoken, "num_speakers": 2,
    }  # fmt: skip


def _voice(segment: Row) -> Row:
    shared = ("recording_id", "speaker_id", "language", "licence", "consent_basis", "allowed_uses", "audio",
              "num_samples", "sample_rate")  # fmt: skip
    own = {"voice_id": content_id("voice", segment["segment_id"]), "segment_ids": [segment["segment_id"]]}
    return {**{name: segment[name] for name in shared}, **own, "embedding": [0.6, 0.8], "score": 0.5}


def _commit(storage: Storage, plan: Plan, shard: int, name: str, tables: dict[str, tuple[str, list[Row]]]) -> None:
    group = next(g for g in plan.groups if g.name == name)
    facts = {"signature": group.signature, "pipeline": plan.pipeline, "group": name}
    with storage.scratch() as scratch:
        markers = []
        for table, (schema, rows) in tables.items():
            writer = PartWriter(load_schema(schema), scratch)
            writer.write(load_schema(schema).batch(rows))
            markers.append(writer.commit(storage, table, shard, facts))
        rejects = PartWriter(load_schema("reject"), scratch)
        rejects.write(load_schema("reject").batch([_reject(shard, name)]))
        record = rejects.commit(storage, f"rejects/{plan.pipeline}.{name}", shard, facts)
    record |= commit_record(
        name, {m["table"]: {k: m[k] for k in ("file", "rows", "seconds", "sha256")} for m in markers}
    )
    for marker in [*markers, record]:
        storage.write_json(marker_name(marker["table"], shard), marker)


def commit_record(group: str, tables: dict[str, Any]) -> dict[str, Any]:
    """Returns what the marker of a group says beside its rejects, as long as in a real run."""
    stats = {"rows_in": 100, "rows_out": 99, "rejected": 1, "seconds_in": 512.125, "seconds_out": 511.5}
    why = Counter({"UNREADABLE": 1})
    stages = [StageStats(name, **stats, wall_seconds=1.234567, reject_codes=why).as_dict() for name in STAGES[group]]
    return {"tables": tables, "stages": stages, "wall_seconds": 12.345, "attempt": 1, "engine": "0"}


def _reject(shard: int, group: str) -> Row:
    return {
        "record_id": content_id("reject", shard, group), "stage": STAGES[group][0], "stage_signature": "s",
        "code": "UNREADABLE", "detail": f"'s3://calls/{shard}.flac' cannot be read: no such file", "attempt": 1,
    }  # fmt: skip
