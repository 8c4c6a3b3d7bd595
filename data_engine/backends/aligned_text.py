"""What both aligners share: which texts can be aligned, and from the times of phones to those of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from data_engine.backends.pronunciation import LANGUAGES, Phones, Pronouncer, text_words
from data_engine.backends.protocols import Wave, Word
from data_engine.backends.protocols_listening import AlignedText
from data_engine.core.errors import RecordError

Ints = npt.NDArray[np.int64]
Align = Callable[[Wave, Sequence[str], Sequence[Phones]], AlignedText]

SAMPLE_RATE = 16_000
_SILENT = 1e-4
"""Peak up to which nothing is said."""


def align_each(
    waves: Sequence[Wave], texts: Sequence[str], language: str, pronouncer: Pronouncer, align: Align
) -> list[AlignedText | RecordError]:
    """Returns each text aligned, or in its place why it cannot be.

    Args:
        waves: float32 [samples] each, 16 kHz.
        texts: What is said in each.
        language: Of the texts.
        pronouncer: Knows the phones of words.
        align: A wave, its words and their phones to times; raises RecordError.

    Raises:
        ValueError: A language that has no phones here.
    """
    if language not in LANGUAGES:
        raise ValueError(f"this aligner knows {sorted(LANGUAGES)}, not '{language}'")
    found: list[AlignedText | RecordError] = []
    for wave, text in zip(waves, texts, strict=True):
        try:
            found.append(_aligned(wave, text_words(text), pronouncer, align))
        except RecordError as error:
            found.append(error)
    return found


def _aligned(wave: Wave, words: Sequence[str], pronouncer: Pronouncer, align: Align) -> AlignedText:
    if not words:
        return AlignedText(())
    if np.abs(wave).max(initial=0.0) <= _SILENT:
        raise RecordError("SILENT", f"a text of {len(words)} words, but nothing is heard")
    return align(wave, words, pronouncer.phones(words))


def too_short(phones: int, num_samples: int) -> RecordError:
    """Returns the error of a text that cannot have been said in so short a time."""
    seconds = num_samples / SAMPLE_RATE
    return RecordError("TOO_SHORT", f"a text of {phones} phones cannot have been said in {seconds:.2f} s")


def timed_text(
    words: Sequence[str], pronounced: Sequence[Phones], times: npt.ArrayLike, num_samples: int, confidence: float
) -> AlignedText:
    """Returns words and phones with their times: a word lasts from its first phone to its last.

    Args:
        words: Of the text.
        pronounced: Phones of each word.
        times: First and after-last sample of each phone, [phones, 2].
        num_samples: Length of the wave; nothing lies outside it.
        confidence: How well the text fits.
    """
    edges = np.clip(np.rint(np.asarray(times, np.float64)).astype(np.int64), 0, num_samples)
    counts = np.array([len(phones) for phones in pronounced], np.int64)
    last = np.cumsum(counts)
    spans = np.stack([edges[last - counts, 0], edges[last - 1, 1]], axis=1)
    names = [phone for phones in pronounced for phone in phones]
    share = float(np.clip(confidence, 0.0, 1.0))
    return AlignedText(_listed(words, spans), _listed(names, edges), share)


def _listed(names: Sequence[str], spans: Ints) -> tuple[Word, ...]:
    return tuple(Word(name, start, end - start) for name, (start, end) in zip(names, spans.tolist(), strict=True))
