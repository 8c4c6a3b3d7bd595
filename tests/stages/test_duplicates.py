"""Duplicates over a whole run: fingerprints meet in buckets, the better copy is kept, the policy decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.core.schema import load_schema
from data_engine.io.exchange import ordered
from data_engine.stages.fingerprint import Fingerprint
from data_engine.stages.match import Match
from data_engine.stages.rules.duplicates import NUM_HASHES, bands, kept_copies, matches, minhash, similarity
from tests.stages.rows import ran, segment

CODES = np.random.default_rng(5).integers(0, 1024, 600)


def pieces(recording, codes, **changes):
    """Segments of a recording that carry its codes, 150 each."""
    return [
        segment(0, segment_id=f"{recording}-{n}", recording_id=recording, vq02=codes[start : start + 150].tolist())
        | {"audio": {"bytes": f"{recording} {n}".encode(), "path": None}}
        | changes
        for n, start in enumerate(range(0, len(codes), 150))
    ]


def found(*recordings, threshold=0.5):
    rows = [row for recording in recordings for row in recording]
    fingerprints, _ = ran(Fingerprint(Fingerprint.Config()), rows, "segment")
    table = load_schema("fingerprint").batch(fingerprints).replace_schema_metadata({"schema": "fingerprint"})
    rows = [row for batch in ordered([table], "bucket") for row in batch.to_pylist()]
    return ran(Match(Match.Config(threshold=threshold)), rows, "fingerprint", batch_rows=7)[0]


def test_a_trimmed_copy_is_near_and_the_longer_one_is_kept():
    whole = pieces("whole", CODES)
    trimmed = pieces("trimmed", CODES[30:570], num_samples=segment(0)["num_samples"] * 9 // 10)
    rows = found(whole, trimmed)
    assert {(row["recording_id"], row["duplicate_of"], row["kind"]) for row in rows} == {("trimmed", "whole", "near")}
    assert kept_copies(rows) == {"trimmed": "whole"}


def test_equal_samples_are_exact_whatever_the_codes():
    audio = {"bytes": b"flac", "path": None}
    rows = found(pieces("a", CODES, audio=audio), pieces("b", CODES[::-1], audio=audio))
    assert ("exact", 1.0) in {(row["kind"], row["similarity"]) for row in rows}


def test_other_speech_is_no_duplicate():
    assert found(pieces("a", CODES), pieces("b", np.random.default_rng(6).integers(0, 1024, 600))) == []


def test_segments_without_audio_are_not_all_alike():
    assert found(pieces("a", CODES[:2], audio=None), pieces("b", CODES[:2], audio=None)) == []


def test_a_few_words_are_compared_by_samples_only():
    fingerprints, _ = ran(Fingerprint(Fingerprint.Config(min_seconds=1e6)), pieces("a", CODES), "segment")
    assert [row["kind"] for row in fingerprints] == ["exact"]


def test_a_chain_of_copies_ends_at_the_best_one():
    def row(lower, higher, seconds):
        return {"recording_id": lower, "duplicate_of": higher, "kept_seconds": seconds, "kept_quality": 3.0}

    chain = [row("c", "b", 20.0), row("b", "a", 30.0), row("d", "b", 20.0)]
    assert kept_copies(chain) == kept_copies(chain[::-1]) == {"b": "a", "c": "a", "d": "a"}


def test_every_one_of_many_copies_is_compared_with_the_kept_one_only():
    signature = minhash(CODES).tolist()
    bucket = [
        {"recording_id": f"r{n}", "kind": "near", "minhash": signature, "seconds": 10.0, "quality": float(n)}
        for n in range(50)
    ]
    pairs = matches(bucket, 0.5)
    assert len(pairs) == 49
    assert {pair[1]["recording_id"] for pair in pairs} == {"r49"}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400))
def test_minhash_estimates_how_much_is_shared(cut):
    other = np.concatenate([CODES[cut:], np.random.default_rng(7).integers(0, 1024, cut)])
    true = (600 - cut) / (600 + cut)
    assert similarity(minhash(CODES), minhash(other)) == pytest.approx(true, abs=4 / NUM_HASHES**0.5 / 2)


def test_another_tempo_leaves_the_signature_alone_and_too_little_has_none():
    assert np.array_equal(minhash(np.repeat(CODES, 2)), minhash(CODES))
    assert minhash(CODES[:2]).size == 0
    assert bands(minhash(CODES[:2])) == []
