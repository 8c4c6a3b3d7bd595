"""Transcribe: text where a recognizer speaks the language and hears words; else no text, never wrong text."""

import numpy as np
import pytest
import soundfile

from data_engine.backends.catalog import BackendCache
from data_engine.backends.protocols import Transcript, Word
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.io.audio import encode_flac
from data_engine.io.decoding.resample import resample
from data_engine.stages.catalog import build_stage
from data_engine.stages.transcribe import spoken_language, transcript_columns

RATE = 16000
NO_TEXT = {"text": None, "text_source": None, "text_confidence": None, "words": None}
CACHE = BackendCache()


@pytest.fixture(scope="module")
def neither(conversation):
    """1.3 s of the conversation: "neither did I"."""
    return soundfile.read(conversation, dtype="float32")[0][round(9.65 * RATE) : round(10.95 * RATE)]


def segment(name, wave, language="en", rate=RATE, **columns):
    audio = {"bytes": encode_flac(wave, rate), "path": f"{name}.flac"}
    known = {"segment_id": name, "num_samples": len(wave), "sample_rate": rate, "language": language, "audio": audio}
    return {**known, **columns}


def transcribe(folder, *segments):
    stage = build_stage("transcribe", {})
    stage.open(Worker(folder, CACHE))
    run = StageRun(stage, "signature")
    rows = [row for batch in run.run([stage.spec.consumes.batch(list(segments))]) for row in batch.to_pylist()]
    keys = ("text", "text_source", "text_confidence", "words")
    return {row["segment_id"]: {key: row[key] for key in keys} for row in rows}, run


def test_words_and_their_times_are_written_down(tmp_path, neither):
    found, run = transcribe(tmp_path, segment("a", neither))
    row = found["a"]
    assert (row["text"], row["text_source"]) == ("neither did i", "pocketsphinx")
    assert 0 < row["text_confidence"] <= 1
    assert [word["text"] for word in row["words"]] == ["neither", "did", "i"]
    assert all(w["start"] >= 0 and w["start"] + w["num_samples"] <= len(neither) for w in row["words"])
    assert dict(run.stats.metrics) == {"asr_segments": 1, "asr_empty": 0, "asr_flagged": 0}


def test_what_is_not_understood_stays_without_text(tmp_path, neither):
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    found, run = transcribe(
        tmp_path,
        segment("chinese", neither, "zh"),
        segment("unknown", neither, None),
        segment("noise", noise),
        segment("silence", np.zeros(RATE, np.float32)),
        {**segment("soundless", neither), "audio": None},
    )
    assert found == dict.fromkeys(["chinese", "unknown", "noise", "silence", "soundless"], NO_TEXT)
    assert dict(run.stats.metrics) == {"asr_segments": 2, "asr_empty": 2, "asr_flagged": 0}


def test_a_text_of_the_source_is_kept(tmp_path, neither):
    found, run = transcribe(tmp_path, segment("a", neither, text="Neither did I.", text_source="source"))
    assert found["a"] == {**NO_TEXT, "text": "Neither did I.", "text_source": "source"}
    assert run.stats.metrics["asr_segments"] == 0


def test_word_times_are_in_samples_of_the_segment(tmp_path, neither):
    fast = resample(neither, RATE, 24000)
    found, _ = transcribe(tmp_path, segment("fast", fast, "en-GB", rate=24000), segment("same", neither))
    quick, slow = ({word["text"]: word["start"] for word in found[name]["words"]} for name in ("fast", "same"))
    for word in ("neither", "did", "i"):
        assert abs(quick[word] / 24000 - slow[word] / RATE) < 0.1


def test_bytes_that_are_no_sound_are_rejected(tmp_path, neither):
    broken = {**segment("broken", neither), "audio": {"bytes": b"no sound" * 50, "path": "broken.flac"}}
    found, run = transcribe(tmp_path, segment("before", neither), broken, segment("after", neither))
    assert list(found) == ["before", "after"]
    assert found["before"] == found["after"]
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [("broken", "NOT_AUDIO")]


