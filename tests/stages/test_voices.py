"""Voices: the best seconds of a speaker become a prompt, and consent travels with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.backends.protocols import CodeStreams
from data_engine.backends.speaker_resemblyzer import ResemblyzerEmbedder
from data_engine.core.ids import content_id
from data_engine.io.audio import decode_bytes
from data_engine.stages.rules.prompt_text import script_share
from data_engine.stages.rules.voice_prompt import Shortlist, choose, segment_score
from data_engine.stages.voices import Voices
from tests.stages.rows import CONSENT, RATE, column, ran, segment, worker


class CountingCodec:
    """A codec of the right code rates whose codes are all 1."""

    revision, sample_rate, quant_bits = "counting-1", 16000, 32

    def encode(self, waves):
        return [CodeStreams(*(np.ones(len(w) // n, np.uint16) for n in (960, 640))) for w in waves]


class LevelEmbedder:
    """A two-dimensional embedding, for tests that are not about it."""

    revision, sample_rate = "level-1", 16000

    def embed(self, waves):
        return np.tile(np.array([0.6, 0.8], np.float32), (len(waves), 1))


def made(rows, tmp_path, batch_rows=None, embedder=None, **config):
    stage = Voices(Voices.Config(**config))
    stage.open(worker(tmp_path, codec=CountingCodec(), speaker=embedder or LevelEmbedder()))
    return ran(stage, rows, "segment", batch_rows)


def test_the_best_segments_are_joined_until_there_is_enough(tmp_path):
    rows = [segment(i, 3.0, dnsmos_ovr=mos) for i, mos in enumerate((2.0, 3.5, 3.0, 3.2))]
    (voice,), run = made(rows, tmp_path)
    assert voice["segment_ids"] == [rows[i]["segment_id"] for i in (1, 2, 3)]
    assert voice["text"] == "sentence 1 sentence 2 sentence 3"
    assert voice["voice_id"] == content_id("voice", *voice["segment_ids"])
    assert voice["num_samples"] == round((3 * 3.0 + 2 * 0.2) * RATE)
    assert run.stats.unused_reasons == {"not_best": 1}
    assert run.stats.metrics == {"speakers": 1, "voices": 1}


def test_the_prompt_is_the_segments_with_silence_between(tmp_path):
    rows = [segment(i, 2.0) for i in range(2)]
    (voice,), _ = made(rows, tmp_path, target_seconds=3.5)
    wave, rate = decode_bytes(voice["audio"]["bytes"])
    parts = [decode_bytes(row["audio"]["bytes"])[0][0] for row in rows]
    assert rate == voice["sample_rate"] == RATE
    np.testing.assert_array_equal(wave[0], np.concatenate([parts[0], np.zeros(round(0.2 * RATE)), parts[1]]))


def test_codes_embedding_and_pitch_are_those_of_the_prompt(tmp_path):
    (voice,), _ = made([segment(i, 4.0) for i in range(2)], tmp_path)
    assert (len(voice["vq02"]), len(voice["vq06"])) == (voice["num_samples"] // 960, voice["num_samples"] // 640)
    assert voice["num_groups"] == min(len(voice["vq02"]) // 2, len(voice["vq06"]) // 3)
    assert (voice["codec"], voice["tokenizer_hash"], voice["quant_bits"]) == ("nano", "counting-1", 32)
    assert voice["embedding"] == pytest.approx([0.6, 0.8])
    assert 140 < voice["f0_median_hz"] < 170


def test_the_embedding_is_of_unit_length_with_the_embedded_model(tmp_path):
    embedder = ResemblyzerEmbedder()
    embedder.open()
    (voice,), _ = made([segment(0, 4.0)], tmp_path, embedder=embedder)
    assert np.linalg.norm(voice["embedding"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"licence": "CC-BY-4.0"},
        {"licence": None},
        {"consent_basis": None},
        {"allowed_uses": ["asr"]},
        {"speaker_id": "another"},
        {"language": "zh", "text": "你好。"},
    ],
)
def test_segments_of_another_consent_speaker_or_language_are_never_joined(tmp_path, other):
    rows = [segment(0, 4.0), segment(1, 4.0), segment(2, 4.0, **other), segment(3, 4.0, **other)]
    voices, _ = made(rows, tmp_path)
    assert {frozenset(voice["segment_ids"]) for voice in voices} == {
        frozenset(row["segment_id"] for row in rows[:2]), frozenset(row["segment_id"] for row in rows[2:]),
    }  # fmt: skip
    for voice in voices:
        source = next(row for row in rows if row["segment_id"] in voice["segment_ids"])
        assert {name: voice[name] for name in CONSENT} == {name: source[name] for name in CONSENT}


def test_a_speaker_with_too_little_speech_has_no_voice(tmp_path):
    voices, run = made([segment(0, 1.0), segment(1, 1.5)], tmp_path)
    assert voices == []
    assert run.stats.unused_reasons == {"too_little_speech": 2}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"decision": "drop"}, "not_kept"),
        ({"decision": None}, "not_kept"),
        ({"audio": None}, "no_audio"),
        ({"num_samples": RATE // 2}, "too_short"),
        ({"num_samples": 16 * RATE}, "too_long"),
        ({"overlap_ratio": 0.05}, "overlapped"),
        ({"text_flags": ["PHANTOM_PHRASE"]}, "text_flagged"),
        ({"text": 30 * "sentence "}, "text_rate"),
        ({"text": "so", "num_samples": 12 * RATE}, "text_rate"),
        ({"text": "你好，今天天气很好。"}, "text_script"),
        ({"language_confidence": 0.3}, "language_unsure"),
    ],
)
def test_segments_that_cannot_be_used_say_why(tmp_path, change, reason):
    voices, run = made([segment(0, 4.0), segment(1, 4.0, **change)], tmp_path)
    assert len(voices) == 1
    assert run.stats.unused_reasons == {reason: 1}


def test_a_little_overlap_and_texts_that_cannot_be_judged_are_no_reason(tmp_path):
    fine = ({"overlap_ratio": 0.01}, {"language_confidence": 0.9}, {"text": None}, {"language": None, "text": "你好"})
    for change in fine:
        voices, run = made([segment(0, 4.0, **change)], tmp_path)
        assert len(voices) == 1, change
        assert run.stats.unused == 0


def test_the_rules_of_a_prompt_can_be_loosened(tmp_path):
    rows = [segment(0, 4.0, overlap_ratio=0.3), segment(1, 4.0, text_flags=["REPEATED"])]
    voices, _ = made(rows, tmp_path, rules={"max_overlap_ratio": 0.5, "check_text": False})
    assert len(voices[0]["segment_ids"]) == 2


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("Guten Tag", "de", 1.0), ("Добрый день", "de", 0.0), ("Добрый день", "ru-RU", 1.0),
        ("おはよう今日", "ja", 1.0),
        ("OK 好的 吧", "zh", 0.6), ("12 34", "en", 1.0), ("whatever", "xx", 1.0), ("whatever", None, 1.0),
    ],
)  # fmt: skip
def test_the_script_of_a_text_is_held_against_its_language(text, language, share):
    assert script_share(text, language) == pytest.approx(share)


def test_audio_that_does_not_decode_is_a_reject(tmp_path):
    broken = segment(0, 4.0, audio={"bytes": b"noise", "path": None})
    voices, run = made([broken, segment(1, 4.0, speaker_id="other")], tmp_path)
    assert column(voices, "speaker_id") == ["other"]
    assert [reject["record_id"] for reject in run.rejects] == [broken["segment_id"]]


def test_a_prompt_text_is_whole_or_absent(tmp_path):
    (voice,), _ = made([segment(0, 4.0), segment(1, 4.0, text=None)], tmp_path)
    assert voice["text"] is None


def test_a_chinese_prompt_is_joined_without_spaces(tmp_path):
    rows = [segment(i, 4.0, language="zh", text=text) for i, text in enumerate(("你好。", "再见。"))]
    assert made(rows, tmp_path)[0][0]["text"] == "你好。再见。"


@pytest.mark.parametrize(
    "worse", [{"dnsmos_ovr": 1.5}, {"snr_db": 5.0}, {"text_confidence": 0.1}, {"clipping_ratio": 0.0005}]
)
def test_noise_doubt_and_clipping_lower_the_score(worse):
    assert 0 <= segment_score(segment() | worse) < segment_score(segment()) <= 1


def test_what_was_not_measured_neither_helps_nor_hurts():
    even = segment(dnsmos_ovr=3.0, snr_db=20.0, text_confidence=0.5)
    assert segment_score(even) == segment_score(even | {"text_confidence": None, "clipping_ratio": None}) == 0.5


lengths = st.lists(st.tuples(st.floats(0.8, 15.0), st.floats(1.0, 5.0)), min_size=1, max_size=30)


@given(lengths, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_the_choice_does_not_depend_on_the_order_and_holds_bounded_audio(parts, random):
    rows = [segment(i, dnsmos_ovr=mos) | {"num_samples": round(s * RATE)} for i, (s, mos) in enumerate(parts)]
    chosen = []
    for _ in range(2):
        shortlist, given_up = Shortlist(30.0), set()
        for row in rows:
            given_up |= set(shortlist.add(row))
            assert sum(held["num_samples"] for _, held in shortlist.held) <= 30 * RATE + len(rows)
        names = {name for (_, name), _ in shortlist.held}
        assert names.isdisjoint(given_up)
        assert names | given_up == set(column(rows, "segment_id"))
        chosen.append(choose(shortlist, 8.0, 15.0, 0.2))
        random.shuffle(rows)
    assert chosen[0] == chosen[1]
    assert 0 < sum(row["num_samples"] for row in chosen[0]) <= 15 * RATE + len(rows)


segments = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0.5, 1.0, 2.5, 6.0]), st.booleans(), st.floats(1, 5, width=32)),
    max_size=14,
)


@given(segments, st.sampled_from([1, 4, 100]))
@settings(deadline=None, max_examples=20)
def test_every_segment_is_part_of_a_voice_or_unused(tmp_path_factory, parts, batch_rows):
    rows = [
        segment(i, s, speaker_id=f"s{who}", decision="keep" if kept else "drop", dnsmos_ovr=mos)
        for i, (who, s, kept, mos) in enumerate(parts)
    ]
    voices, run = made(rows, tmp_path_factory.mktemp("v"), batch_rows)
    used = [name for voice in voices for name in voice["segment_ids"]]
    assert len(used) == len(set(used))
    assert len(used) + run.stats.unused == len(rows)
    assert all(3 <= voice["num_samples"] / RATE <= 15.001 for voice in voices)
    assert voices == made(rows, tmp_path_factory.mktemp("v"))[0]
