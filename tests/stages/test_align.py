"""The stage `align`: words and phones get times, what cannot be aligned keeps what it had, nothing is dropped."""

import numpy as np
import pytest

from data_engine.backends.catalog import BackendCache
from data_engine.backends.espeak_library import SAMPLE_RATE, Utterance, shared_library
from data_engine.backends.protocols import Word
from data_engine.backends.protocols_listening import AlignedText
from data_engine.core.errors import RecordError
from data_engine.core.stage import Worker
from data_engine.io.audio import encode_flac
from data_engine.io.decoding.resample import resample
from data_engine.stages.catalog import build_stage
from tests.stages.rows import ran, segment, tone, worker

TEXT = "several boats waited near that harbour"


class Clockwork:
    """An aligner at 16 kHz that gives each word half a second, unless the text says otherwise."""

    sample_rate = 16000
    languages = frozenset({"en"})
    confidence = 0.8

    def __init__(self):
        self.asked = []

    def align(self, waves, texts, language):
        self.asked.append((language, [len(wave) for wave in waves], list(texts)))
        return [self._one(text) for text in texts]

    def _one(self, text):
        if text == "too much":
            return RecordError("TOO_SHORT", "no")
        words = tuple(Word(word, 8000 * n, 8000) for n, word in enumerate(text.split()))
        return AlignedText(words, tuple(Word("ax", w.start, 4000) for w in words), self.confidence)


def aligned(folder, *rows, aligner=None, **config):
    stage, played = build_stage("align", config), aligner or Clockwork()
    stage.open(worker(folder, aligner=played))
    found, run = ran(stage, rows, "segment")
    return {row["segment_id"]: row for row in found}, run, played


def test_a_text_without_times_gets_them(tmp_path):
    rows, run, _ = aligned(tmp_path, segment(0, segment_id="a", text="good morning"))
    assert rows["a"]["words"] == [
        {"text": "good", "start": 0, "num_samples": 8000}, {"text": "morning", "start": 8000, "num_samples": 8000},
    ]  # fmt: skip
    assert rows["a"]["phones"][1] == {"text": "ax", "start": 8000, "num_samples": 4000}
    assert rows["a"]["align_confidence"] == pytest.approx(0.8)
    assert run.stats.metrics["align_words"] == 2


def test_times_are_in_samples_of_the_segment(tmp_path):
    row = segment(0, segment_id="a", text="good morning", sample_rate=24000, num_samples=48000)
    row["audio"] = {"bytes": tone(2.0, rate=24000), "path": None}
    rows, _, played = aligned(tmp_path, row)
    assert played.asked == [("en", [32000], ["good morning"])]
    assert [(word["start"], word["num_samples"]) for word in rows["a"]["words"]] == [(0, 12000), (12000, 12000)]


@pytest.mark.parametrize(("when", "asked"), [("missing", 0), ("always", 1)])
def test_times_of_a_recognizer_are_kept_unless_told_otherwise(tmp_path, when, asked):
    words = [{"text": "hello", "start": 5, "num_samples": 7}]
    rows, _, played = aligned(tmp_path, segment(0, segment_id="a", text="hello", words=words), when=when)
    assert len(played.asked) == asked
    assert (rows["a"]["words"] == words) == (not asked)
    assert (rows["a"]["align_confidence"] is None) == (not asked)


def test_what_cannot_be_aligned_stays_as_it_was_and_is_counted(tmp_path):
    rows, run, played = aligned(
        tmp_path, segment(0, segment_id="long", text="too much"), segment(1, segment_id="other", language="de"),
        segment(2, segment_id="unknown", language=None), segment(3, segment_id="none", text=None),
        segment(4, segment_id="soundless", audio=None), segment(5, segment_id="good", text="good morning"),
    )  # fmt: skip
    assert len(rows) == 6
    assert run.rejects == []
    assert {name for name, row in rows.items() if row["words"]} == {"good"}
    assert {name for name, row in rows.items() if row["align_confidence"] is not None} == {"good"}
    counted = {name: count for name, count in run.stats.metrics.items() if name.startswith("align")}
    assert counted == {"align_segments": 2, "align_failed_TOO_SHORT": 1, "align_other_language": 2, "align_words": 2}
    assert len(played.asked) == 1


def test_times_nobody_is_sure_of_are_not_taken(tmp_path):
    rows, run, _ = aligned(tmp_path, segment(0, segment_id="a", text="good morning"), min_confidence=0.9)
    assert rows["a"]["words"] is None
    assert run.stats.metrics["align_unsure"] == 1


def test_sound_that_cannot_be_decoded_is_a_reject(tmp_path):
    rows, run, _ = aligned(tmp_path, segment(0, text="hello", audio={"bytes": b"no sound", "path": None}))
    assert rows == {}
    assert [reject["code"] for reject in run.rejects] == ["NOT_AUDIO"]


def test_the_embedded_aligner_finds_words_of_real_sound(tmp_path):
    spoken = shared_library().say(Utterance(TEXT, "en-us", "f2", rate=160))
    wave = resample(spoken.samples.astype(np.float32) / 32768, SAMPLE_RATE, 16000)
    stage = build_stage("align", {})
    stage.open(Worker(tmp_path, BackendCache()))
    row = segment(0, text=TEXT, num_samples=len(wave), audio={"bytes": encode_flac(wave, 16000), "path": None})
    found, _ = ran(stage, [row], "segment")
    starts = np.array([word["start"] for word in found[0]["words"]])
    true = np.array([start * 16000 // SAMPLE_RATE for _, _, start in spoken.words])
    assert [word["text"] for word in found[0]["words"]] == TEXT.split()
    assert np.median(np.abs(starts - true)) <= 400
    assert found[0]["phones"][0]["text"] == "s"
