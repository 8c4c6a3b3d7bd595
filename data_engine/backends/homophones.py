"""Which character a syllable was: Viterbi's best way through homophones under a bigram model of characters."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.ctc_words import Lexicon
from data_engine.core.errors import ConfigError

Doubles = npt.NDArray[np.float64]

_BEGIN, _END = "<s>", "</s>"


class Homophones:
    """Characters by syllable and the model that chooses among them.

    Args:
        lexicon: Characters and the phones of each of their readings.
        model: Gzipped ARPA file of order 2 over the characters.

    Raises:
        ConfigError: The model cannot be read.
    """

    def __init__(self, lexicon: Lexicon, model: Path) -> None:
        self._characters, self._unigrams, self._backs, self._pairs = _read_bigrams(model)
        numbers = {character: number for number, character in enumerate(self._characters)}
        choices: dict[str, list[int]] = {}
        for character, phones in lexicon:
            choices.setdefault("".join(phones), []).append(numbers[character])
        self._choices = {syllable: np.array(found) for syllable, found in choices.items()}
        self._begin, self._end = numbers[_BEGIN], numbers[_END]

    def spell(self, syllables: Sequence[str]) -> str:
        """Returns one character per syllable, together the likeliest.

        Args:
            syllables: Phones of each, joined.
        """
        columns = [np.array([self._begin]), *(self._choices[s] for s in syllables), np.array([self._end])]
        best = np.zeros(1)
        came: list[npt.NDArray[np.int64]] = []
        for before, after in itertools.pairwise(columns):
            ways = best[:, None] + self._follow(before, after)
            came.append(ways.argmax(axis=0))
            best = ways.max(axis=0)
        place, chosen = 0, []
        for column, back in zip(columns[-2:0:-1], came[:0:-1], strict=True):
            place = int(back[place])
            chosen.append(self._characters[column[place]])
        return "".join(reversed(chosen))

    def _follow(self, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> Doubles:
        """Returns log10 P(after | before), [before, after]; stored pairs have no logarithm of exactly zero."""
        known = self._pairs[before][:, after].toarray()
        backed = self._backs[before][:, None] + self._unigrams[after]
        return np.where(known < 0, known, backed)


def _read_bigrams(path: Path) -> tuple[list[str], Doubles, Doubles, Any]:
    """Returns words, log10 unigrams, log10 back-off weights and the pairs as a sparse matrix."""
    from scipy.sparse import csr_array

    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
        _, singles, doubles, *_ = (part.splitlines()[1:] for part in text.split("\n\\"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the character model '{path}': {error}") from error
    rows = [line.split("\t") for line in singles if line]
    words = [row[1] for row in rows]
    unigrams = np.array([float(row[0]) for row in rows])
    backs = np.array([float(row[2]) if len(row) > 2 else 0.0 for row in rows])
    numbers = {word: number for number, word in enumerate(words)}
    pairs = [line.split("\t")[:2] for line in doubles if line]
    logs = np.array([min(float(log), -1e-6) for log, _ in pairs])
    places = np.array([[numbers[word] for word in pair.split(" ")] for _, pair in pairs]).reshape(-1, 2)
    return words, unigrams, backs, csr_array((logs, (places[:, 0], places[:, 1])), shape=(len(words), len(words)))
