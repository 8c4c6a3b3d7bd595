"""Phones of the teachers: one set, whole times, no gaps."""

from itertools import pairwise

import numpy as np
import pytest

from data_engine.backends.espeak_library import Utterance, shared_library
from data_engine.models.phones import ENGLISH, MANDARIN, TOKEN_IDS, TimedPhone, from_espeak, merged, warped


def said(text, voice="en-us"):
    spoken = shared_library().say(Utterance(text, voice, "m1"))
    return from_espeak(spoken.phonemes, len(spoken.samples), voice.startswith("cmn")), len(spoken.samples)


def names(phones):
    return [phone.name for phone in phones if phone.name != "pau"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("three big dogs", "th r iy b ih g d aa g z"),
        ("the serious man", "dh ax s ih r iy ax s m ae n"),
        ("bath", "b ae th"),
        ("fire", "f ay er"),
    ],
)
def test_english_comes_in_the_phones_of_flite(text, expected):
    assert names(said(text)[0]) == expected.split()


def test_times_have_no_gap_and_end_with_the_audio():
    phones, num_samples = said("Sixteen ships sailed slowly, and nobody saw them.")
    assert phones[-1].end == num_samples
    assert all(after.start == before.end for before, after in pairwise(phones))
    assert all(phone.end > phone.start for phone in phones)


def test_mandarin_has_its_own_phones():
    phones, _ = said("你好，今天天气怎么样？", "cmn")
    assert set(names(phones)) <= set(MANDARIN)


def test_an_utterance_with_an_unknown_phone_is_refused():
    assert from_espeak([("h", 0), ("nasal?", 10)], 20, mandarin=False) is None


def test_pauses_and_doubled_r_are_joined():
    phones = [TimedPhone("pau", 0, 5), TimedPhone("pau", 5, 9), TimedPhone("er", 9, 12), TimedPhone("r", 12, 20)]
    assert merged(phones) == [TimedPhone("pau", 0, 9), TimedPhone("er", 9, 20)]


def test_warping_keeps_order_and_bounds():
    phones, num_samples = said("a short sentence")
    slower = warped(phones, 1.3, round(num_samples * 1.3))
    assert [phone.name for phone in slower] == [phone.name for phone in phones]
    assert np.allclose([p.start for p in slower], [p.start * 1.3 for p in phones], atol=1)


def test_tokens_are_distinct_and_blank_is_first():
    assert len(TOKEN_IDS) == 3 + len(ENGLISH) + len(MANDARIN) + 1
    assert TOKEN_IDS["<blank>"] == 0
