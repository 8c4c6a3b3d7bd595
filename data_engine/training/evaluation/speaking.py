"""Rows of the recognizer and of the speaker LM."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from data_engine.backends.protocols import Wave
from data_engine.io.audio import decode_bytes
from data_engine.io.shards import committed_parts, read_batches
from data_engine.io.storage import Storage
from data_engine.training.evaluation.bench import Bench
from data_engine.training.evaluation.figures import Found, NotMeasuredError, ratio_of
from data_engine.training.evaluation.words import count_words
from data_engine.training.speech.spoken import SAMPLE_RATE

_COLUMNS = ("language", "text", "audio", "emotion", "sample_rate")


def recognizer(bench: Bench) -> dict[str, Found]:
    """Returns our recognizer's word error rate on English takes of a run, with that of the judge beside it."""
    texts, waves = synthetic(bench)
    choice = bench.settings.recognizer
    ours = bench.recognizer(choice.name, choice.options)
    counts = count_words(texts, [heard.text for heard in ours.transcribe(waves, "en")])
    peer = bench.words(texts, waves)
    details = {"recognizer": choice.name, "revision": ours.revision, bench.settings.judge.name: round(peer.rate, 4)}
    return {"wer": bench.found(ratio_of(counts.wrong, counts.total), len(texts), **details)}


def synthetic(bench: Bench) -> tuple[list[str], list[Wave]]:
    """Returns texts and waves of all English takes of the run in `demo`.

    Raises:
        NotMeasuredError: There is no such run.
    """
    storage, folder = Storage(str(bench.settings.demo)), bench.settings.demo
    parts = committed_parts(storage, "candidates") if folder.is_dir() else []
    rows = [row for p in parts for batch in read_batches(storage, p, _COLUMNS) for row in batch.to_pylist()]
    english = [row for row in rows if row["language"] == "en" and row["audio"]]
    if not english:
        raise NotMeasuredError(f"'{folder}' has no English synthetic speech; run the demo, or set `demo` to a run")
    return [str(row["text"]) for row in english], [_wave(row) for row in english]


def _wave(row: dict[str, Any]) -> Wave:
    import soxr

    samples, rate = decode_bytes(row["audio"]["bytes"])
    mono = np.asarray(samples[0], np.float32)
    return mono if rate == SAMPLE_RATE else np.asarray(soxr.resample(mono, rate, SAMPLE_RATE), np.float32)


def text_to_speech(bench: Bench) -> dict[str, Found]:
    """Returns how much more words are wrong in the speaker LM's speech than in its teacher's."""
    return {"wer": reported(bench, "text_to_speech")}


def spoken_answers(bench: Bench) -> dict[str, Found]:
    """Returns how many more answers are exact with the 10:15 interleave than with audio alone (PAPERS S2, accept A)."""
    return {"gain": reported(bench, "spoken_answers")}


def reported(bench: Bench, name: str) -> Found:
    """Returns a figure of the speaker LM from the file `answers`, which the command that makes it writes.

    The file is `{name: {"value", "low", "high", "utterances", "details", "tokenizer_hash"}}`, shares as 0..1.

    Raises:
        NotMeasuredError: The file or the figure is not there, or belongs to other tokenizers.
    """
    path = bench.settings.answers
    if not path.is_file():
        raise NotMeasuredError(f"there is no '{path}'; the evaluation of the speaker LM writes it")
    stored = json.loads(path.read_text(encoding="utf-8")).get(name)
    if stored is None:
        raise NotMeasuredError(f"'{path}' has no figure '{name}'")
    if stored.get("tokenizer_hash") != bench.tokenizer_hash:
        raise NotMeasuredError(f"'{name}' in '{path}' was measured with other tokenizers")
    return Found(*(stored[key] for key in ("value", "low", "high", "utterances", "details")))
