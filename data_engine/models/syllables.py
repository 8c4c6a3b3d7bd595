"""Syllables, counted in text by rule or in sound by their nuclei: the numerator of speaking rate."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from data_engine.models.acoustics import FRAMES_PER_SECOND, Activity
from data_engine.models.features import Floats, frames

_NUCLEUS_RANGE_DB = 25.0
_DIP_DB = 2.0
_WINDOW_SECONDS = 0.064
_SHORTEST_SPEECH = 0.1

_HANZI = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_VOWELS = re.compile(r"[aeiouyáàâäãåæéèêëíìîïóòôöõøœúùûüýÿ]+")
_HIATUS = re.compile(
    r"(?<![tcsgxln])i[aou]|(?<=[ln])io(?!n)|(?<=c)ia(?=t)|ie(?=t)|(?:(?<![tc])|(?<=^sc))ie(?=n[ct])"  # radio, quiet
    r"|(?<![gq])ua|(?<!g)eo(?![pu])|^idea|^area|^every(?=o)|crea(?=t[^u])|eu(?=m$)|oe(?=[tm])"  # actual, create
    r"|[aeou]y(?=[aou]|er|ee)|[aeiouy](?=ing)"  # player, going
)
"""Two vowels that are two syllables, written as one group."""

_ACCENTED_HIATUS = re.compile(r"[íú](?=[aeo])|[aeo](?=[íú])")
"""Spanish, Portuguese: an accented closed vowel is a syllable of its own."""

_SYLLABIC = re.compile(r"(?:s|th)m$")
_SILENT = re.compile(
    r"[^aeiouy](?<![^aeiouylr]l)e$|[^aeiouytd](?<![^aeiouylr][lr])ed$|[^aeiouysxzcg](?<![sc]h)(?<![^aeiouylr]l)es$"
    r"|^some(?=[a-z])|^every|^even(?=ing)|^busi|(?:q|og)ue$"
)
"""A written vowel that is not spoken: time, walked, makes; but table, wanted, boxes."""

_VOWEL_GROUP_LANGUAGES = frozenset({"es", "it", "pt", "de", "nl"})


def count_syllables(text: str, language: str | None) -> int | None:
    """Returns the syllables of a text, or None when there is no rule for it.

    `en`: vowel groups with rules for silent e and hiatus. `zh`, `yue`: Hanzi, Latin words as English. `ko`: Hangul.
    `es`, `it`, `pt`, `de`, `nl`: vowel groups. Figures have no rule: how a number is read is not written.
    """
    primary = (language or "").replace("_", "-").split("-")[0].lower()
    if any(character.isdigit() for character in text):
        return None
    words = [word.lower() for word in _WORD.findall(_HANZI.sub(" ", _HANGUL.sub(" ", text)))]
    if primary in ("zh", "yue", "cmn"):
        return len(_HANZI.findall(text)) + sum(map(english_syllables, words))
    if primary == "ko":
        return len(_HANGUL.findall(text)) + sum(map(english_syllables, words))
    if primary == "en":
        return sum(map(english_syllables, words))
    if primary in _VOWEL_GROUP_LANGUAGES:
        return sum(max(1, len(_VOWELS.findall(word)) + len(_ACCENTED_HIATUS.findall(word))) for word in words)
    return None


def english_syllables(word: str) -> int:
    """Returns the syllables of one lower-case English word, at least 1.

    Vowel groups; a final e, es or ed is silent unless its consonants need it; vowels in hiatus count twice.
    """
    stem = word.replace("’", "'")
    contracted = re.search(r"[bcdfgkpstvwz]n't$", stem) is not None  # didn't, isn't; not can't
    stem = re.sub(r"'[a-z]+$", "", stem)
    groups = len(_VOWELS.findall(stem)) + contracted
    spoken = len(_HIATUS.findall(stem)) + len(_SYLLABIC.findall(stem)) - len(_SILENT.findall(stem))
    return max(1, groups + spoken)


def intensity_db(wave: Floats, sample_rate: int) -> npt.NDArray[np.float64]:
    """Returns smooth intensity every 10 ms in dB, float64 [frames]; frame t is centred on t * 10 ms."""
    hop, length = sample_rate // FRAMES_PER_SECOND, int(sample_rate * _WINDOW_SECONDS)
    weights = np.hanning(length + 2)[1:-1].astype(np.float32)
    energy = frames(np.square(wave), length, hop, center=True) @ (weights / weights.sum())
    audible: npt.NDArray[np.float64] = np.maximum(energy, 1e-10).astype(np.float64)
    return 10.0 * np.log10(audible)


def count_nuclei(wave: Floats, sample_rate: int, f0: npt.NDArray[np.float64]) -> int:
    """Returns the number of syllable nuclei (de Jong & Wempe 2009, Behavior Research Methods 41).

    Nuclei are peaks of intensity within 25 dB of the loudest (99th percentile), with a dip of more than 2 dB to
    their neighbours, that are voiced.

    Args:
        wave: float32 [samples].
        sample_rate: Hz.
        f0: Hz every 10 ms, 0 where unvoiced.
    """
    from scipy.signal import find_peaks

    intensity = intensity_db(wave, sample_rate)
    if not len(intensity) or not len(f0):
        return 0
    threshold = np.percentile(intensity, 99) - _NUCLEUS_RANGE_DB
    peaks, _ = find_peaks(intensity, height=threshold, prominence=_DIP_DB)
    return int(np.count_nonzero(f0[np.minimum(peaks, len(f0) - 1)] > 0.0))


def speaking_rate(syllables: int, where: Activity) -> float | None:
    """Returns syllables per second of speech, pauses left out; None without syllables or with < 0.1 s of speech."""
    seconds = where.speech_seconds
    return syllables / seconds if syllables > 0 and seconds >= _SHORTEST_SPEECH else None
