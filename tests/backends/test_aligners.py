"""The aligners: words and their phones, times that are right on speech whose times are known, and what they refuse."""

import builtins
import importlib.util
from itertools import pairwise

import numpy as np
import pytest

from data_engine.backends.aligned_text import timed_text
from data_engine.backends.aligner_ctc import CtcAligner, needed_frames, phone_times, token_frames
from data_engine.backends.aligner_neufa import NeufaAligner
from data_engine.backends.catalog import BACKENDS, BackendCache
from data_engine.backends.espeak_library import SAMPLE_RATE, Utterance, shared_library
from data_engine.backends.pronunciation import Pronouncer, by_espeak, text_words
from data_engine.core.errors import MissingExtraError, RecordError
from data_engine.io.decoding.resample import resample
from data_engine.models.phones import TOKEN_IDS

CACHE = BackendCache()
TEXT = "Good morning everybody, the little boat was waiting in the harbour. Nobody knew the captain's name!"
TORCHAUDIO = pytest.mark.skipif(importlib.util.find_spec("torchaudio") is None, reason="torchaudio is not installed")
ALIGNERS = [pytest.param(name, marks=[TORCHAUDIO] if name == "ctc" else []) for name in BACKENDS["aligner"]]


def said(text=TEXT, voice="en-us", variant="m3"):
    """A wave at 16 kHz, and number and first sample of its words; espeak-ng says some pairs (in the) as one."""
    spoken = shared_library().say(Utterance(text, voice, variant, rate=165))
    wave = resample(spoken.samples.astype(np.float32) / 32768, SAMPLE_RATE, 16000)
    numbers = {place: number for number, place in enumerate(word_places(text))}
    return wave, [(numbers[place], start * 16000 // SAMPLE_RATE) for place, _, start in spoken.words]


def word_places(text):
    place = 0
    for word in text_words(text):
        place = text.index(word, place)
        yield place
        place += len(word)


def start_errors(words, starts):
    """By how many milliseconds the starts of words are missed."""
    return np.abs([words[number].start - start for number, start in starts]) / 16


@pytest.fixture(scope="module")
def pronouncer():
    return Pronouncer()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mr. Smith's 'em dogs', “hello” – OK?", ["Mr", "Smith's", "'em", "dogs'", "hello", "OK"]),
        ("state-of-the-art at 3.5%", ["state-of-the-art", "at", "3.5"]),
        ("今天很好，OK！", ["今", "天", "很", "好", "OK"]),
        ("¡... – !", []),
        ("it’s", ["it's"]),
    ],
)
def test_words_are_as_written_without_the_punctuation_around_them(text, words):
    assert text_words(text) == words


def test_words_in_no_lexicon_are_pronounced_by_espeak(pronouncer):
    known, compound, unknown, number, character = pronouncer.phones(["Captain", "boat-house", "zorblax", "42", "好"])
    assert known == ("k", "ae", "p", "t", "ax", "n")
    assert compound == pronouncer.phones(["boat"])[0] + pronouncer.phones(["house"])[0]
    assert unknown == by_espeak("zorblax", "en-us") != ()
    assert number[:3] == ("f", "ao", "r")
    assert character == ("z:X", "z:Au")
    assert {phone for word in (known, compound, unknown, number, character) for phone in word} <= set(TOKEN_IDS)


def test_a_word_nobody_can_pronounce_is_refused(pronouncer):
    with pytest.raises(RecordError, match="UNSUPPORTED_LANGUAGE"):
        pronouncer.phones(["한국"])


@pytest.mark.parametrize("name", ALIGNERS)
def test_words_are_where_the_synthesizer_put_them(name):
    wave, starts = said()
    found = CACHE("aligner", name, {}).align([wave], [TEXT], "en")[0]
    assert [word.text for word in found.words] == text_words(TEXT)
    assert len(starts) >= len(found.words) - 3
    errors = start_errors(found.words, starts)
    assert np.median(errors) <= 25
    assert errors.max() <= 150
    ends = [word.start + word.num_samples for word in found.words]
    assert all(word.num_samples > 0 for word in found.words)
    assert all(end <= word.start for end, word in zip(ends[:-1], found.words[1:], strict=True))


@pytest.mark.parametrize("name", ALIGNERS)
def test_phones_fill_their_words(name, pronouncer):
    wave, _ = said()
    found = CACHE("aligner", name, {}).align([wave], [TEXT], "en")[0]
    expected = pronouncer.phones(text_words(TEXT))
    assert [phone.text for phone in found.phones] == [phone for word in expected for phone in word]
    place = 0
    for word, phones in zip(found.words, expected, strict=True):
        inside = found.phones[place : place + len(phones)]
        place += len(phones)
        assert inside[0].start == word.start
        assert inside[-1].start + inside[-1].num_samples == word.start + word.num_samples
        for one, other in pairwise(inside):
            assert one.start + one.num_samples == other.start


@pytest.mark.parametrize("name", ALIGNERS)
def test_a_pause_inside_a_text_belongs_to_no_word(name):
    first, second = (said(text)[0] for text in ("the boat was waiting", "in the harbour"))
    wave = np.concatenate([first, np.zeros(24000, np.float32), second])
    words = CACHE("aligner", name, {}).align([wave], ["the boat was waiting in the harbour"], "en")[0].words
    assert words[3].start + words[3].num_samples <= len(first) + 1600
    assert words[4].start >= len(first) + 24000 - 1600