@pytest.mark.parametrize(
    ("language", "spoken"),
    [
        ("en", "en"), ("en-GB", "en"), ("EN_us", "en"), (" en ", "en"), ("zh-HK", "zh-HK"),
        ("zh-Hant", None), ("eng", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_the_language_of_the_recognizer_is_the_nearest_one(language, spoken):
    assert spoken_language(language, {"en", "zh-HK"}) == spoken


def test_columns_of_a_transcript():
    heard = Transcript("hi", (Word("hi", 160, 320),), 0.5)
    assert transcript_columns(heard, "asr", 16000, 24000) == {
        "text": "hi", "text_source": "asr", "text_confidence": 0.5,
        "words": [{"text": "hi", "start": 240, "num_samples": 480}],
    }  # fmt: skip
    assert transcript_columns(Transcript(""), "asr", 16000, 16000) == {}
    laughter = Transcript("", language="en", emotion="happy", events=("laughter",), no_speech=0.9)
    assert transcript_columns(laughter, "asr", 16000, 16000) == {"asr_emotion": "happy", "asr_events": ["laughter"]}


class Finder:
    """A third-party recognizer that tells languages; it hears what it was told to hear, by the length of the clip."""

    sample_rate, languages, finds_language = RATE, frozenset({"en", "zh"}), True

    def __init__(self, by_length):
        self.by_length, self.asked = by_length, []

    def transcribe(self, waves, language):
        self.asked.append(language)
        return [self.by_length[len(wave)] for wave in waves]


def hear(folder, recognizer, *segments):
    stage = build_stage("transcribe", {"asr": "nano"})
    stage.open(Worker(folder, lambda *choice: recognizer))
    run = StageRun(stage, "signature")
    rows = [row for batch in run.run([stage.spec.consumes.batch(list(segments))]) for row in batch.to_pylist()]
    return {row["segment_id"]: row for row in rows}, run


def silence(seconds):
    return np.full(round(seconds * RATE), 0.01, np.float32)


def test_a_language_that_was_not_declared_is_found(tmp_path):
    heard = {
        16000: Transcript("早上好", language="zh", language_confidence=0.75, events=("speech",)),
        32000: Transcript("good morning", confidence=0.5),
        48000: Transcript(""),
    }
    finder = Finder(heard)
    rows, _ = hear(
        tmp_path, finder, segment("found", silence(1), None), segment("told", silence(2), "en-GB"),
        segment("nobody", silence(3), None), segment("french", silence(2), "fr"),
    )  # fmt: skip
    assert finder.asked == [None, "en"]
    found = rows["found"]
    assert (found["language"], found["language_confidence"], found["text"]) == ("zh", 0.75, "早上好")
    assert (found["asr_events"], found["asr_emotion"], found["text_flags"]) == (["speech"], None, None)
    assert (rows["told"]["language"], rows["told"]["language_confidence"]) == ("en-GB", None)
    assert (rows["nobody"]["language"], rows["nobody"]["text"]) == (None, None)
    assert (rows["french"]["language"], rows["french"]["text"]) == ("fr", None)


def test_what_nobody_may_have_said_is_kept_and_flagged(tmp_path):
    heard = {
        16000: Transcript("good morning", confidence=0.9, no_speech=0.1),
        32000: Transcript("Thanks for watching!", confidence=0.2, no_speech=0.8),
        48000: Transcript("so so so so so so so so so"),
    }
    rows, run = hear(
        tmp_path, Finder(heard), segment("said", silence(1)), segment("phantom", silence(2)),
        segment("loop", silence(3)), segment("source", silence(3), text="so " * 9, text_source="source"),
    )  # fmt: skip
    assert {name: row["text_flags"] for name, row in rows.items()} == {
        "said": None, "phantom": ["PHANTOM_PHRASE", "NO_SPEECH"], "loop": ["REPEATED"], "source": None,
    }  # fmt: skip
    assert rows["phantom"]["text"] == "Thanks for watching!"
    assert run.stats.metrics["asr_flagged"] == 2
