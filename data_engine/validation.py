"""Validates an output folder row by row: hashes, schemas, ids, parents, audio, token layout, masks, consent.

One check per record type, registered in `CHECKS`; each yields problems as sentences. Rows are read in streams.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile

from data_engine.core.errors import ContractError, EngineError
from data_engine.core.schema import Schema, load_schema
from data_engine.io.shards import TABLE_SCHEMAS, Part, committed_parts, conform, file_sha256, read_batches
from data_engine.io.storage import Storage
from data_engine.runners.redecide import decision_problems
from data_engine.tokens.layout import interleave_codes, num_groups
from data_engine.tokens.vocabulary import VOCABULARY_SIZE, is_audio

MAX_PROBLEMS = 50
_PARENTS = {
    ("segments", "recording_id"): "recordings", ("voices", "segment_ids"): "segments",
    ("candidates", "dialogue_id"): "scripts", ("aqaa", "parents"): "candidates",
    ("preferences", "parents"): "candidates",
}  # fmt: skip

Rows = dict[str, Any]


def validate_output(uri: str) -> dict[str, Any]:
    """Returns {"rows": table -> count, "problems": sentences}; no problems means valid."""
    storage = Storage(uri)
    problems: list[str] = []
    rows: dict[str, int] = {}
    ids: dict[str, set[str]] = {}
    for table in TABLE_SCHEMAS:
        folders = [table] if table != "rejects" else [f"rejects/{n}" for n in storage.list("rejects")]
        parts = [part for folder in folders for part in committed_parts(storage, folder)]
        rows[table] = 0
        for problem in _table_problems(storage, table, parts, rows, ids):
            problems.append(problem)
            if len(problems) >= MAX_PROBLEMS:
                return {"rows": rows, "problems": [*problems, "... and perhaps more"]}
    problems += islice(decision_problems(storage), MAX_PROBLEMS)
    if not any(rows.values()):
        problems.append(f"'{uri}' holds no committed rows")
    return {"rows": rows, "problems": problems}


def _table_problems(
    storage: Storage, table: str, parts: list[Part], rows: dict[str, int], ids: dict[str, set[str]]
) -> Iterator[str]:
    schema = load_schema(TABLE_SCHEMAS[table])
    seen = ids.setdefault(table, set())
    for part in parts:
        yield from _file_problems(storage, part)
        counted = 0
        try:
            for batch in read_batches(storage, part):
                counted += batch.num_rows
                yield from (f"{part.name}: {problem}" for problem in _batch_problems(table, schema, batch, seen, ids))
        except EngineError as error:
            yield str(error)
        if counted != part.marker["rows"]:
            yield f"{part.name}: has {counted} rows, its marker says {part.marker['rows']}"
        rows[table] += counted


def _file_problems(storage: Storage, part: Part) -> Iterator[str]:
    if not storage.exists(part.name):
        yield f"{part.name}: the marker names it, but it is not there"
        return
    if _content_hash(storage, part.name) != part.marker["sha256"]:
        yield f"{part.name}: its content is not what was committed (hash differs)"


def _content_hash(storage: Storage, name: str) -> str:
    if storage.is_local:
        return file_sha256(Path(storage.path(name)))
    with TemporaryDirectory() as folder:
        storage.get(name, Path(folder) / "part")
        return file_sha256(Path(folder) / "part")


def _batch_problems(
    table: str, schema: Schema, batch: pa.RecordBatch, seen: set[str], ids: dict[str, set[str]]
) -> Iterator[str]:
    try:
        batch = _current(schema, batch, table)
    except ContractError as error:
        yield str(error)
        return
    yield from _value_problems(schema, batch)
    if table != "rejects":
        yield from _id_problems(table, schema, batch, seen, ids)
    check = CHECKS.get(table)
    if check is None:
        return
    for row in batch.to_pylist():
        yield from (f"{schema.id} {row[schema.id]}: {problem}" for problem in check(row))


def _current(schema: Schema, batch: pa.RecordBatch, table: str) -> pa.RecordBatch:
    """Returns a checked batch with the columns of today's schema; nullable ones that older parts lack are null."""
    fields = tuple(f for f in schema.fields if f.name in batch.schema.names or not f.nullable)
    replace(schema, fields=fields).check(batch, table)
    return conform(batch, schema)


def _value_problems(schema: Schema, batch: pa.RecordBatch) -> Iterator[str]:
    for field in schema.fields:
        column = batch.column(batch.schema.get_field_index(field.name))
        if field.values:
            flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
            unknown = set(flat.drop_null().to_pylist()) - set(field.values)
            if unknown:
                yield f"column '{field.name}' holds {sorted(unknown)}, which {schema} does not know"
        if pa.types.is_floating(column.type) and pc.any(pc.invert(pc.is_finite(column.drop_null()))).as_py():
            yield f"column '{field.name}' holds NaN or Inf"


def _id_problems(
    table: str, schema: Schema, batch: pa.RecordBatch, seen: set[str], ids: dict[str, set[str]]
) -> Iterator[str]:
    own = batch.column(batch.schema.get_field_index(schema.id)).to_pylist()
    twice = seen.intersection(own) or (set(own) if len(set(own)) < len(own) else set())
    if twice:
        yield f"{schema.id} {sorted(twice)[0]} is there twice"
    seen.update(own)
    for (child, column_name), parent in _PARENTS.items():
        if child == table:
            column = batch.column(batch.schema.get_field_index(column_name))
            flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
            orphans = set(flat.to_pylist()) - ids.get(parent, set())
            if orphans:
                yield f"{column_name} {sorted(orphans)[0]} is in no row of table '{parent}'"


