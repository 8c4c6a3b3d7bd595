"""PocketSphinx: words with times, the same whatever was decoded before, nothing where nothing was said."""

import numpy as np
import pytest
import soundfile

from data_engine.backends.asr_pocketsphinx import PocketsphinxRecognizer, spoken_words
from data_engine.backends.protocols import Recognizer, Transcript, Word

LIBRIVOX = "cmusphinx__pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0880.wav"
RATE = 16000


@pytest.fixture(scope="module")
def asr():
    recognizer = PocketsphinxRecognizer()
    recognizer.open()
    yield recognizer
    recognizer.close()


@pytest.fixture(scope="module")
def talk(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


def test_it_plays_the_role(asr):
    assert isinstance(asr, Recognizer)
    assert asr.languages == {"en"}
    assert asr.revision.startswith("pocketsphinx-")


def test_words_are_heard_where_they_are_spoken(asr, talk):
    begin, end = round(9.65 * RATE), round(10.95 * RATE)
    (heard,) = asr.transcribe([talk[begin:end]], "en")
    assert heard.text == "neither did i"
    assert [word.text for word in heard.words] == heard.text.split()
    assert all(a.start + a.num_samples <= b.start for a, b in zip(heard.words, heard.words[1:], strict=False))
    assert heard.words[-1].start + heard.words[-1].num_samples <= end - begin
    assert 0.0 < heard.confidence <= 1.0


def test_a_read_sentence_is_mostly_right(asr, shared_speech):
    wave = soundfile.read(shared_speech / LIBRIVOX, dtype="float32")[0]
    (heard,) = asr.transcribe([wave], "en")
    assert {"he", "was", "not", "young", "man"} <= set(heard.text.split())


def test_the_order_of_utterances_does_not_matter(asr, talk):
    noise = np.random.default_rng(0).normal(0, 0.05, RATE).astype(np.float32)
    waves = [talk[152000:176000], noise, talk[108000:116000] * 0.1, np.zeros(RATE, np.float32), talk[120000:130000]]
    forward = asr.transcribe(waves, "en")
    backward = asr.transcribe(waves[::-1], "en")[::-1]
    assert forward == backward
    assert forward[0].text


@pytest.mark.parametrize("num_samples", [0, 1, 100, 410, 800, 48000])
@pytest.mark.parametrize("level", [0.0, 1e-5, 0.1])
def test_nothing_is_heard_in_noise_silence_and_scraps(asr, num_samples, level):
    wave = np.random.default_rng(1).normal(0, 1, num_samples).astype(np.float32) * np.float32(level)
    assert asr.transcribe([wave], "en") == [Transcript("")]


def test_a_tone_has_no_words(asr):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(3 * RATE) / RATE)
    assert asr.transcribe([tone.astype(np.float32)], "en")[0].text == ""


def test_sound_over_full_scale_is_clipped_not_wrapped(asr, talk):
    loud = talk[152000:176000] * 30
    assert asr.transcribe([loud], "en") == asr.transcribe([np.clip(loud, -1, 1)], "en")


def test_another_language_is_refused(asr):
    with pytest.raises(ValueError, match="zh"):
        asr.transcribe([np.zeros(100, np.float32)], "zh")


def test_marks_and_variants_are_no_words():
    entries = [
        ("<s>", 0, 9, 1.0), ("was(2)", 10, 19, 0.5), ("<sil>", 20, 29, 1.0), ("[NOISE]", 30, 34, 1.0),
        ("++SPN++", 35, 39, 1.0), ("o'clock", 40, 49, 1.0002), ("</s>", 50, 59, 1.0),
    ]  # fmt: skip
    heard = spoken_words(entries, 7900, RATE)
    assert heard == Transcript("was o'clock", (Word("was", 1600, 1600), Word("o'clock", 6400, 1500)), 0.75)


def test_an_utterance_without_words_has_no_confidence():
    assert spoken_words([("<s>", 0, 9, 1.0)], 1600, RATE) == Transcript("", (), None)
