"""Signs that a recognizer wrote down what nobody said: loops, impossible rates, phantom phrases, no speech.

A text is flagged, never changed or dropped; a policy decides what a flag means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from data_engine.core.config import Settings
from data_engine.stages.rules.phantom_phrases import PHANTOM_PHRASES

REPEATED, TOO_FAST, TOO_SLOW = "REPEATED", "TOO_FAST", "TOO_SLOW"
PHANTOM, NO_SPEECH = "PHANTOM_PHRASE", "NO_SPEECH"

RATES: dict[str, tuple[float, float]] = {
    "en": (1.5, 25.0), "de": (1.5, 27.0), "nl": (1.5, 27.0), "fr": (1.5, 26.0), "es": (1.5, 27.0), "it": (1.5, 27.0),
    "pt": (1.5, 27.0), "ru": (1.5, 26.0), "pl": (1.5, 26.0), "tr": (1.5, 26.0), "zh": (0.5, 11.0), "yue": (0.5, 11.0),
    "ja": (0.7, 16.0), "ko": (0.5, 12.0),
}  # fmt: skip
"""Letters per second that speech has, least and most: about a tenth and twice the usual rate of the language."""
ANY_RATE = (0.5, 30.0)
"""Of other languages."""

_SLACK = 8
"""Letters more than the greatest rate allows, which a short clip may have."""
_LONGEST_LOOP = 12
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’][^\W_{_UNSPACED}]+)*")


class FlagSettings(Settings):
    """When a text is flagged.

    Attributes:
        loop_repeats: So often a word or phrase stands in a row, and with `loop_units` words or characters in all.
        loop_units: See `loop_repeats`.
        repeated_share: Share of triples of words or characters that were there before.
        no_speech: Posterior of no speech above which an uncertain text is flagged (Whisper's threshold).
        certain: Confidence from which a text is not flagged for it; exp(-1), Whisper's log probability threshold.
    """

    loop_repeats: int = 4
    loop_units: int = 8
    repeated_share: float = 0.5
    no_speech: float = 0.6
    certain: float = 0.37


def text_flags(
    text: str, language: str | None, seconds: float, no_speech: float | None, confidence: float | None,
    settings: FlagSettings,
) -> list[str]:  # fmt: skip
    """Returns what speaks against a text, in a fixed order; empty when nothing does.

    Args:
        text: As the recognizer wrote it.
        language: Spoken or found.
        seconds: Length of the clip.
        no_speech: Posterior that nobody speaks, where the recognizer tells it.
        confidence: Of the text, where the recognizer tells it.
        settings: Thresholds.
    """
    units, letters = text_units(text), sum(letter.isalnum() for letter in text)
    least, most = RATES.get(primary_tag(language), ANY_RATE)
    uncertain = confidence is None or confidence < settings.certain
    found = {
        REPEATED: is_loop(units, settings) or repeated_share(units) >= settings.repeated_share,
        TOO_FAST: letters > most * seconds + _SLACK,
        TOO_SLOW: letters + _SLACK < least * seconds,
        PHANTOM: is_phantom(text),
        NO_SPEECH: no_speech is not None and no_speech > settings.no_speech and uncertain,
    }
    return [name for name, holds in found.items() if holds]


def primary_tag(language: str | None) -> str:
    """Returns the language without its region: en-GB is en."""
    return (language or "").strip().lower().replace("_", "-").partition("-")[0]


def text_units(text: str) -> list[str]:
    """Returns the words of a text in lower case, and single characters where words are not set apart."""
    return _UNIT.findall(text.lower())


def is_loop(units: Sequence[str], settings: FlagSettings) -> bool:
    """Whether a word or phrase of up to 12 units stands several times in a row."""
    ids = np.unique(np.asarray(units, dtype=object).astype(str), return_inverse=True)[1] if units else np.zeros(0, int)
    for period in range(1, min(_LONGEST_LOOP, len(ids) // 2) + 1):
        # A stretch in which each unit is the one `period` before it repeats a phrase of that length.
        same = np.concatenate([[False], ids[period:] == ids[:-period], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1])
        longest = int((edges[1::2] - edges[::2]).max(initial=0)) + period
        if longest // period >= settings.loop_repeats and longest >= settings.loop_units and longest > period:
            return True
    return False


def repeated_share(units: Sequence[str]) -> float:
    """Returns the share of triples of units that were there before, 0 below 12 units.

    It stands for the ratio by which a text can be compressed, and is, unlike that, the same with every zlib.
    """
    triples = list(zip(units, units[1:], units[2:], strict=False))
    return 1.0 - len(set(triples)) / len(triples) if len(units) >= _LONGEST_LOOP else 0.0


def is_phantom(text: str) -> bool:
    """Whether a whole utterance is what recognizers write down when nobody speaks."""
    plain = " ".join(re.sub(r"[^\w']+|_+", " ", text.lower().replace("’", "'")).split())
    unspaced = re.sub(rf"(?<=[{_UNSPACED}\uac00-\ud7a3]) | (?=[{_UNSPACED}\uac00-\ud7a3])", "", plain)
    return any(pattern.fullmatch(plain) or pattern.fullmatch(unspaced) for pattern in _patterns())


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for phrases in PHANTOM_PHRASES.values() for pattern in phrases)
