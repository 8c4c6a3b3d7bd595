"""Text, tags and words out of the tokens of FunASR's models: pure functions over strings and frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Word

FRAME_SAMPLES = 960
"""Samples at 16 kHz between two frames of an encoder over stacked filterbanks, 60 ms."""
FIRST_EDGE = -280
"""Sample at which frame 0 begins; frame n is centred on sample 960 n + 200."""
LONGEST_TOKEN = 4
"""Frames a token lasts at most: models mark where one ends or peaks, not the silence around it."""

_TAG = re.compile(r"<\|([^|<>]*)\|>")
_LANGUAGES = frozenset({"zh", "en", "yue", "ja", "ko"})
_EMOTIONS = frozenset({"HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED"})
_EVENTS = frozenset({
    "Speech", "BGM", "Applause", "Laughter", "Cry", "Sneeze", "Breath", "Cough", "Sing", "Speech_Noise",
})  # fmt: skip
_SPACE = "\u2581"
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")


@dataclass(frozen=True, slots=True)
class RichText:
    """A text of SenseVoice without its tags, and what they say; None where it says nothing."""

    text: str
    language: str | None
    emotion: str | None
    events: tuple[str, ...]


def rich_text(tagged: str) -> RichText:
    """Returns what `<|en|><|HAPPY|><|Speech|><|withitn|>Good morning.` says.

    Tags that are unknown, or that stand for unknown (`EMO_UNKNOWN`, `nospeech`, ...), say nothing; a tag may also
    come in the middle of a text.
    """
    tags = _TAG.findall(tagged)
    language = next((tag for tag in tags if tag in _LANGUAGES), None)
    emotion = next((tag.lower() for tag in tags if tag in _EMOTIONS), None)
    events = tuple(dict.fromkeys(tag.lower() for tag in tags if tag in _EVENTS))
    return RichText(" ".join(_TAG.sub(" ", tagged).split()), language, emotion, events)


def is_tag(piece: str) -> bool:
    """Whether a token is a tag and no part of the text."""
    return _TAG.fullmatch(piece.removeprefix(_SPACE)) is not None


def piece_words(pieces: Sequence[str], spans: Sequence[tuple[int, int]]) -> tuple[Word, ...]:
    """Returns the words that sentence pieces make up.

    A piece continues the word before it unless it begins with a space or either is written without spaces, as Han,
    kana and Thai are; punctuation always continues.

    Args:
        pieces: As in the vocabulary, with `\u2581` for a space.
        spans: First sample and the one after the last of each piece.
    """
    words: list[Word] = []
    for piece, (start, end) in zip(pieces, spans, strict=True):
        text = piece.replace(_SPACE, "")
        if not text:
            continue
        last = words[-1] if words else None
        unspaced = last is not None and (_UNSPACED.match(text[0]) or _UNSPACED.match(last.text[-1]))
        if last is not None and (not text[0].isalnum() or not (piece.startswith(_SPACE) or unspaced)):
            words[-1] = Word(last.text + text, last.start, end - last.start)
        else:
            words.append(Word(text, start, end - start))
    return tuple(words)


def spans_of_peaks(peaks: Sequence[int], num_samples: int) -> list[tuple[int, int]]:
    """Returns first sample and the one after the last of tokens that peak in given frames (CTC).

    A token begins with its peak and ends where the next one begins, after 240 ms at most.

    Args:
        peaks: Frame of each token, ascending.
        num_samples: Length of the clip; nothing passes its end.
    """
    begins = np.asarray(peaks, np.int64)
    ends = np.minimum(np.append(begins[1:], np.iinfo(np.int32).max), begins + LONGEST_TOKEN)
    return _samples(begins, np.maximum(ends, begins + 1), num_samples)


def spans_of_weights(weights: npt.NDArray[np.float32], tokens: int, num_samples: int) -> list[tuple[int, int]]:
    """Returns first sample and the one after the last of each token of continuous integrate-and-fire.

    Token k ends in the frame where the sum of weights reaches k and begins where the one before it ends, 240 ms
    before its own end at the earliest (Dong & Xu, arXiv 1905.11235, sec. 3.1).

    Args:
        weights: float32 [frames].
        tokens: How many were fired.
        num_samples: Length of the clip; nothing passes its end.
    """
    reached = np.cumsum(weights, dtype=np.float64)
    ends = np.minimum(np.searchsorted(reached, np.arange(1, tokens + 1) - 1e-4) + 1, max(len(weights), 1))
    before = np.append(0, ends[:-1])
    return _samples(np.minimum(np.maximum(before, ends - LONGEST_TOKEN), ends - 1), ends, num_samples)


def _samples(begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], num_samples: int) -> list[tuple[int, int]]:
    edges = np.clip(np.stack([begins, ends], axis=1) * FRAME_SAMPLES + FIRST_EDGE, 0, num_samples)
    return [(int(start), int(end)) for start, end in edges]
