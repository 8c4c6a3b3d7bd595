"""The recognizer `nano`: phones to words through a lexicon, homophones by context, windows that do not show."""

import gzip
import importlib.util
import itertools

import numpy as np
import pytest

from data_engine.backends.asr_nano import NanoRecognizer, pieces, timed
from data_engine.backends.ctc_words import FoundWord, SearchSettings, WordSearch, found_words, read_lexicon
from data_engine.backends.homophones import Homophones
from data_engine.backends.protocols import Recognizer, Transcript, Word
from data_engine.core.errors import ConfigError

RATE = 16000
TOKENS = ("<blank>", "pau", "b", "eh", "r", "t", "uw", "n")
LEXICON = [("bet", ("b", "eh", "t")), ("two", ("t", "uw")), ("too", ("t", "uw")), ("ben", ("b", "eh", "n"))]
ARPA = """\\data\\
ngram 1=7
ngram 2=4

\\1-grams:
-9\t<unk>
-99\t<s>\t-0.3
-1\t</s>
-1\tbet\t-0.3
-1\ttwo\t-0.3
-1.2\ttoo\t-0.3
-2\tben\t-0.3

\\2-grams:
-0.3\t<s> bet
-0.2\tbet too
-1.5\tbet two
-0.3\ttwo bet

\\end\\
"""
CHARACTERS = """\\data\\
ngram 1=7
ngram 2=4

\\1-grams:
-9\t<unk>
-99\t<s>\t-0.3
-1\t</s>\t0
-1\t是\t-0.5
-1.5\t事\t-0.5
-1.2\t故\t-0.5
-1.1\t古\t-0.5

\\2-grams:
-0.1\t故 事
-0.2\t<s> 故
0.00\t事 </s>
-0.3\t是 古

\\end\\
"""
needs_flashlight = pytest.mark.skipif(importlib.util.find_spec("flashlight") is None, reason="no flashlight-text here")


def emissions(frames, certainty=0.9):
    """Log posteriors of frames given by token name; the rest of the mass is spread evenly."""
    chances = np.full((len(frames), len(TOKENS)), (1 - certainty) / (len(TOKENS) - 1), np.float32)
    chances[np.arange(len(frames)), [TOKENS.index(name) for name in frames]] = certainty
    return np.log(chances)


@pytest.fixture
def search(tmp_path):
    path = tmp_path / "small.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode(), mtime=0))
    return WordSearch(LEXICON, path, TOKENS, "pau", SearchSettings())


@needs_flashlight
def test_phones_become_words_where_they_are(search):
    frames = ["<blank>", "b", "eh", "eh", "t", "<blank>", "<blank>", "t", "uw", "<blank>"]
    bet, too = search.words(emissions(frames))
    assert (bet.text, bet.first, bet.end) == ("bet", 1, 5)
    assert (too.first, too.end) == (7, 9)
    assert bet.log_posterior == pytest.approx(np.log(0.9), abs=1e-5)


@needs_flashlight
def test_the_language_model_decides_between_words_that_sound_alike(search):
    after_bet = search.words(emissions(["b", "eh", "t", "<blank>", "t", "uw"]))
    alone = search.words(emissions(["t", "uw", "<blank>", "b", "eh", "t"]))
    assert [word.text for word in after_bet] == ["bet", "too"]
    assert [word.text for word in alone] == ["two", "bet"]


@needs_flashlight
def test_the_search_finds_the_same_again_and_nothing_in_blanks(search):
    some = emissions(["b", "eh", "n", "<blank>", "t", "uw"], 0.5)
    assert search.words(some) == search.words(some)
    assert search.words(emissions(["<blank>"] * 20)) == []
    assert search.words(np.zeros((0, len(TOKENS)), np.float32)) == []


@needs_flashlight
def test_a_language_model_that_is_none_is_a_configuration_error(tmp_path):
    path = tmp_path / "bad.arpa"
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="language model"):
        WordSearch(LEXICON, path, TOKENS, "pau", SearchSettings())


def test_a_word_is_the_phones_since_the_word_before():
    rows = np.log(np.full((7, 8), 0.125, np.float32))
    path, labels = np.array([0, 2, 3, 5, 0, 5, 6]), np.array([-1, -1, -1, 0, -1, -1, 1])
    bet, two = found_words(rows, path, labels, ["bet", "two"], silence=1)
    assert (bet.text, bet.first, bet.end) == ("bet", 1, 4)
    assert (two.text, two.first, two.end) == ("two", 5, 7)
    assert found_words(rows, np.zeros(7, int), np.full(7, -1), ["bet"], silence=1) == []


