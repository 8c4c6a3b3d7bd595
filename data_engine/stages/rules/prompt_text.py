"""Whether the text of a segment can stand in a voice prompt: a synthesizer that clones is told that this was said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data_engine.stages.rules.hallucination import TOO_FAST, TOO_SLOW, FlagSettings, primary_tag, text_flags

FLAGGED, RATE_ODD, OTHER_SCRIPT, LANGUAGE_UNSURE = "text_flagged", "text_rate", "text_script", "language_unsure"

_CERTAIN_LANGUAGE = 0.5
_FITTING_SHARE = 0.5

_SCRIPTS = {
    "han": r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f",
    "kana": r"\u3040-\u30ff",
    "hangul": r"\u1100-\u11ff\uac00-\ud7a3",
    "cyrillic": r"\u0400-\u052f",
    "greek": r"\u0370-\u03ff",
    "arabic": r"\u0600-\u06ff",
    "latin": r"A-Za-z\u00c0-\u024f\u1e00-\u1eff",
}
_WRITTEN_IN = {
    "zh": ("han",), "yue": ("han",), "ja": ("han", "kana"), "ko": ("hangul",), "el": ("greek",), "ar": ("arabic",),
    "fa": ("arabic",),
} | dict.fromkeys(("ru", "uk", "bg"), ("cyrillic",)) | dict.fromkeys(
    ("en", "de", "nl", "fr", "es", "it", "pt", "pl", "tr", "cs", "sv", "da", "fi", "no", "hu", "ro", "vi", "id"),
    ("latin",),
)  # fmt: skip
_LETTER = re.compile(r"[^\W\d_]")


def text_problem(segment: Mapping[str, Any]) -> str | None:
    """Returns why the text of a segment cannot be trusted in a prompt; None when it can, or when there is none.

    `text_flagged`: the recognizer's text carries a flag. `text_rate`: more or fewer letters in a second than anybody
    says in the language, also for a text of the source. `language_unsure`: the recognizer gave the language less than
    0.5. `text_script`: fewer than half of the letters belong to a script the language is written in.

    Args:
        segment: Row of `segment.v1` with text, text_flags, language, language_confidence, num_samples, sample_rate.
    """
    text, language = segment["text"], segment["language"]
    if not text:
        return None
    seconds = segment["num_samples"] / segment["sample_rate"]
    rates = {TOO_FAST, TOO_SLOW} & set(text_flags(text, language, seconds, None, None, FlagSettings()))
    certain = segment["language_confidence"]
    problems = {
        FLAGGED: bool(segment["text_flags"]),
        RATE_ODD: bool(rates),
        LANGUAGE_UNSURE: certain is not None and certain < _CERTAIN_LANGUAGE,
        OTHER_SCRIPT: script_share(text, language) < _FITTING_SHARE,
    }
    return next((name for name, holds in problems.items() if holds), None)


def script_share(text: str, language: str | None) -> float:
    """Returns the share of letters in scripts the language is written in; 1 where that is unknown, or without any."""
    scripts = _WRITTEN_IN.get(primary_tag(language))
    letters = len(_LETTER.findall(text))
    if not scripts or not letters:
        return 1.0
    fitting = re.compile(f"[{''.join(_SCRIPTS[name] for name in scripts)}]")
    return min(1.0, len(fitting.findall(text)) / letters)
