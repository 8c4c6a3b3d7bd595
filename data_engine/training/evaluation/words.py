"""Word errors per utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.stages.rules.measures import words
from data_engine.training.scoring import edits

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class WordCounts:
    """Wrong words and words of the text, int64 [utterances] each; insertions count, so wrong may be more."""

    wrong: Counts
    total: Counts

    @property
    def rate(self) -> float:
        """All errors over all words."""
        return float(self.wrong.sum() / max(int(self.total.sum()), 1))


def count_words(texts: Sequence[str], heard: Sequence[str]) -> WordCounts:
    """Returns the fewest substitutions, deletions and insertions of each utterance."""
    numbers: dict[str, int] = {}

    def numbered(text: str) -> Counts:
        return np.array([numbers.setdefault(word, len(numbers)) for word in words(text)], np.int64)

    pairs = [(numbered(text), numbered(other)) for text, other in zip(texts, heard, strict=True)]
    wrong = np.array([edits(reference, other) for reference, other in pairs], np.int64)
    return WordCounts(wrong, np.array([len(reference) for reference, _ in pairs], np.int64))
