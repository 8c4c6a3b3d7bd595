"""Measures of a spoken take against what was asked: pure functions; what cannot be measured is None, never NaN."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.tokens.runs import LINGUISTIC_PER_GROUP, SEMANTIC_PER_GROUP

REPEAT_GROUPS = 4
"""Groups of 120 ms in a passage that counts as said again: 480 ms, about two syllables."""

REPEAT_WORDS = 3
"""Words in a passage that counts as heard again."""

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def words(text: str) -> list[str]:
    """Returns the words of a text without case, punctuation and symbols; apostrophes inside words stay.

    Scripts that put no space between words give one word per character, so the word error rate of Chinese is the
    character error rate.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    spaced = "".join(_spaced(character) for character in folded)
    return [word for word in (part.strip("'") for part in spaced.split()) if word]


def _spaced(character: str) -> str:
    if character == "'" or unicodedata.category(character)[0] == "M":
        return character
    if not character.isalnum():
        return " "
    if character.isascii() or not unicodedata.name(character, "").startswith(_UNSPACED):
        return character
    return f" {character} "


def word_error_rate(text: str, heard: str) -> float | None:
    """Returns substitutions, deletions and insertions over the words of `text`; None when it has no word."""
    import jiwer

    reference = words(text)
    return float(jiwer.wer(" ".join(reference), " ".join(words(heard)))) if reference else None


def ratio(measured: float | None, asked: float | None) -> float | None:
    """Returns measured / asked; None when either is missing or not a positive finite number."""
    if measured is None or asked is None:
        return None
    if not (measured > 0 and asked > 0):  # false for NaN too
        return None
    quotient = measured / asked
    return quotient if math.isfinite(quotient) else None


def cosine(left: npt.ArrayLike, right: npt.ArrayLike) -> float | None:
    """Returns the cosine of two vectors, -1..1; None when one is zero or their lengths differ."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    if a.shape != b.shape:
        return None
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / norm, -1.0, 1.0)) if norm > 0 and math.isfinite(norm) else None


def repetition(vq02: Sequence[int] | None, vq06: Sequence[int] | None, heard: str | None = None) -> float | None:
    """Returns the share of token groups that repeat earlier ones, 0..1.

    A passage of 4 groups (480 ms) is a repeat when the same codes came before. A passage of one group over and over
    is a held sound or a pause, which is length and not repetition, and does not count. Without codes the share of
    repeated three-word passages in what was heard is returned instead; None without either.
    """
    if vq02 is not None and vq06 is not None:
        return _repeated_passages(_groups(vq02, vq06))
    if heard is None:
        return None
    said = words(heard)
    passages = [tuple(said[i : i + REPEAT_WORDS]) for i in range(len(said) - REPEAT_WORDS + 1)]
    return 1 - len(set(passages)) / len(passages) if passages else 0.0


def _groups(vq02: Sequence[int], vq06: Sequence[int]) -> npt.NDArray[np.int64]:
    """Returns one number per whole group, equal for equal groups, int64 [groups]."""
    count = min(len(vq02) // LINGUISTIC_PER_GROUP, len(vq06) // SEMANTIC_PER_GROUP)
    first = np.asarray(vq02, np.int64)[: count * LINGUISTIC_PER_GROUP].reshape(count, LINGUISTIC_PER_GROUP)
    second = np.asarray(vq06, np.int64)[: count * SEMANTIC_PER_GROUP].reshape(count, SEMANTIC_PER_GROUP)
    _, numbers = np.unique(np.hstack([first, second]), axis=0, return_inverse=True)
    return np.asarray(numbers, np.int64).reshape(-1)


def _repeated_passages(groups: npt.NDArray[np.int64]) -> float:
    if len(groups) < REPEAT_GROUPS:
        return 0.0
    passages = np.lib.stride_tricks.sliding_window_view(groups, REPEAT_GROUPS)
    moving = passages[(passages != passages[:, :1]).any(axis=1)]
    return float(len(moving) - len(np.unique(moving, axis=0))) / len(passages) if len(moving) else 0.0


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the row with None for each float that is NaN or infinite."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