@pytest.mark.parametrize("name", ALIGNERS)
def test_mandarin_comes_character_by_character(name):
    text = "今天天气很好"
    wave, _ = said(text, "cmn")
    found = CACHE("aligner", name, {}).align([wave], [text], "zh")[0]
    starts = [word.start for word in found.words]
    assert [word.text for word in found.words] == list(text)
    assert starts == sorted(starts)
    assert min(word.num_samples for word in found.words) > 800


@pytest.mark.parametrize("name", ALIGNERS)
def test_long_speech_is_aligned_to_its_end(name):
    wave, starts = said()
    whole = np.concatenate([wave] * 5)
    assert len(whole) > 25 * 16000
    words = CACHE("aligner", name, {}).align([whole], [" ".join([TEXT] * 5)], "en")[0].words
    count = len(text_words(TEXT))
    errors = start_errors(words, [(a + n * count, b + n * len(wave)) for n in range(5) for a, b in starts])
    assert np.median(errors) <= 30
    assert (errors <= 150).mean() >= 0.95


@pytest.mark.parametrize("name", ALIGNERS)
def test_a_text_that_does_not_fit_is_less_sure(name):
    wave, _ = said()
    other = "several purple elephants danced slowly around an enormous wooden table yesterday evening"
    right, wrong = CACHE("aligner", name, {}).align([wave, wave], [TEXT, other], "en")
    assert right.confidence > 1.5 * wrong.confidence


@pytest.mark.parametrize("name", ALIGNERS)
def test_what_cannot_be_aligned_says_why_in_its_place(name):
    wave, _ = said("hello there")
    texts = ["hello there", TEXT * 3, "good morning", "", "hello 한국", "hello there"]
    waves = [wave, wave[:8000], np.zeros(16000, np.float32), wave, wave, np.zeros(0, np.float32)]
    found = CACHE("aligner", name, {}).align(waves, texts, "en")
    assert [getattr(one, "code", None) for one in found] == [
        None, "TOO_SHORT", "SILENT", None, "UNSUPPORTED_LANGUAGE", "SILENT",
    ]  # fmt: skip
    assert found[3].words == ()
    with pytest.raises(ValueError, match="not 'de'"):
        CACHE("aligner", name, {}).align([wave], ["hallo"], "de")


def test_soft_times_pool_frames_into_words():
    wave, _ = said()
    aligner = CACHE("aligner", "neufa", {})
    soft, hard = aligner.soft(wave, TEXT), aligner.align([wave], [TEXT], "en")[0]
    assert soft.frames_of_phones.shape == soft.phones_of_frames.shape == (len(soft.phones), 1 + len(wave) // soft.hop)
    assert soft.frames_of_phones.sum(axis=1).max() <= 1 + 1e-4
    assert soft.phones_of_frames.sum(axis=0).max() <= 1 + 1e-4
    assert soft.words == tuple(text_words(TEXT))
    owners = np.array(soft.owners)
    middles = soft.frames_of_phones @ np.arange(soft.frames_of_phones.shape[1]) * soft.hop
    inside = [
        hard.words[word].start - 1600 <= middle <= hard.words[word].start + hard.words[word].num_samples + 1600
        for word, middle in zip(owners, middles, strict=True)
    ]
    assert np.mean(inside) > 0.9


def test_torchaudio_is_named_where_it_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *more):
        if name.startswith("torchaudio"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[align\]"):
        CtcAligner().open()


def test_revisions_follow_what_decides_the_times():
    assert NeufaAligner(path_weight=1.0).revision != NeufaAligner().revision
    assert NeufaAligner(threads=2).revision == NeufaAligner().revision
    assert CtcAligner(stretch=1.0).revision != CtcAligner().revision


@pytest.mark.parametrize(
    ("path", "first", "last"),
    [([0, 3, 3, 0, 4, 0], [1, 4], [2, 4]), ([3, 4, 4], [0, 1], [0, 2]), ([0, 5, 0, 5, 5], [1, 3], [1, 4])],
)
def test_tokens_of_a_path_have_first_and_last_frames(path, first, last):
    found = token_frames(np.array(path))
    assert [rows.tolist() for rows in found] == [first, last]


def test_equal_neighbours_need_a_blank_between_them():
    assert needed_frames([3, 3, 4, 4, 4]) == 8


def test_phones_meet_half_way_and_words_far_apart_leave_a_pause():
    times = phone_times(np.array([1600.0, 3200, 12800]), np.array([True, False, True]))
    assert times[0, 1] == times[1, 0] == 2400
    assert times[1, 1] < 4800 < 11200 < times[2, 0]
    inside = phone_times(np.array([1600.0, 3200, 12800]), np.array([True, False, False]))
    assert inside[1, 1] == inside[2, 0] == 8000


def test_times_stay_inside_the_wave():
    found = timed_text(["a"], [("ey",)], [[-80.0, 20000.0]], 16000, 1.7)
    assert (found.words[0].start, found.words[0].num_samples, found.confidence) == (0, 16000, 1.0)