def test_homophones_are_chosen_by_their_neighbours(tmp_path):
    path = tmp_path / "characters.arpa.gz"
    path.write_bytes(gzip.compress(CHARACTERS.encode(), mtime=0))
    lexicon = [("是", ("s.", "i")), ("事", ("s.", "i")), ("故", ("k", "u")), ("古", ("k", "u"))]
    characters = Homophones(lexicon, path)
    assert characters.spell(["ku", "s.i"]) == "故事"
    assert characters.spell(["s.i", "ku"]) == "是古"
    assert characters.spell([]) == ""


def test_times_are_in_samples_and_end_with_the_wave():
    found = [FoundWord("one", 1, 3, float(np.log(0.5))), FoundWord("two", 3, 6, float(np.log(0.5)))]
    heard = timed(found, ["one", "two"], " ", 5000)
    assert heard.words == (Word("one", 960, 1920), Word("two", 2880, 2120))
    assert heard.confidence == pytest.approx(0.5)
    assert timed([], [], " ", 5000) == Transcript("")


def test_long_speech_is_searched_in_pieces_cut_in_pauses():
    rows = np.full((2000, 4), -3.0, np.float32)
    rows[[400, 401, 402, 403, 404, 405, 406], 0] = 0.0
    found = pieces(rows)
    assert found[0] == (0, 403)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
    assert found[-1][1] == 2000 and max(end - start for start, end in found) <= 660
    assert pieces(rows[:660]) == [(0, 660)] and pieces(rows[:0]) == [(0, 0)]


def test_a_lexicon_is_words_and_phones_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "some.lexicon.gz"
    path.write_bytes(gzip.compress(b"too\tt uw\nben\tb eh n\n"))
    assert read_lexicon(path) == [("too", ("t", "uw")), ("ben", ("b", "eh", "n"))]
    with pytest.raises(ConfigError, match=r"none\.gz"):
        read_lexicon(tmp_path / "none.gz")


def test_unknown_settings_of_the_search_and_missing_files_are_configuration_errors(tmp_path):
    with pytest.raises(ConfigError, match="beams"):
        NanoRecognizer(search={"beams": 3})
    with pytest.raises(ConfigError, match="not 4"):
        NanoRecognizer(bits=4)
    with pytest.raises(ConfigError, match=r"encoder\.int8\.onnx"):
        _ = NanoRecognizer(path=str(tmp_path)).revision


def test_another_language_is_refused():
    with pytest.raises(ValueError, match="fr"):
        NanoRecognizer().transcribe([np.zeros(100, np.float32)], "fr")


@pytest.fixture(scope="module")
def asr():
    recognizer = NanoRecognizer()
    recognizer.open()
    yield recognizer
    recognizer.close()


@needs_flashlight
def test_it_plays_the_role(asr):
    assert isinstance(asr, Recognizer)
    assert asr.languages == {"en", "zh"}
    assert asr.revision == NanoRecognizer().revision


@needs_flashlight
def test_the_embedded_voice_is_understood(asr):
    from data_engine.backends.espeak_library import SAMPLE_RATE, Utterance, shared_library
    from data_engine.io.decoding.resample import resample

    said = shared_library().say(Utterance("the weather is very nice today", "en-us", "m3")).samples
    (heard,) = asr.transcribe([resample(said.astype(np.float32) / 32768, SAMPLE_RATE, RATE)], "en")
    assert len({"the", "weather", "is", "very", "nice", "today"} & set(heard.text.split())) >= 4
    assert all(a.start + a.num_samples <= b.start for a, b in zip(heard.words, heard.words[1:], strict=False))
    assert 0.0 < heard.confidence <= 1.0


@needs_flashlight
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("num_samples", [0, 1, 160, 399, 400, 800])
def test_scraps_are_allowed(asr, num_samples, language):
    noise = np.random.default_rng(1).normal(0, 0.1, num_samples).astype(np.float32)
    (heard,) = asr.transcribe([noise], language)
    assert all(word.start + word.num_samples <= num_samples for word in heard.words)
    assert asr.transcribe([np.zeros(num_samples, np.float32)], language) == [Transcript("")]


@needs_flashlight
def test_emissions_are_posteriors_per_frame_and_windows_do_not_show(asr):
    wave = np.random.default_rng(0).normal(0, 0.1, 60 * RATE).astype(np.float32)
    long = asr.emissions(wave)
    assert long.shape == (-(-len(wave) // asr.samples_per_frame), len(asr.tokens))
    np.testing.assert_allclose(np.exp(long).sum(axis=1), 1, atol=1e-4)
