"""Speaking refuses every voice without consent, and stores sound that decodes to what was synthesized."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from data_engine.backends.espeak_library import SAMPLE_RATE, Utterance, shared_library
from data_engine.backends.protocols import Speech
from data_engine.backends.tts_espeak import EspeakSynthesizer
from data_engine.core.errors import RecordError
from data_engine.core.harness import StageRun
from data_engine.core.ids import content_id
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.stages.speak import Speak
from tests.stages.rows import worker


class Humming:
    """A synthesizer of one tone that counts its calls and remembers whom it was asked to clone."""

    revision = "hum-1"

    def __init__(self, broken=()):
        self.asked, self.broken = [], broken

    def speak(self, requests):
        self.asked.append([request.voice.voice_id for request in requests])
        if any(request.text == "cannot" for request in requests):
            raise RecordError("UNSUPPORTED_CONTROL", "there is no such thing")
        time = np.arange(8000 + requests[0].seed) / 16000
        tone = (0.5 * np.sin(880 * time)).astype(np.float32)
        return [Speech(self.broken if r.text == "broken" else tone, 16000, {"b": 1, "a": r.emotion}) for r in requests]


def voice(consent="contract", uses=("clone", "tts")):
    wave = shared_library().say(Utterance("This voice belongs to nobody at all.", "en-us", "m7")).samples / 32768.0
    return {
        "consent_basis": consent, "allowed_uses": None if uses is None else list(uses),
        "audio": {"bytes": encode_flac(wave.astype(np.float32), SAMPLE_RATE), "path": None}, "text": "This voice.",
        "embedding": [1.0, 0.0], "f0_median_hz": None, "f0_std_semitones": None,
    }  # fmt: skip


def row(number, voice_id="good", **changes):
    return {
        "candidate_id": content_id("c", number), "language": "en", "text": "Good morning.", "emotion": "neutral",
        "level": 1, "dialect": None, "speed": "normal", "voice_id": voice_id, "seed": 7, **changes,
    }  # fmt: skip


def spoken(tmp_path, rows, voices=None, tts=None, read=None, **config):
    voices = {"good": voice()} if voices is None else voices
    stage = Speak(Speak.Config(voices={"uri": "somewhere"}, **config), read or (lambda uri, columns: voices))
    stage.open(worker(tmp_path, tts=tts or Humming()))
    run = StageRun(stage, "signature")
    return [r for batch in run.run([stage.spec.consumes.batch(rows)]) for r in batch.to_pylist()], run


def rejects(run):
    return [(reject["record_id"], reject["code"]) for reject in run.rejects]


REFUSED = {
    "no consent basis": voice(consent=None),
    "blank consent basis": voice(consent="  "),
    "not cloning": voice(uses=("asr", "tts", "dialogue")),
    "nothing": voice(uses=()),
    "null uses": voice(uses=None),
    "no rights at all": voice(consent=None, uses=()),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_voice_without_consent_to_cloning_never_reaches_the_synthesizer(tmp_path, name):
    tts = Humming()
    rows, run = spoken(tmp_path, [row(1, "bad"), row(2)], {"good": voice(), "bad": REFUSED[name]}, tts)
    assert [r["candidate_id"] for r in rows] == [content_id("c", 2)]
    assert rejects(run) == [(content_id("c", 1), "VOICE_NOT_CONSENTED")]
    assert tts.asked == [["good"]]
    assert run.stats.metrics["refused_without_consent"] == 1


def test_a_voice_that_is_not_in_the_table_is_refused(tmp_path):
    rows, run = spoken(tmp_path, [row(1, "unheard of")])
    assert (rows, rejects(run)) == ([], [(content_id("c", 1), "VOICE_NOT_CONSENTED")])


def test_without_a_voices_table_everything_is_refused(tmp_path):
    stage = Speak(Speak.Config())
    stage.open(worker(tmp_path, tts=Humming()))
    run = StageRun(stage, "signature")
    assert list(run.run([stage.spec.consumes.batch([row(1)])])) == []
    assert rejects(run) == [(content_id("c", 1), "VOICE_NOT_CONSENTED")]


def test_what_a_row_says_about_consent_counts_for_nothing(tmp_path):
    stage = Speak(Speak.Config(voices={"uri": "x"}), lambda uri, columns: {"bad": voice(consent=None)})
    stage.open(worker(tmp_path, tts=Humming()))
    run = StageRun(stage, "signature")
    batch = stage.spec.consumes.batch([row(1, "bad")])
    batch = batch.append_column("consent_basis", pa.array(["contract"]))
    batch = batch.append_column("allowed_uses", pa.array([["clone"]]))
    assert list(run.run([batch])) == []
    assert rejects(run) == [(content_id("c", 1), "VOICE_NOT_CONSENTED")]


def test_sound_and_its_origin_are_stored(tmp_path):
    (result,), _ = spoken(tmp_path, [row(1, emotion="happy", seed=5)])
    assert result["audio"]["path"] == f"{content_id('c', 1)}.flac"
    channels, rate = decode_bytes(result["audio"]["bytes"])
    assert (channels.shape[1], rate) == (result["num_samples"], result["sample_rate"]) == (8005, 16000)
    assert (result["generator"], result["generator_revision"]) == ("espeak", "hum-1")
    assert result["generator_params"] == '{"a": "happy", "b": 1}'
    assert result["is_synthetic"] is True


def test_one_request_that_fails_does_not_take_others_with_it(tmp_path):
    rows, run = spoken(tmp_path, [row(1), row(2, text="cannot"), row(3)])
    assert [r["candidate_id"] for r in rows] == [content_id("c", 1), content_id("c", 3)]
    assert rejects(run) == [(content_id("c", 2), "UNSUPPORTED_CONTROL")]


@pytest.mark.parametrize("wave", [np.zeros(0, np.float32), np.full(100, np.nan, np.float32)])
def test_speech_that_cannot_be_stored_is_a_reject(tmp_path, wave):
    rows, run = spoken(tmp_path, [row(1, text="broken"), row(2)], tts=Humming(broken=wave))
    assert len(rows) == 1
    assert rejects(run) == [(content_id("c", 1), "SYNTHESIS_FAILED")]


def test_a_prompt_that_does_not_decode_is_a_reject(tmp_path):
    damaged = {**voice(), "audio": {"bytes": b"RIFF no", "path": None}}
    rows, run = spoken(tmp_path, [row(1, "damaged"), row(2)], {"good": voice(), "damaged": damaged})
    assert len(rows) == 1
    assert rejects(run)[0][0] == content_id("c", 1)


def test_the_voices_are_read_once_per_open(tmp_path):
    reads = []

    def read(uri, columns):
        reads.append(uri)
        return {"good": voice()}

    spoken(tmp_path, [row(n) for n in range(9)], read=read, batch_rows=2)
    assert reads == ["somewhere"]


def test_the_embedded_voice_speaks_the_same_whatever_the_batch(tmp_path):
    asked = [row(1), row(2, seed=8), row(3, language="zh", text="早上好。"), row(4, emotion="sad", level=4)]
    first, run = spoken(tmp_path, asked, tts=EspeakSynthesizer())
    assert run.rejects == []
    again, _ = spoken(tmp_path, asked, tts=EspeakSynthesizer(), batch_rows=1)
    assert first == again
    assert all(json.loads(r["generator_params"])["tempo"] > 0.5 for r in first)
    assert first[0]["audio"]["bytes"] != first[1]["audio"]["bytes"]
