"""Output folders for tests: real parts, markers and run.json around rows made up on the spot."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile

from data_engine.backends.protocols import TextTokenizer
from data_engine.core.schema import Schema, load_schema
from data_engine.io.shards import TABLE_SCHEMAS, PartWriter, marker_name
from data_engine.io.storage import Storage
from data_engine.tokens.interleave import Interleaving, interleave
from data_engine.tokens.layout import interleave_codes
from data_engine.tokens.preference import preference_row
from data_engine.tokens.templates import Turn, chat_prompt_ids, continuation_ids
from data_engine.tokens.vocabulary import SpecialTokens

Row = dict[str, Any]
SAMPLE_RATE = 16000
_PLAIN: dict[str, Any] = {
    "string": "x", "bool": True, "int32": 1, "int64": 1, "float32": 0.5, "list<string>": [],
    "list<float32>": [0.6, 0.8], "list<int32>": [5, 6, 7], "list<uint8>": [0, 1, 1],
}  # fmt: skip


def flac(hertz: float, seconds: float = 1.0) -> dict[str, Any]:
    """Returns a tone as the audio column holds it."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    stream = io.BytesIO()
    soundfile.write(stream, 0.3 * np.sin(2 * np.pi * hertz * time), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return {"bytes": stream.getvalue(), "path": None}


def audio_ids(groups: int, seed: int) -> list[int]:
    """Returns a valid run of audio ids."""
    random = np.random.default_rng(seed)
    return interleave_codes(random.integers(0, 1024, 2 * groups), random.integers(0, 4096, 3 * groups)).ids.tolist()


def plain_row(schema: Schema) -> Row:
    """Returns a row with something in every column that must not be null."""
    return {
        field.name: field.values[0] if field.values else _PLAIN.get(field.type, {"bytes": b"", "path": None})
        for field in schema.fields
        if not field.nullable
    }


def example(number: int, length: int = 6, **changes: Any) -> Row:
    """Returns an `aqaa` row whose ids tell its number; the prompt is half of it."""
    ids = [5000 + number, *range(10, 9 + length)]
    mask = [int(i >= length // 2) for i in range(length)]
    row = {
        "example_id": f"e{number:05d}", "dialogue_id": f"d{number // 4}", "type": "AQTAA", "language": "en",
        "split": "train", "input_ids": ids, "loss_mask": mask, "dpo_mask": mask, "prompt_length": length // 2,
        "vq02_q": [number % 1024, 1], "tokenizer_hash": "audio-1", "text_tokenizer_hash": "text-1",
    }  # fmt: skip
    return {**plain_row(load_schema("aqaa")), **row, **changes}


def segment(number: int, **changes: Any) -> Row:
    """Returns a `segments` row with a tone as audio."""
    row = {
        "segment_id": f"s{number:05d}", "split": "train", "audio": flac(220.0 + 10 * number), "num_samples": 16000,
        "sample_rate": SAMPLE_RATE, "text": f"segment {number}", "licence": "CC0-1.0", "vq02": [1, 2],
        "vq06": [1, 2, 3], "num_groups": 1, "tokenizer_hash": "audio-1", "decision": "keep",
        "words": [{"text": "segment", "start": 0, "num_samples": 2000}],
    }  # fmt: skip
    return {**plain_row(load_schema("segment")), **row, **changes}


def preference(number: int, tokenizer: TextTokenizer, kind: Literal["text", "audio"] = "text", **changes: Any) -> Row:
    """Returns a `preferences` row as the prefer pipeline lays it out: audio query, interleaved answers."""
    special = SpecialTokens.from_mapping(tokenizer.specials())
    texts = [f"Take the {number} o'clock train, it is the faster one.", f"I cannot hear you, please write. {number}"]
    texts = texts if kind == "text" else [texts[0]] * 2
    answers = [
        interleave(continuation_ids(text, tokenizer.encode), audio_ids(9, 2 * number + side), special, Interleaving())
        for side, text in enumerate(changes.pop("texts", texts))
    ]
    query = np.array(audio_ids(4, 1000 + number), np.int32)
    turns = [Turn("system", "You are a kind guide."), Turn("user", "Which train?", query)]
    pair = preference_row(
        chat_prompt_ids(turns, tokenizer.encode, special), *answers, kind, special,
        margin=5.0, scorer="test", seed=number, source_id="x", tokenizer_hash="audio-1",
    )  # fmt: skip
    ids = {name: getattr(pair, name) for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    masks = {name: getattr(pair, name) for name in ("mask_chosen", "mask_rejected")}
    row = {
        "pair_id": f"p{number:05d}", "kind": kind, "masked": pair.masked, "language": "en", "split": "train",
        "audio_q": flac(300), "chosen_audio": flac(400), "rejected_audio": flac(500), "tokenizer_hash": "audio-1",
        "text_tokenizer_hash": tokenizer.revision, **ids, **masks,
    }  # fmt: skip
    return {**plain_row(load_schema("preference")), **row, **changes}


def write_part(root: Path | str, table: str, shard: int, rows: Sequence[Row]) -> dict[str, Any]:
    """Commits a part with its marker and returns its entry for run.json."""
    schema, storage = load_schema(TABLE_SCHEMAS[table]), Storage(str(root))
    with storage.scratch() as scratch:
        writer = PartWriter(schema, scratch)
        writer.write(schema.batch(list(rows)))
        marker = writer.commit(storage, table, shard, {"signature": "sig"})
    storage.write_json(marker_name(table, shard), marker)
    kept = {key: marker[key] for key in ("rows", "seconds", "sha256")}
    return {"shard": shard, **kept, "file": f"{table}/{marker['file']}"}


def write_output(
    root: Path | str, tables: dict[str, list[list[Row]]], state: str = "complete", config: dict[str, Any] | None = None
) -> str:
    """Writes an output folder: for each table a part per list of rows, then run.json; returns its address."""
    named = {
        table: [write_part(root, table, shard, rows) for shard, rows in enumerate(parts)]
        for table, parts in tables.items()
    }
    run = {"format": "speech-data-engine run 1", "state": state, "config": config or {}, "tables": named}
    Storage(str(root)).write("run.json", json.dumps(run).encode())
    return str(root)
