"""Verify measures what was spoken against what was asked, and leaves unknown what it cannot measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.backends.espeak_library import SAMPLE_RATE, Utterance, shared_library
from data_engine.backends.protocols import Transcript
from data_engine.backends.speaker_resemblyzer import ResemblyzerEmbedder
from data_engine.io.audio import encode_flac
from data_engine.io.decoding.resample import resample
from data_engine.models.pitch import fundamental_frequency, pitch_statistics
from data_engine.stages.rules.measures import cosine, ratio, repetition, word_error_rate, words
from data_engine.stages.verify import Verify
from tests.stages.rows import candidate, codes, column, ran, worker

TEXT = "the quick brown fox jumps over the lazy dog while the farmer sleeps"


class Parrot:
    """A recognizer of English that hears what it was told it would hear."""

    revision, sample_rate, languages = "parrot", 8000, frozenset({"en"})

    def __init__(self, text=TEXT):
        self.text, self.calls = text, []

    def transcribe(self, waves, language):
        self.calls.append((language, [len(wave) for wave in waves]))
        return [Transcript(self.text) for _ in waves]


@pytest.fixture(scope="module")
def embedder():
    embedder = ResemblyzerEmbedder()
    embedder.open()
    yield embedder
    embedder.close()


def say(text=TEXT, variant="m3", **settings):
    spoken = shared_library().say(Utterance(text, "en-us", variant, **settings))
    return (spoken.samples / 32768.0).astype(np.float32)


def spoken(take, wave, rate=SAMPLE_RATE, **changes):
    audio = {"bytes": encode_flac(wave, rate), "path": None}
    median = pitch_statistics(fundamental_frequency(wave, rate)).median_hz
    asked = {"text": TEXT, "voice_id": "m3", "f0_median_hz": median, "num_samples": len(wave), "sample_rate": rate}
    return candidate(0, take, audio=audio, **asked | changes)


@pytest.fixture(scope="module")
def voices(embedder):
    def row(variant):
        wave = say("a sentence that the candidate does not say, spoken at some length by this voice", variant)
        vector = embedder.embed([resample(wave, SAMPLE_RATE, 16000)])[0]
        median = pitch_statistics(fundamental_frequency(wave, SAMPLE_RATE)).median_hz
        return {"voice_id": variant, "embedding": vector.tolist(), "f0_median_hz": median}

    return {variant: row(variant) for variant in ("m3", "f2")}


def verified(rows, tmp_path, embedder, voices, recognizer=None, batch_rows=None, **config):
    stage = Verify(Verify.Config(voices="somewhere", **config), lambda root, columns: voices)
    stage.open(worker(tmp_path, asr=recognizer or Parrot(), speaker=embedder))
    return ran(stage, rows, "candidate", batch_rows)


def test_speaking_faster_than_asked_shows_in_the_rate_ratio(tmp_path, embedder, voices):
    waves = [say(rate=rate) for rate in (175, 260)]
    rows = [spoken(i, wave) for i, wave in enumerate(waves)] + [spoken(2, waves[1], speed="fast2")]
    slow, fast, asked = column(verified(rows, tmp_path, embedder, voices)[0], "rate_ratio")
    assert fast > 1.3 * slow
    assert asked == pytest.approx(fast / 1.45, rel=1e-5)


def test_an_emotion_that_asks_for_another_pitch_moves_the_pitch_ratio(tmp_path, embedder, voices):
    rows = [spoken(i, say(), emotion=emotion, level=5) for i, emotion in enumerate(("neutral", "happy"))]
    plain, happy = column(verified(rows, tmp_path, embedder, voices)[0], "pitch_ratio")
    assert plain == pytest.approx(1.0, abs=0.15)
    assert happy < plain


def test_the_right_voice_is_more_similar_than_another(tmp_path, embedder, voices):
    rows = [spoken(i, say(), voice_id=name) for i, name in enumerate(("m3", "f2"))]
    right, wrong = column(verified(rows, tmp_path, embedder, voices)[0], "speaker_similarity")
    assert right > wrong + 0.1


def test_what_was_heard_is_compared_without_case_and_punctuation(tmp_path, embedder, voices):
    recognizer = Parrot("The quick brown fox jumps over the lazy DOG while the farmer slept")
    (row,), run = verified([spoken(0, say())], tmp_path, embedder, voices, recognizer)
    assert row["heard"] == recognizer.text
    assert row["word_error_rate"] == pytest.approx(1 / 13)
    assert run.stats.metrics == {"recognized": 1, "unknown_voice": 0}


def test_a_language_no_recognizer_speaks_has_no_error_rate(tmp_path, embedder, voices):
    recognizer = Parrot()
    rows = [spoken(0, say(), language="xx"), spoken(1, say())]
    out, _ = verified(rows, tmp_path, embedder, voices, recognizer)
    assert column(out, "word_error_rate") == [None, 0.0]
    assert column(out, "rate_ratio")[0] is None
    assert recognizer.calls == [("en", [math.floor(len(say()) * 8000 / SAMPLE_RATE + 0.5)])]


def test_a_silent_take_is_heard_as_nothing(tmp_path, embedder, voices):
    (row,), _ = verified([spoken(0, np.zeros(16000, np.float32), 16000)], tmp_path, embedder, voices)
    assert (row["heard"], row["word_error_rate"]) == ("", 1.0)
    assert row["rate_ratio"] is row["pitch_ratio"] is row["speaker_similarity"] is row["longest_silence"] is None


def test_a_pause_in_the_middle_is_measured(tmp_path, embedder, voices):
    wave = np.concatenate([say("good morning"), np.zeros(2 * SAMPLE_RATE, np.float32), say("good night")])
    (row,), _ = verified([spoken(0, wave)], tmp_path, embedder, voices)
    assert row["longest_silence"] == pytest.approx(2.2, abs=0.3)


def test_an_unknown_voice_or_control_leaves_the_comparison_open(tmp_path, embedder, voices):
    rows = [spoken(0, say(), voice_id="nobody"), spoken(1, say(), emotion="smug")]
    (nobody, smug), run = verified(rows, tmp_path, embedder, voices)
    assert nobody["speaker_similarity"] is nobody["pitch_ratio"] is None
    assert smug["rate_ratio"] is smug["pitch_ratio"] is None
    assert run.stats.metrics["unknown_voice"] == 1


def test_audio_that_does_not_decode_rejects_that_candidate_only(tmp_path, embedder, voices):
    rows = [spoken(0, say()), spoken(1, say()) | {"audio": {"bytes": b"noise", "path": None}}]
    out, run = verified(rows, tmp_path, embedder, voices)
    assert column(out, "take") == [0]
    assert [reject["record_id"] for reject in run.rejects] == [rows[1]["candidate_id"]]


def test_measures_do_not_depend_on_the_batch(tmp_path, embedder, voices):
    rows = [spoken(i, say(rate=150 + 20 * i), language="en" if i % 2 else "xx") for i in range(3)]
    together, _ = verified(rows, tmp_path, embedder, voices)
    alone, _ = verified(rows, tmp_path, embedder, voices, batch_rows=1)
    assert together == alone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, now!", ["don't", "stop", "now"]),
        ("It\u2019s 5 o'clock\u2026", ["it's", "5", "o'clock"]),
        ("你好，世界", ["你", "好", "世", "界"]),
        ("Ünïcode — naïve", ["ünïcode", "naïve"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("…!?", []),
    ],
)
def test_words_are_free_of_case_and_punctuation(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "heard", "expected"),
    [("one two", "one two", 0.0), ("one two", "one", 0.5), ("one", "", 1.0), ("one", "a b c", 3.0), ("!", "a", None)],
)
def test_word_error_rate(text, heard, expected):
    assert word_error_rate(text, heard) == expected


@given(st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.floats()))
def test_a_ratio_is_positive_and_finite_or_unknown(measured, asked):
    found = ratio(measured, asked)
    assert found is None or (found >= 0 and math.isfinite(found))


def test_repeated_codes_are_a_share_and_a_held_sound_is_not_a_repeat():
    fresh = codes(20, 1)
    said, sounded = fresh["vq02"][:40], fresh["vq06"][:60]
    assert repetition(said, sounded) == 0.0
    assert repetition(said * 2, sounded * 2) == pytest.approx(17 / 37)
    assert repetition([5] * 40, [9] * 60) == 0.0
    assert repetition([], []) == 0.0


def test_repeated_words_stand_in_for_codes_that_are_missing():
    assert repetition(None, None, "a b c a b c a b c") == pytest.approx(1 - 3 / 7)
    assert repetition(None, None) is None


def test_cosine_is_unknown_for_vectors_that_do_not_compare():
    assert cosine([1, 0], [0, 2]) == 0.0
    assert cosine([1, 0], [1, 0, 0]) is None
    assert cosine([0, 0], [1, 0]) is None