def _audio_problems(audio: Rows | None, num_samples: int | None, sample_rate: int | None) -> Iterator[str]:
    if audio is None:
        return
    try:
        found = soundfile.info(io.BytesIO(audio["bytes"]))
    except soundfile.LibsndfileError as error:
        yield f"its audio cannot be decoded: {error}"
        return
    if num_samples is not None and (found.frames, found.samplerate) != (num_samples, sample_rate):
        yield f"its audio is {found.frames} samples at {found.samplerate} Hz, not {num_samples} at {sample_rate}"


def _code_problems(row: Rows, suffix: str = "") -> Iterator[str]:
    vq02, vq06 = row[f"vq02{suffix}"], row[f"vq06{suffix}"]
    if vq02 is None or vq06 is None:
        return
    try:
        interleave_codes(np.array(vq02), np.array(vq06))
    except ContractError as error:
        yield str(error)
    if "num_groups" in row and row["num_groups"] != num_groups(len(vq02), len(vq06)):
        yield f"num_groups is {row['num_groups']}, its codes make {num_groups(len(vq02), len(vq06))}"


def _segment_problems(row: Rows) -> Iterator[str]:
    yield from _audio_problems(row["audio"], row["num_samples"], row["sample_rate"])
    yield from _code_problems(row)
    if row["start"] < 0 or row["num_samples"] <= 0:
        yield f"start {row['start']} and num_samples {row['num_samples']} are not a stretch of audio"
    if row["decision"] is None:
        yield "it has no decision"
    for word in row["words"] or ():
        if word["start"] < 0 or word["start"] + word["num_samples"] > row["num_samples"]:
            yield f"word '{word['text']}' lies outside the segment"


def _voice_problems(row: Rows) -> Iterator[str]:
    yield from _audio_problems(row["audio"], row["num_samples"], row["sample_rate"])
    yield from _code_problems(row)


def _candidate_problems(row: Rows) -> Iterator[str]:
    yield from _audio_problems(row["audio"], row["num_samples"], row["sample_rate"])
    yield from _code_problems(row)
    if not row["is_synthetic"]:
        yield "it is synthetic but does not say so"
    if not row["consent_basis"] or "clone" not in row["allowed_uses"]:
        yield f"voice {row['voice_id']} was cloned without consent"
    if row["generator"] is None or row["generator_revision"] is None:
        yield "it does not say which synthesizer made it"


def _aqaa_problems(row: Rows) -> Iterator[str]:
    yield from _audio_problems(row["audio_q"], None, None)
    yield from _audio_problems(row["audio_a"], None, None)
    yield from _code_problems(row, "_q")
    yield from _code_problems(row, "_a")
    ids, loss, dpo = (np.array(row[name]) for name in ("input_ids", "loss_mask", "dpo_mask"))
    if not (len(ids) == len(loss) == len(dpo)):
        yield f"{len(ids)} ids, {len(loss)} loss mask, {len(dpo)} DPO mask: must be as long"
        return
    if ids.size == 0 or ids.min() < 0 or ids.max() >= VOCABULARY_SIZE:
        yield "input_ids leave the vocabulary"
        return
    if loss[: row["prompt_length"]].any() or not loss[row["prompt_length"] :].all():
        yield "loss_mask must be 0 over the prompt and 1 over the target"
    if (dpo.astype(bool) & (is_audio(ids) | ~loss.astype(bool))).any():
        yield "dpo_mask covers audio or the prompt"
    if row["vq02_a"] is not None and row["type"] in ("AQTAA", "AQAA"):
        target = ids[row["prompt_length"] :]
        answer = interleave_codes(np.array(row["vq02_a"]), np.array(row["vq06_a"])).ids
        if not np.array_equal(target[is_audio(target)], answer):
            yield "the audio ids of the target are not its codes"


def _preference_problems(row: Rows) -> Iterator[str]:
    for side in ("chosen", "rejected"):
        ids, mask = np.array(row[f"{side}_ids"]), np.array(row[f"mask_{side}"])
        if len(ids) != len(mask):
            yield f"mask_{side} is {len(mask)} long, {side}_ids {len(ids)}"
        elif row["masked"] and (mask.astype(bool) & is_audio(ids)).any():
            yield f"mask_{side} of a masked pair covers audio"
    if row["masked"] != (row["kind"] == "text"):
        yield f"a pair of kind {row['kind']} has masked={row['masked']}"
    if row["masked"] and row["chosen_text"] == row["rejected_text"]:
        yield "a masked pair must differ in text: it would train nothing"
    if row["margin"] <= 0:
        yield f"its margin is {row['margin']}"


CHECKS: dict[str, Callable[[Rows], Iterator[str]]] = {
    "segments": _segment_problems, "voices": _voice_problems, "candidates": _candidate_problems,
    "aqaa": _aqaa_problems, "preferences": _preference_problems,
}  # fmt: skip
"""Table -> check of one row."""
