"""Duplicates over a whole run: fingerprints meet in buckets, the better copy is kept, the policy decides."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_engine.core.schema import load_schema
from data_engine.io.audio import encode_flac
from data_engine.io.exchange import ordered
from data_engine.models.sound_print import TABLES
from data_engine.stages.fingerprint import Fingerprint
from data_engine.stages.match import Match
from data_engine.stages.rules.duplicates import Signature, kept_copies, matches
from tests.evaluate.disturbances import DISTURBANCES, gained, narrow, sped, stored, trimmed
from tests.stages.rows import RATE, ran, segment


@pytest.fixture(scope="module")
def wave(conversation: Path):
    """Thirty seconds of two speakers, float32 at 16 kHz."""
    return soundfile.read(conversation, dtype="float32")[0]


def recording(name, *waves, starts=None, **changes):
    """Segments of a recording, one per wave, ten seconds apart."""
    return [
        segment(0, segment_id=f"{name}-{n}", recording_id=name, num_samples=len(wave), **changes)
        | {"start": (starts or range(0, 1000, 10))[n] * RATE, "audio": {"bytes": encode_flac(wave, RATE), "path": None}}
        for n, wave in enumerate(waves)
    ]


def fingerprints(*recordings):
    return ran(Fingerprint(Fingerprint.Config()), [row for rows in recordings for row in rows], "segment")[0]


def found(*recordings):
    table = load_schema("fingerprint").batch(fingerprints(*recordings))
    rows = ordered([table.replace_schema_metadata({"schema": "fingerprint"})], "bucket")
    return ran(Match(Match.Config()), [r for b in rows for r in b.to_pylist()], "fingerprint", batch_rows=7)[0]


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_a_disturbed_copy_is_found_and_other_speech_of_the_same_people_is_not(wave, disturbance):
    pieces = {"a": wave[8 * RATE : 12 * RATE], "b": wave[13 * RATE : 15 * RATE], "c": wave[16 * RATE : 29 * RATE]}
    copies = [recording(f"{name} copy", DISTURBANCES[disturbance](piece)) for name, piece in pieces.items()]
    rows = found(*[recording(name, piece) for name, piece in pieces.items()], *copies)
    merged = {frozenset(pair) for pair in kept_copies(rows).items()}
    assert merged == {frozenset({name, f"{name} copy"}) for name in pieces}


def test_the_longer_copy_is_kept_then_the_better_one(wave):
    piece = wave[8 * RATE : 14 * RATE]
    rows = found(recording("whole", piece), recording("part", trimmed(piece, 0.1, 0.0)))
    assert {(row["recording_id"], row["duplicate_of"], row["kind"]) for row in rows} == {("part", "whole", "near")}
    rows = found(recording("a", narrow(piece), dnsmos_ovr=2.0), recording("b", piece, dnsmos_ovr=3.0))
    assert kept_copies(rows) == {"a": "b"}


def test_equal_samples_in_another_container_are_exact(wave):
    piece, sink = wave[8 * RATE : 10 * RATE], io.BytesIO()
    soundfile.write(sink, stored(piece), RATE, format="WAV", subtype="PCM_16")
    other = [recording("wav", piece)[0] | {"audio": {"bytes": sink.getvalue(), "path": None}}]
    rows = found(recording("flac", piece), other)
    assert ("wav", "flac", 1.0) in {(r["recording_id"], r["duplicate_of"], r["similarity"]) for r in rows}
    assert "exact" in {row["kind"] for row in rows}


def test_silence_and_sound_too_short_to_tell_equal_nothing(wave):
    silence, click, noise = np.zeros(RATE, np.float32), wave[8 * RATE :][: RATE // 20], np.full(RATE, 1e-4, np.float32)
    nothing = [row | {"audio": None} for name in "gh" for row in recording(name, silence)]
    pairs = [
        recording(name, sound)
        for name, sound in zip("abcdef", [silence, silence, click, click, noise, noise], strict=True)
    ]
    assert found(*pairs, nothing) == []


def test_two_recordings_with_the_same_jingle_are_two(wave):
    jingle, one, other = wave[8 * RATE : 11 * RATE], wave[12 * RATE : 19 * RATE], wave[20 * RATE : 27 * RATE]
    assert found(recording("a", jingle, one), recording("b", jingle, other)) == []


def test_an_excerpt_does_not_make_its_sources_one(wave):
    assert found(recording("excerpt", wave[8 * RATE : 11 * RATE]), recording("whole", wave[5 * RATE : 29 * RATE])) == []


def test_a_long_copy_is_found_though_its_segments_were_cut_elsewhere(wave):
    here = recording("a", wave[6 * RATE : 15 * RATE], wave[16 * RATE : 29 * RATE], starts=[6, 16])
    faster = sped(gained(wave, -6.0), 1.02)
    there = recording("b", faster[5 * RATE : 20 * RATE], faster[20 * RATE : 28 * RATE], starts=[5, 20])
    assert set(kept_copies(found(here, there))) | set(kept_copies(found(here, there)).values()) == {"a", "b"}


def test_a_signature_depends_neither_on_the_order_of_segments_nor_grows_with_them(wave):
    forth, back = Signature(), Signature()
    pieces = [(stored(wave[start * RATE : (start + 5) * RATE]), float(start)) for start in range(0, 30, 5)]
    for signature, order in ((forth, pieces), (back, pieces[::-1])):
        for samples, start in order:
            signature.add(samples, start)
    assert forth.buckets() == back.buckets()
    assert len(forth.buckets()) == TABLES


def test_another_take_of_the_same_word_by_the_same_speaker_is_no_copy(shared_speech):
    folder = shared_speech / "Jakobovski__free-spoken-digit-dataset" / "recordings"
    takes = sorted(folder.glob("[0-4]_*_*.wav"))
    rows = [recording(path.name, narrow_read(path)) for path in takes]
    assert len(takes) >= 40
    assert found(*rows) == []


def narrow_read(path):
    from data_engine.io.decoding.resample import resample

    wave, rate = soundfile.read(path, dtype="float32")
    return resample(wave, rate, RATE)


def test_a_chain_of_copies_ends_at_the_best_one():
    def row(lower, higher, seconds):
        return {"recording_id": lower, "duplicate_of": higher, "kept_seconds": seconds, "kept_quality": 3.0}

    chain = [row("c", "b", 20.0), row("b", "a", 30.0), row("d", "b", 20.0)]
    assert kept_copies(chain) == kept_copies(chain[::-1]) == {"b": "a", "c": "a", "d": "a"}


def test_every_one_of_many_copies_is_compared_with_the_kept_one_only(wave):
    row = next(row for row in fingerprints(recording("r", wave[8 * RATE : 10 * RATE])) if row["kind"] == "near")
    pairs = matches([row | {"recording_id": f"r{n}", "quality": float(n)} for n in range(50)], 0.88, 0.78)
    assert len(pairs) == 49
    assert {pair[1]["recording_id"] for pair in pairs} == {"r49"}
