"""Small rows of each record type for stage tests: everything not named is plausible and passes every gate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.core.harness import StageRun
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import Stage, Worker
from data_engine.io.audio import encode_flac

Row = dict[str, Any]
RATE = 16000


class LetterTokenizer:
    """A text tokenizer of one id per letter, so that texts can be read off the ids."""

    revision = "letters-1"

    def encode(self, text: str) -> list[int]:
        return [100 + ord(letter) % 60000 for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(number - 100) for number in ids)

    def specials(self) -> dict[str, int]:
        return {"<audio_start>": 10, "<audio_end>": 11, "<pad>": 12, "<|CALL_START|>": 13, "<|CALL_END|>": 14}


def worker(folder: Path, **backends: Any) -> Worker:
    """A worker whose roles are played by the given objects."""
    return Worker(folder, lambda role, name, options: backends[role])


def ran(stage: Stage, rows: Iterable[Row], schema: str, batch_rows: int | None = None) -> tuple[list[Row], StageRun]:
    """Runs a stage over rows under the harness, which holds the conservation law."""
    batch = load_schema(schema).batch(list(rows))
    size = batch_rows or max(batch.num_rows, 1)
    batches = [batch.slice(start, size) for start in range(0, batch.num_rows, size)]
    run = StageRun(stage, "signature")
    return [row for part in run.run(batches) for row in part.to_pylist()], run


@cache
def tone(seconds: float = 1.0, hertz: float = 220.0, level: float = 0.3, rate: int = RATE) -> bytes:
    """A FLAC file with a sine."""
    time = np.arange(round(seconds * rate)) / rate
    return encode_flac((level * np.sin(2 * np.pi * hertz * time)).astype(np.float32), rate)


def codes(groups: int, seed: int = 0) -> dict[str, Any]:
    """Code columns of so many groups, with a remainder that fills none."""
    draw = np.random.default_rng(seed)
    return {
        "vq02": draw.integers(0, 1024, 2 * groups + 1).tolist(),
        "vq06": draw.integers(0, 4096, 3 * groups + 2).tolist(),
        "num_groups": groups, "codec": "kmeans", "tokenizer_hash": "codec-a", "quant_bits": 32,
    }  # fmt: skip


CONSENT = {"licence": "CC0-1.0", "consent_basis": "public domain", "allowed_uses": ["asr", "clone", "dialogue", "tts"]}

MEASURED = {
    "dnsmos_sig": 3.2, "dnsmos_bak": 3.8, "dnsmos_ovr": 3.1, "snr_db": 35.0, "clipping_ratio": 0.0,
    "bandwidth_hz": 7900.0, "energy_dbfs": -22.0, "f0_median_hz": 180.0, "f0_std_semitones": 2.5,
    "voiced_ratio": 0.6, "speaking_rate": 4.5, "silence_ratio": 0.1,
}  # fmt: skip

VERIFIED = {
    "rate_ratio": 1.0, "pitch_ratio": 1.0, "heard": "as asked", "word_error_rate": 0.0, "speaker_similarity": 0.9,
    "longest_silence": 0.2, "repetition": 0.0,
}  # fmt: skip


def segment(number: int = 0, seconds: float = 2.0, **changes: Any) -> Row:
    """A row of segment.v1 that every policy keeps."""
    row = {
        "segment_id": content_id("test segment", number), "recording_id": "recording", "channel": 0,
        "start": number * 10 * RATE, "num_samples": round(seconds * RATE), "sample_rate": RATE,
        "speaker_id": "speaker", "split": "train", "language": "en", **CONSENT, "is_synthetic": False,
        "audio": {"bytes": tone(seconds, 150.0 + 10 * number), "path": None},
        "text": f"sentence {number}", "text_source": "source", "text_confidence": 0.9, **MEASURED, "decision": "keep",
    }  # fmt: skip
    return row | changes


def context(turns: Sequence[Row], **changes: Any) -> str:
    """The column `context` of a dialogue."""
    return json.dumps({"axis": "creativity", "persona": None, "tools": None, "turns": list(turns)} | changes)


TURNS = (
    {"role": "user", "text": "how are you"},
    {"role": "assistant", "text": "very well thank you"},
)


def candidate(turn: int = 0, take: int = 0, variant: int = 0, dialogue: str = "d", **changes: Any) -> Row:
    """A row of candidate.v1 as it leaves `verify`, passing every gate; even turns are the user's."""
    role = "assistant" if turn % 2 else "user"
    number = 100 * turn + 10 * variant + take
    row = {
        "candidate_id": f"{dialogue}-{turn}-{variant}-{take}", "dialogue_id": dialogue, "turn": turn, "role": role,
        "variant": variant, "variant_axis": "relevance" if variant else None, "take": take, "language": "en",
        "split": "train", "text": TURNS[turn % 2]["text"], "context": context(TURNS), "emotion": "neutral", "level": 1,
        "dialect": None, "speed": "normal", "voice_id": f"voice-{role}", **CONSENT, "seed": number,
        "generator": "espeak", "generator_revision": "1", "generator_params": "{}", "is_synthetic": True,
        "audio": {"bytes": tone(), "path": None}, "num_samples": RATE, "sample_rate": RATE,
        **MEASURED, **VERIFIED, **codes(8, number),
    }  # fmt: skip
    return row | changes


def decided(row: Row, score: float = 0.9, **changes: Any) -> Row:
    """A candidate as it leaves `select`: kept, first of its takes and selected unless it says otherwise."""
    first = row["take"] == 0
    return row | {"score": score, "decision": "keep", "reasons": [], "rank": row["take"], "selected": first} | changes


def column(rows: Iterable[Row], name: str) -> list[Any]:
    """One column of rows."""
    return [row[name] for row in rows]


def table(rows: Iterable[Row], schema: str) -> pa.RecordBatch:
    """Rows as a record batch."""
    return load_schema(schema).batch(list(rows))
