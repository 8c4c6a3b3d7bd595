"""Hallucination: loops, impossible rates, phantom phrases and no speech are flagged, ordinary talk is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.stages.rules.hallucination import (
    ANY_RATE,
    RATES,
    FlagSettings,
    is_phantom,
    repeated_share,
    text_flags,
    text_units,
)
from data_engine.stages.rules.phantom_phrases import PHANTOM_PHRASES

ORDINARY = [
    ("So I told him, no, no, no, that is not what we agreed on at all.", "en", 4.0),
    ("very very good", "en", 1.2),
    ("Ha ha ha ha!", "en", 1.0),
    ("neither did i", "en", 1.3),
    ("Thank you for watching the children while I was away.", "en", 3.0),
    ("The subtitles by the first translator were better.", "en", 3.0),
    ("Ich habe die Untertitel gesehen.", "de", 2.5),
    ("今天天气很好，我们去公园散步吧。", "zh", 3.5),
    ("对对对对，就是这样", "zh", 1.5),
    ("谢谢你来观看我们的比赛", "zh", 2.5),
    ("今日はいい天気ですね", "ja", 2.0),
    ("오늘 날씨가 참 좋네요", "ko", 2.0),
    ("one two three four one two three four one two three", "en", 5.0),
]


def flags(text, language="en", seconds=3.0, no_speech=None, confidence=None):
    return text_flags(text, language, seconds, no_speech, confidence, FlagSettings())


@pytest.mark.parametrize(("text", "language", "seconds"), ORDINARY)
def test_ordinary_talk_is_not_flagged(text, language, seconds):
    assert flags(text, language, seconds, no_speech=0.1, confidence=0.8) == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the the the the the the the the", "en"),
        ("and then it was over, and then it was over, and then it was over, and then it was over", "en"),
        ("I know. I know. I know. I know. I know.", "en"),
        ("well you see " + "i do not know what i do not know what i do " * 4, "en"),
        ("哈" * 12, "zh"),
        ("我们去了我们去了我们去了我们去了", "zh"),
        ("ありがとう" * 5, "ja"),
    ],
)
def test_a_loop_is_flagged(text, language):
    assert flags(text, language, 8.0) == ["REPEATED"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Thanks for watching!", "en"),
        ("Thank you so much for watching.", "en"),
        ("Thanks for watching, and I'll see you in the next video.", "en"),
        ("Please subscribe to my channel.", "en"),
        ("Subtitles by the Amara.org community", "en"),
        ("谢谢观看", "zh"),
        ("謝謝大家的收看。", "zh"),
        ("请不吝点赞 订阅 转发 打赏支持明镜与点点栏目", "zh"),
        ("字幕由志愿者提供", "zh"),
        ("中文字幕志愿者 李明", "zh"),
        ("ご視聴ありがとうございました。", "ja"),
        ("시청해 주셔서 감사합니다.", "ko"),
        ("Untertitel im Auftrag des ZDF für funk, 2017", "de"),
        ("Vielen Dank fürs Zuschauen!", "de"),
        ("Sous-titres réalisés par la communauté d'Amara.org", "fr"),
        ("Merci d’avoir regardé cette vidéo !", "fr"),
        ("Subtítulos realizados por la comunidad de Amara.org", "es"),
        ("Субтитры создавал DimaTorzok", "ru"),
        ("Продолжение следует...", "ru"),
    ],
)
def test_a_phantom_phrase_is_flagged_whatever_language_was_declared(text, language):
    seconds = 4.0
    assert flags(text, language, seconds) == flags(text, None, seconds) == ["PHANTOM_PHRASE"]


def test_a_phantom_phrase_inside_an_utterance_is_none():
    assert not is_phantom("He said thanks for watching and left.")
    assert not is_phantom("")


def test_every_phrase_is_written_as_text_is_compared():
    for phrases in PHANTOM_PHRASES.values():
        assert all(phrase == phrase.lower() and "  " not in phrase for phrase in phrases)


@pytest.mark.parametrize("language", [*RATES, "fr-CA", None, "sw"])
def test_a_rate_nobody_speaks_at_is_flagged(language):
    least, most = RATES.get((language or "").split("-")[0], ANY_RATE)
    letters = "".join(chr(ord("a") + n % 26) for n in range(round(most * 2) + 30))
    assert flags(letters, language, 2.0) == ["TOO_FAST"]
    assert flags(letters[: round(most * 2)], language, 2.0) == []
    assert flags("ab", language, 20 / least) == ["TOO_SLOW"]


def test_a_text_without_speech_is_flagged_unless_it_is_certain():
    assert flags("hello there", no_speech=0.9, confidence=0.2) == ["NO_SPEECH"]
    assert flags("hello there", no_speech=0.9) == ["NO_SPEECH"]
    assert flags("hello there", no_speech=0.9, confidence=0.8) == []
    assert flags("hello there", no_speech=0.5, confidence=0.2) == []


def test_units_are_words_or_characters():
    assert text_units("Don't stop, 今天OK! 좋은 날") == ["don't", "stop", "今", "天", "ok", "좋은", "날"]
    assert text_units("...") == []


def test_the_share_of_repeated_triples():
    assert repeated_share(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]) == 0.0
    assert repeated_share(["a", "b", "c"] * 5) == pytest.approx(1 - 3 / 13)
    assert repeated_share(["a", "a", "a"]) == 0.0


@given(st.text(max_size=80), st.sampled_from([None, "en", "zh"]), st.floats(0.0, 30.0))
def test_any_text_can_be_judged(text, language, seconds):
    assert set(flags(text, language, seconds)) <= {"REPEATED", "TOO_FAST", "TOO_SLOW", "PHANTOM_PHRASE", "NO_SPEECH"}
